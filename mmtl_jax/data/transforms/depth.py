"""What is known of the shape of things in a picture: depth, and the normals that follow from it."""

import numpy as np
import scipy.ndimage

from mmtl_jax.data.transforms.base import Transform, on_key


def scale_depth(key: str, scale: float, *, offset: float = 0.0, out: str | None = None) -> Transform:
    """Returns `(value - offset) * scale`, float32, of what is above 0, and 0, which is not measured, elsewhere.

    For what is stored in whole numbers: the disparity of Cityscapes in pixels is (p - 1) / 256.

    Args:
      key: of a map `[h, w]` or `[h, w, 1]`.
      scale: factor.
      offset: subtracted before.
      out: the key of the result; None takes `key`.

    Raises:
      ValueError: a scale that is not positive.
    """
    if not scale > 0:
        raise ValueError(f'scale_depth: scale must be positive, got {scale}.')

    def function(values: np.ndarray) -> np.ndarray:
        values = np.asarray(values, np.float32)
        return np.where(values > 0, (values - np.float32(offset)) * np.float32(scale), np.float32(0))

    return on_key('scale_depth', function, key, out)


def depth_of_solids(instances: str, out: str = 'depth', *, wall: float = 1.0) -> Transform:
    """Makes a map of depth from an instance mask: every object bulges out of a flat wall towards the viewer.

    A pixel at the distance d from the outline of what is seen of its object stands out by the root of R^2 - (R - d)^2,
    with R the largest distance in the object, so that a disc becomes half a ball. Distances are shares of the longer
    side of the picture. The result is made up, but it is a function of what the picture shows: a target of depth for
    scenes that have none.

    Args:
      instances: the key of an instance mask, `[h, w]` or `[h, w, 1]`, 0 for the wall.
      out: the key of the result, `[h, w]` float32.
      wall: depth of the wall; objects stand out by half the longer side at most.

    Raises:
      ValueError: a wall so near that objects would reach the viewer.
    """
    if not wall > 0.5:
        raise ValueError(f'depth_of_solids: wall must be farther than the largest object, above 0.5, got {wall}.')

    def function(mask: np.ndarray) -> np.ndarray:
        mask = np.asarray(mask).reshape(mask.shape[:2]).astype(np.int32)
        height = np.zeros(mask.shape)
        for number, place in enumerate(scipy.ndimage.find_objects(mask), 1):
            if place is None:
                continue
            # A frame of nothing: what the edge of the picture cuts off ends there.
            inside = np.pad(mask[place] == number, 1)
            distance = scipy.ndimage.distance_transform_edt(inside)[1:-1, 1:-1]
            radius = distance.max()
            bulge = np.sqrt(np.maximum(radius**2 - (radius - distance) ** 2, 0))
            height[place] = np.where(inside[1:-1, 1:-1], bulge, height[place])
        return (wall - height / max(mask.shape)).astype(np.float32)

    return on_key('depth_of_solids', function, instances, out)


def normals_from_depth(key: str = 'depth', out: str = 'normals', *, focal: float | None = None) -> Transform:
    """Makes surface normals from a map of depth: the cross product of the differences between a pixel's neighbours.

    With P(u, v) the point in space that the pixel shows, x to the right, y down and z away from the viewer,

        n = (P(u, v + 1) - P(u, v - 1)) x (P(u + 1, v) - P(u - 1, v)),

    scaled to the length 1; it points to the viewer, n_z <= 0. Pixels at the border, and those with a neighbour that was
    not measured, have the zero vector, which means that there is none.

    Depth that is moved by a flip, a shift or a turn gives the normals of the moved scene; a zoom, which divides depth
    and leaves the directions, does not. So this comes after what moves, which must not zoom.

    Args:
      key: of a map `[h, w]` or `[h, w, 1]`; 0 and NaN are not measured.
      out: the key of the result, `[h, w, 3]` float32.
      focal: the focal length as a share of the width of the picture, with the optical axis through its centre; None for
        parallel rays, where depth is in shares of the longer side.

    Raises:
      ValueError: a focal length that is not positive.
    """
    if focal is not None and not focal > 0:
        raise ValueError(f'normals_from_depth: focal must be positive, or None for parallel rays, got {focal}.')

    def function(depth: np.ndarray) -> np.ndarray:
        depth = np.asarray(depth, np.float64)
        depth = depth.reshape(depth.shape[:2])
        known = np.isfinite(depth) & (depth > 0)
        points = _points(np.where(known, depth, 1.0), focal)
        normals, found = np.zeros((*depth.shape, 3)), np.zeros(depth.shape, bool)
        down, right = points[2:, 1:-1] - points[:-2, 1:-1], points[1:-1, 2:] - points[1:-1, :-2]
        inner = np.cross(down, right)
        normals[1:-1, 1:-1] = inner / np.maximum(np.linalg.norm(inner, axis=-1, keepdims=True), 1e-12)
        found[1:-1, 1:-1] = known[2:, 1:-1] & known[:-2, 1:-1] & known[1:-1, 2:] & known[1:-1, :-2]
        return np.where((found & known)[..., None], normals, 0.0).astype(np.float32)

    return on_key('normals_from_depth', function, key, out)


def _points(depth: np.ndarray, focal: float | None) -> np.ndarray:
    """Returns the point that each pixel shows, `[h, w, 3]`."""
    height, width = depth.shape
    y, x = np.meshgrid(np.arange(height) + 0.5 - height / 2, np.arange(width) + 0.5 - width / 2, indexing='ij')
    if focal is None:
        return np.stack([x / max(depth.shape), y / max(depth.shape), depth], axis=-1)
    return np.stack([x * depth / (focal * width), y * depth / (focal * width), depth], axis=-1)
