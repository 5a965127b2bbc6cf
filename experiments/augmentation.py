"""Draws what every augmentation makes of a scene with its boxes, masks and keypoints, and a few scenes as they are.

    python -m experiments.augmentation

writes augmentation.png, stamp_scenes.png and depth_of_solids.png into docs/figures; half a minute on two cores of an
AMD EPYC, the scenes being prepared anew in a temporary folder (and the stamps obtained, if they are not there yet).
"""

import pathlib
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mmtl_jax import data
from mmtl_jax.core.build import build
from mmtl_jax.data import transforms
from mmtl_jax.data.transforms.base import Example, is_random
from mmtl_jax.reporting.style import FONT_SIZE, LIGHT, hue, panels, to_png

FIGURES = pathlib.Path(__file__).parents[1] / 'docs' / 'figures'
SCENES = {'num_train': 24, 'num_validation': 0, 'num_test': 0, 'image_size': 192, 'max_objects': 4, 'min_size': 0.3}
LAYERS = {
    'masks': ('segmentation_mask',),
    'instances': 'instance_mask',
    'boxes': 'objects/bbox',
    'with_boxes': ('objects/label',),
    'keypoints': 'keypoints',
    'keypoint_pairs': ((2, 3),),
}
WITHOUT_KEYPOINTS = {key: value for key, value in LAYERS.items() if not key.startswith('keypoint')}
STILL = {'degrees': 0.0, 'scale': (1.0, 1.0), 'translate': 0.0, 'flip': 0.0}
# Title -> what is done. One draw each: the ranges leave one value, but for the places.
DONE = {
    'as it is': {},
    'flip': {'name': 'random_spatial', **STILL, 'flip': 1.0},
    'rotation': {'name': 'random_spatial', **STILL, 'degrees': 35.0},
    'shift': {'name': 'random_spatial', **STILL, 'translate': 0.3},
    'shear': {'name': 'random_spatial', **STILL, 'shear': 30.0},
    'zoom out': {'name': 'random_spatial', **STILL, 'scale': (0.6, 0.6)},
    'crop': {'name': 'random_spatial_crop', 'size': 192, 'scale': (0.4, 0.4)},
    'resize with padding': {'name': 'resize_with_padding', 'size': (192, 256)},
    'colour': {'name': 'colour_jitter', 'key': 'image', 'brightness': 0.5, 'contrast': 0.5, 'saturation': 0.9},
    'mosaic': {'name': 'mosaic', 'size': 192, 'rate': 1.0},
}
SEED = 4
IGNORED = 255


def scenes(folder: str | None = None) -> list[Example]:
    """Returns scenes with keypoints: the top, the bottom, the left and the right end of the largest object."""
    source = data.load_source('stamp_scenes', 'train', data_dir=folder, builder_kwargs=SCENES)
    return [{**source[index], 'keypoints': ends(source[index])} for index in range(len(source))]


def ends(example: Example) -> np.ndarray:
    """Returns `[4, 3]`: the outermost pixels of the object that covers most."""
    mask = example['instance_mask'][..., 0] == example['objects/id'][example['objects/area'].argmax()]
    rows, columns = np.nonzero(mask)
    outermost = [rows.argmin(), rows.argmax(), columns.argmin(), columns.argmax()]
    return np.array([[(rows[n] + 0.5) / len(mask), (columns[n] + 0.5) / len(mask), 2] for n in outermost], np.float32)


def augment(spec: Mapping[str, Any], example: Example, others: Sequence[Example]) -> Example:
    """Returns an example after one transform."""
    if not spec:
        return example
    if 'key' not in spec:
        spec = {**spec, 'layers': WITHOUT_KEYPOINTS if spec['name'] == 'mosaic' else LAYERS}
    step, rng = build(spec, transforms), np.random.default_rng(SEED)
    if step.partners:
        return {**step(example, rng, lambda rng: others[rng.integers(len(others))]), 'keypoints': None}
    return step(example, rng) if is_random(step) else step(example)


