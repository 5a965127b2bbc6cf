"""Boxes and the loss of detection: by hand, against numpy, and what must not matter."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmtl_jax import losses
from mmtl_jax.core.tree import all_finite
from mmtl_jax.core.types import Ragged

generator = np.random.default_rng(0)


def random_boxes(number: int) -> np.ndarray:
    low = generator.uniform(0, 0.7, (number, 2))
    return np.concatenate([low, low + generator.uniform(0.05, 0.3, (number, 2))], axis=-1).astype(np.float32)


def plain_giou(a: np.ndarray, b: np.ndarray) -> float:
    """Returns the formula for one pair, in double precision."""

    def area(low, high):
        return np.prod(np.maximum(np.subtract(high, low), 0))

    a, b = a.astype(np.float64), b.astype(np.float64)
    both = area(np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:]))
    around = area(np.minimum(a[:2], b[:2]), np.maximum(a[2:], b[2:]))
    union = area(a[:2], a[2:]) + area(b[:2], b[2:]) - both
    return both / union - (around - union) / around


def test_generalized_iou():
    boxes, others = random_boxes(50), random_boxes(50)
    expected = [plain_giou(*pair) for pair in zip(boxes, others, strict=True)]
    # Areas of .0025 and more are differences of numbers below 1 in single precision.
    giou = jax.jit(losses.generalized_iou)
    np.testing.assert_allclose(giou(boxes, others), expected, atol=1e-5)
    assert min(expected) < -0.5
    assert jax.eval_shape(giou, boxes[:, None], others[None]).shape == (50, 50)
    # By hand: two unit squares with one between them.
    square = np.tile(np.array([[0, 0, 1, 1]], np.float32), (50, 1))
    np.testing.assert_allclose(giou(square, square + np.array([[0, 2, 0, 2]], np.float32)), -1 / 3, rtol=1e-6)
    np.testing.assert_allclose(giou(boxes, boxes), 1, rtol=1e-6)


def test_generalized_iou_of_boxes_without_area_is_finite():
    point = jnp.full(4, 0.5)
    value, gradient = jax.jit(jax.value_and_grad(losses.generalized_iou))(point, point)
    assert value == 0
    assert all_finite(gradient)


def ragged(boxes, mask=None) -> Ragged:
    boxes = np.asarray(boxes, np.float32)
    return Ragged(boxes, np.ones(boxes.shape[:2], bool) if mask is None else np.asarray(mask, bool))


@functools.partial(jax.jit, static_argnums=1)
def jitted_assign(boxes: Ragged, shape: tuple[int, int], crowd=None) -> losses.Assignment:
    return losses.assign(boxes, shape, crowd)


def assign(boxes: Ragged, crowd=None, shape: tuple[int, int] = (4, 4)) -> losses.Assignment:
    """Returns the assignment as numpy."""
    return jax.device_get(jitted_assign(boxes, shape, crowd))


def test_each_cell_answers_for_the_right_object():
    # On a map of 4 x 4: a large object around everything, and a small one in the cell (2, 2).
    boxes = ragged([[[0.0, 0.0, 1.0, 1.0], [0.5, 0.5, 0.74, 0.74]]])
    found = assign(boxes)
    # The middle of the large one, .5, lies in the cell that begins there, and so does that of the small one, which wins
    # the cell; around it only the large one holds the middles of the cells.
    np.testing.assert_array_equal(np.argwhere(found.centre[0]), [[2, 2]])
    assert found.owner[0, 2, 2] == 1
    np.testing.assert_array_equal(found.positive[0], [[0, 0, 0, 0]] + [[0, 1, 1, 1]] * 3)
    assert found.owner[0].sum() == 1
    # Of the Gaussian of the large one, of deviation .54 * 4 / 6 cells.
    np.testing.assert_allclose(found.heat[0, 1, 2], np.exp(-1 / (2 * 0.36**2)), rtol=1e-5)
    np.testing.assert_allclose(found.heat[0, 1, 1], np.exp(-2 / (2 * 0.36**2)), rtol=1e-5)
    assert found.heat[0, 2, 2] == 1
    assert np.all(found.counts)


def test_an_object_between_the_middles_of_cells_has_its_centre():
    found = assign(ragged([[[0.26, 0.26, 0.3, 0.3], [0.0] * 4]], [[1, 0]]))
    np.testing.assert_array_equal(np.argwhere(found.positive[0]), [[1, 1]])
    edge = assign(ragged([[[0.9, 0.999, 1.0, 1.0], [0.0] * 4]], [[1, 0]]))
    np.testing.assert_array_equal(np.argwhere(edge.positive[0]), [[3, 3]])


def test_a_crowd_is_no_object_and_no_background():
    boxes = ragged([[[0.0, 0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 0.5]]])
    found = assign(boxes, np.array([[True, False]]))
    np.testing.assert_array_equal(found.counts[0, :2], np.zeros((2, 4)))
    assert np.all(found.counts[0, 2:])
    np.testing.assert_array_equal(np.argwhere(found.centre[0]), [[3, 1]])
    assert np.all(found.heat[0, 0] == 0)


def test_focal_loss_of_centres():
    logits = generator.normal(size=(2, 4, 4)).astype(np.float32)
    boxes = ragged([[[0.0, 0.0, 0.6, 0.6], [0.5, 0.5, 1.0, 1.0]]] * 2, [[1, 1], [0, 0]])
    found = assign(boxes)
    p, heat = 1 / (1 + np.exp(-logits.astype(np.float64))), np.asarray(found.heat, np.float64)
    terms = np.where(heat == 1, (1 - p) ** 2 * np.log(p), (1 - heat) ** 4 * p**2 * np.log(1 - p))
    expected = -terms.sum(axis=(1, 2)) / np.array([2, 1])
    np.testing.assert_allclose(jax.jit(losses.centre_focal)(logits, found), expected, rtol=1e-5)


class Case:
    """Random predictions for pictures with two objects, with one, with none, and of padding alone."""

    boxes = ragged(
        [
            [[0.1, 0.1, 0.4, 0.5], [0.5, 0.6, 0.9, 0.8]],
            [[0.0, 0.5, 1.0, 1.0], [0.0] * 4],
            np.zeros((2, 4)),
            np.zeros((2, 4)),
        ],
        [[1, 1], [1, 0], [0, 0], [0, 0]],
    )
    labels = Ragged(np.array([[2, 0], [1, -1], [-1, -1], [0, 0]], np.int32), boxes.mask)
    predictions = {
        'centres': generator.normal(size=(4, 6, 5)).astype(np.float32),
        'classes': generator.normal(size=(4, 6, 5, 3)).astype(np.float32),
        'boxes': random_boxes(4 * 6 * 5).reshape(4, 6, 5, 4),
    }

    @staticmethod
    @jax.jit
    def step(predictions, boxes, labels, crowd=None):
        """Returns the loss of each picture, and the gradient of their sum."""

        def objective(predictions):
            rows = losses.detection(predictions, predictions['boxes'], boxes, labels, crowd)
            return jnp.sum(rows), rows

        gradient, rows = jax.grad(objective, has_aux=True)(predictions)
        return rows, gradient


def test_the_loss_is_the_sum_of_its_parts():
    rows, _ = Case.step(Case.predictions, Case.boxes, Case.labels)
    found = assign(Case.boxes, shape=(6, 5))
    expected = np.array(jax.jit(losses.centre_focal)(Case.predictions['centres'], found), np.float64)
    for row in range(4):
        cells = np.argwhere(found.positive[row])
        misfit, surprise = [], []
        for y, x in cells:
            owner = found.owner[row, y, x]
            logits = Case.predictions['classes'][row, y, x].astype(np.float64)
            misfit.append(1 - plain_giou(Case.predictions['boxes'][row, y, x], Case.boxes.values[row, owner]))
            surprise.append(np.log(np.exp(logits).sum()) - logits[Case.labels.values[row, owner]])
        if len(cells):
            expected[row] += 2 * np.mean(misfit) + np.mean(surprise)
    np.testing.assert_allclose(rows, expected, rtol=1e-4)
    assert np.all(np.asarray(rows[2:]) > 0), 'a picture without objects teaches that there are none'


def test_padding_changes_nothing_to_the_bit_and_gradients_are_finite():
    clean = Case.step(Case.predictions, Case.boxes, Case.labels)
    values = np.where(Case.boxes.mask[..., None], Case.boxes.values, np.nan)
    names = np.where(Case.boxes.mask, Case.labels.values, 2)
    dirty = Case.step(Case.predictions, Ragged(values, Case.boxes.mask), Ragged(names, Case.boxes.mask))
    jax.tree.map(np.testing.assert_array_equal, clean, dirty)
    assert all_finite(clean)
    for name in ('classes', 'boxes'):
        assert not np.any(clean[1][name][2:])
        assert np.any(clean[1][name][0])


def test_what_lies_in_a_crowd_changes_nothing():
    crowd = Ragged(np.array([[True, False]] + [[False, False]] * 3), Case.boxes.mask)
    rows, gradient = Case.step(Case.predictions, Case.boxes, Case.labels, crowd)
    assert not np.any(gradient['centres'][0, 1:2, 1:2])
    assert rows[0] != Case.step(Case.predictions, Case.boxes, Case.labels)[0][0]


@pytest.mark.parametrize('label', [-1, 3, 255])
def test_a_class_out_of_range_teaches_no_class(label):
    labels = Ragged(np.full((4, 2), label, np.int32), Case.boxes.mask)
    rows, gradient = Case.step(Case.predictions, Case.boxes, labels)
    assert all_finite(rows)
    assert not np.any(gradient['classes'])
    assert np.any(gradient['boxes'][0])
