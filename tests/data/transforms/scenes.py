"""Made-up scenes in which every layer tells the same, so that it shows when one of them moves otherwise."""

import numpy as np

LAYERS = {
    'image': 'image',
    'masks': ('mask',),
    'instances': 'instances',
    'boxes': 'objects/bbox',
    'with_boxes': ('objects/label',),
    'keypoints': 'keypoints',
    'keypoint_pairs': ((0, 1),),
    'depths': ('depth',),
}
MARK = (250, 0, 250)


def scene(height=60, width=90, seed=0):
    """Returns three rectangles on noise: of instance n, class n + 3, depth n / 2, each with a mark in its middle."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 120, size=(height, width, 3), dtype=np.uint8)
    instances = np.zeros((height, width, 1), np.uint8)
    boxes, points = [], []
    for number in range(1, 4):
        top, left = int(rng.integers(2, height // 3)), (number - 1) * width // 3 + 2
        bottom, right = top + int(rng.integers(12, height // 2)), left + int(rng.integers(12, width // 3 - 3))
        instances[top:bottom, left:right] = number
        boxes.append([top / height, left / width, bottom / height, right / width])
        y, x = (top + bottom) // 2, (left + right) // 2
        image[y - 3 : y + 4, x - 3 : x + 4] = MARK
        points.append([(y + 0.5) / height, (x + 0.5) / width, 2])
    mask = np.where(instances > 0, instances + 3, 0).astype(np.uint8)
    return {
        'id': f'scene {seed}',
        'image': image,
        'mask': mask,
        'instances': instances,
        'depth': np.where(mask > 0, instances / 2, 3.0).astype(np.float32)[..., 0],
        'objects/bbox': np.array(boxes, np.float32),
        'objects/label': np.array([4, 5, 6]),
        'keypoints': np.array(points, np.float32),
    }


def check_agreement(example, *, slack, turned=False, zoom=None):
    """Fails where boxes, labels, masks, instances, depth and keypoints of a moved scene tell different things.

    Args:
      example: the scene.
      slack: how many pixels an edge may be off: pixels are whole, boxes are not.
      turned: a box may be larger than its object, but never smaller.
      zoom: by which depth was divided; None does not look.
    """
    height, width = example['image'].shape[:2]
    instances, mask = example['instances'][..., 0], example['mask'][..., 0]
    assert instances.shape == mask.shape == example['depth'].shape == (height, width)
    assert len(example['objects/label']) == len(example['objects/bbox'])
    assert set(np.unique(instances)) <= set(range(len(example['objects/label']) + 1))
    for number, (box, label) in enumerate(zip(example['objects/bbox'], example['objects/label'], strict=True), 1):
        inside = instances == number
        rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
        found = np.array([rows[0], columns[0], rows[-1] + 1, columns[-1] + 1])
        edges = box * (height, width, height, width)
        if turned:
            assert (edges[:2] <= found[:2] + slack).all()
            assert (edges[2:] >= found[2:] - slack).all()
        else:
            np.testing.assert_allclose(edges, found, atol=slack)
        assert (mask[inside] == label).all()
        if zoom is not None:
            np.testing.assert_allclose(example['depth'][inside], (label - 3) / 2 / zoom, rtol=1e-6)
    for y, x, seen in example['keypoints']:
        if not seen:
            assert (y, x) == (0, 0)
            continue
        pixel = example['image'][min(int(y * height), height - 1), min(int(x * width), width - 1)].astype(int)
        assert np.abs(pixel - MARK).max() < 40, 'the middle of a mark of 7 x 7 pixels, whatever the filter'