def show(axes: Axes, example: Example, title: str, class_names: Sequence[str]) -> None:
    """Draws a picture, its instances as tints, its boxes with their classes, and its keypoints."""
    image = example['image'] if example['image'].dtype != np.uint8 else example['image'] / 255
    height, width = image.shape[:2]
    tinted = np.array(image, np.float32)
    instances, classes = example['instance_mask'][..., 0], example['segmentation_mask'][..., 0]
    for number in range(1, len(example['objects/bbox']) + 1):
        tint = np.array([int(hue(number - 1)[at : at + 2], 16) / 255 for at in (1, 3, 5)])
        tinted[instances == number] = 0.55 * tinted[instances == number] + 0.45 * tint
    stripes = (np.add.outer(np.arange(height), np.arange(width)) // 6 % 2).astype(bool)
    tinted[(classes == IGNORED) & stripes] = 0.75
    axes.imshow(tinted, interpolation='nearest')
    for number, (box, label) in enumerate(zip(example['objects/bbox'], example['objects/label'], strict=True)):
        top, left, bottom, right = box * (height, width, height, width) - 0.5
        frame = Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=hue(number), linewidth=1.2)
        axes.add_patch(frame)
        words = {'fontsize': FONT_SIZE - 2.5, 'color': 'white', 'va': 'top', 'clip_on': True}
        axes.text(left + 2, top + 2, class_names[label], **words, bbox={'facecolor': hue(number), 'lw': 0, 'pad': 0.8})
    keypoints = example.get('keypoints')
    if keypoints is not None:
        for number, (y, x, seen) in enumerate(keypoints):
            if seen:
                place = (x * width - 0.5, y * height - 0.5)
                look = {'color': 'white', 'markeredgecolor': LIGHT['ink'], 'markersize': 7.5, 'markeredgewidth': 0.8}
                axes.plot(*place, 'o', **look, zorder=4)
                letter = {'fontsize': 5.5, 'ha': 'center', 'va': 'center_baseline', 'color': LIGHT['ink']}
                axes.text(*place, 'TBLR'[number], **letter, zorder=5)
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)
    axes.set_axis_off()
    axes.set_title(title, fontsize=FONT_SIZE, color=LIGHT['ink'], loc='left', parse_math=False)


def draw_augmentation(examples: Sequence[Example], class_names: Sequence[str]) -> Figure:
    """Returns one panel for each transform, all of the same scene."""
    # Many objects on a bright ground.
    chosen = max(examples, key=lambda example: (len(example['objects/label']), example['image'].mean()))
    figure, axes = panels(len(DONE), columns=5, width=2.0, height=2.1)
    for panel, (title, spec) in zip(axes, DONE.items(), strict=True):
        show(panel, augment(spec, chosen, examples), title, class_names)
    return figure


def draw_scenes(examples: Sequence[Example], class_names: Sequence[str], count: int = 10) -> Figure:
    """Returns a sheet of scenes with their captions."""
    figure, axes = panels(count, columns=5, width=2.0, height=2.3)
    for panel, example in zip(axes, examples, strict=False):
        show(panel, {**example, 'keypoints': None}, textwrap.fill(example['caption'], 30), class_names)
    return figure


def draw_depth(examples: Sequence[Example]) -> Figure:
    """Returns scenes, one a row: the picture, its classes, the depth of its solids, near is bright, and its normals."""
    figure, axes = panels(4 * len(examples), columns=4, width=2.0, height=2.1)
    for example, row in zip(examples, np.reshape(axes, (-1, 4)), strict=True):
        solids = transforms.depth_of_solids('instance_mask')(example)
        normals = transforms.normals_from_depth()(solids)['normals']
        classes = np.ma.masked_equal(example['segmentation_mask'][..., 0], IGNORED)
        # As usual: x, y and the direction to the viewer as red, green and blue.
        pictures = {
            'picture': {'X': example['image']},
            'classes': {'X': classes, 'cmap': 'tab20', 'vmin': 0, 'vmax': 19},
            'depth': {'X': solids['depth'], 'cmap': 'gray_r'},
            'normals': {'X': (normals * (1, -1, -1) + 1) / 2},
        }
        for panel, (title, picture) in zip(row, pictures.items(), strict=True):
            panel.imshow(**picture, interpolation='nearest')
            panel.set_axis_off()
            panel.set_title(title, fontsize=FONT_SIZE, color=LIGHT['ink'], loc='left', parse_math=False)
    return figure


def main(folder: pathlib.Path = FIGURES) -> None:
    """Writes the figures."""
    examples = scenes()
    names = data.load_source('stamp_scenes', 'train', builder_kwargs=SCENES).class_names('objects/label')
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'augmentation.png').write_bytes(to_png(draw_augmentation(examples, names)))
    (folder / 'stamp_scenes.png').write_bytes(to_png(draw_scenes(examples, names)))
    (folder / 'depth_of_solids.png').write_bytes(to_png(draw_depth(examples[:2])))


if __name__ == '__main__':
    main()
