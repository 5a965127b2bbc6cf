"""Answers that lie in a picture, predicted or true, as figures and reports draw them over it."""

import dataclasses
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Boxes:
    """Boxes with their classes.

    Attributes:
      places: `[n, 4]`: ymin, xmin, ymax, xmax as shares of the sides.
      names: n names of classes.
      scores: `[n]` probabilities of predicted boxes; None for true ones.
    """

    places: np.ndarray
    names: Sequence[str]
    scores: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Mask:
    """A class for every pixel.

    Attributes:
      classes: `[h, w]` ints; -1 and 255 are unknown.
      names: what the classes are called, by number; empty if they have numbers only. 'background' is not coloured.
    """

    classes: np.ndarray
    names: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class Values:
    """Numbers for every pixel.

    Attributes:
      values: `[h, w]`, or `[h, w, C]`, of which the first is drawn; NaN is unknown.
      normals: the numbers are the x, y, z of a surface normal, which become red, green and blue.
    """

    values: np.ndarray
    normals: bool = False


@dataclasses.dataclass(frozen=True)
class Points:
    """Certain points, each of which is drawn with its number.

    Attributes:
      places: `[k, 2]`: y and x as shares of the sides; NaN is unknown.
      names: what the points are called; empty if they have numbers only.
    """

    places: np.ndarray
    names: Sequence[str] = ()


Overlay = Boxes | Mask | Values | Points
