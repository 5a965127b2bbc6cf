"""The map of the fused features, and the attention between modalities on one example."""

import numpy as np
import pytest

from mmtl_jax import reporting
from mmtl_jax.reporting import attention, features, style
from tests.reporting import runs
from tests.reporting.test_report import written


def clusters(rows=30):
    """Returns features `[rows, 4]` of three clusters far apart, and the cluster of each row."""
    random, cluster = np.random.default_rng(0), np.arange(rows) % 3
    return random.normal(size=(rows, 4)) + 50.0 * np.eye(4)[cluster], cluster


def test_neighbours_stay_neighbours():
    values, cluster = clusters()
    points = reporting.embed(values)
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1) + 1e9 * np.eye(len(points))
    assert points.shape == (30, 2)
    assert (cluster[distances.argmin(axis=1)] == cluster).all()
    np.testing.assert_array_equal(points, reporting.embed(values))
    assert not reporting.embed(np.ones((6, 3))).any(), 'equal rows are at one point'


@pytest.mark.parametrize('values', [np.zeros((4, 2)), np.full((9, 2), np.nan), np.zeros(9)])
def test_what_has_no_map(values):
    with pytest.raises(ValueError, match=r't-SNE needs 5 rows or more of finite features \[N, D\], got the shape'):
        reporting.embed(values)


def test_each_grouping_has_a_panel_with_the_names_of_its_groups():
    points = np.random.default_rng(0).normal(size=(90, 2))
    many = [f'c{row % 30:02d}' for row in range(90)]
    groups = {'hue': ['a$', None, 'b'] * 30, 'many': many, 'modalities': ['image'] * 90}
    figure = reporting.feature_map(features.FeatureMap(points, groups))
    names = [[text.get_text() for text in axes.get_legend().get_texts()] for axes in figure.axes]
    assert [axes.get_title(loc='left') for axes in figure.axes] == list(groups)
    assert names[0] == ['a$', 'b']
    assert names[1] == ['others', *(f'c{index:02d}' for index in range(23))]
    assert sum(len(part.get_offsets()) for part in figure.axes[0].collections) == 90, 'rows without a group are there'
    assert style.to_png(figure, dpi=40)


def attended():
    """Returns a sample with one modality of each kind, and one that nobody can show."""
    tokens = {'image': 5, 'caption': 3, 'speech': 7, 'latents': 1}
    weights = {query: {key: np.full(n, 0.25 / n) for key, n in tokens.items()} for query in ('image', 'speech')}
    del weights['image']['latents']
    return attention.Attended(runs.sample(), weights)


def test_attention_is_shown_by_pair_and_on_each_modality():
    figure = reporting.attention_figure(attended())
    matrix, *places = figure.axes
    assert [label.get_text() for label in matrix.get_xticklabels()] == ['image', 'caption', 'speech', 'latents']
    assert [label.get_text() for label in matrix.get_yticklabels()] == ['image', 'speech']
    assert [text.get_text() for text in matrix.texts] == ['25%'] * 7, 'nobody drew what was not measured'
    assert [axes.get_title(loc='left') for axes in places] == ['image', 'caption', 'speech', 'latents']
    assert len(places[0].images) == 1, 'four tokens and one of the class are a grid'
    assert [text.get_text() for text in places[2].child_axes[1].texts] == ['7 tokens, first to last']
    assert style.to_png(figure, dpi=40)


def test_a_picture_is_bright_where_it_gets_attention():
    grid = attention.grid_of(np.array([0.9, 0.0, 1.0, 0.0, 0.0]))
    np.testing.assert_array_equal(grid, [[0.0, 1.0], [0.0, 0.0]])
    pixels = attention.darkened(np.full((8, 8), 200, np.uint8), grid)
    assert pixels.shape == (8, 8, 3)
    assert pixels[0, 7].min() == 200 > pixels[7, 0].max() == 40
    assert attention.grid_of(np.ones(7)) is attention.grid_of(np.ones(1)) is None


def test_both_are_in_the_report(tmp_path):
    shown = features.FeatureMap(np.eye(2), {'hue': ['a', 'b']})
    page = written(tmp_path, features=shown, attention=[attended()])
    assert 'who attends to whom' in page
    assert 'Fused features by t-SNE' in page
    assert 'Fused features by t-SNE' not in written(tmp_path)
