"""What the tasks' gradients are to one another: the figures, and that their values show up nowhere else."""

import itertools
import math

import numpy as np
import pytest

from mmtl_jax import reporting
from mmtl_jax.reporting import curves, gradients, style
from tests.reporting import runs
from tests.reporting.test_figures import texts
from tests.reporting.test_report import Page, written

TASKS = list(runs.PRIMARIES)
MEASURED = runs.with_gradients(runs.history(), TASKS)


def rows_of(*cosines, pair='a/b'):
    """Returns a row of training per cosine; None stands for a row without it."""
    return [
        {'step': step, 'split': 'train', 'seconds': 1.0, **({} if c is None else {f'gradients/cosine/{pair}': c})}
        for step, c in enumerate(cosines, 1)
    ]


def colours(figure):
    """Returns the colours `[n, 4]` of the heat map's cells, row after row."""
    return figure.axes[0].collections[0].get_facecolors()


def test_cosines_are_averaged_over_the_rows_that_have_them():
    rows = [*rows_of(0.5, -0.25, None, math.nan), *rows_of(-1.0, pair='b/c')]
    rows.append({'step': 9, 'split': 'validation', 'seconds': 1.0, 'gradients/cosine/a/b': 1.0})
    mean, share = gradients.cosines(rows, ['a', 'b', 'c'])
    nan = math.nan
    np.testing.assert_array_equal(mean, [[nan, 0.125, nan], [0.125, nan, -1.0], [nan, -1.0, nan]])
    np.testing.assert_array_equal(share, [[nan, 0.5, nan], [0.5, nan, 1.0], [nan, 1.0, nan]])


@pytest.mark.parametrize('rows', [[], rows_of(0.5)], ids=['no rows', 'another pair'])
@pytest.mark.parametrize('tasks', [['a'], ['x', 'y']])
def test_what_was_not_measured_has_no_cosine(rows, tasks):
    for matrix in gradients.cosines(rows, tasks):
        assert matrix.shape == (len(tasks), len(tasks))
        assert np.all(np.isnan(matrix))
    assert style.to_png(reporting.conflict_heat_map(rows, tasks), dpi=40)


def test_the_heat_map_has_means_below_and_shares_above_the_diagonal():
    rows = [*rows_of(0.2, -0.1, 0.2), *rows_of(-0.25, pair='a/c')]
    figure = reporting.conflict_heat_map(rows, ['a', 'b', 'c'])
    cells = {text.get_position(): text.get_text() for text in figure.axes[0].texts}
    # Keys are (column, row); the pair of b and c was never measured.
    assert cells == {(1, 0): '33%', (0, 1): '0.10', (2, 0): '100%', (0, 2): '-0.25'}
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ['a', 'b', 'c']
    key = figure.axes[0].child_axes[0]
    assert [text.get_text() for text in key.texts] == ['cosine · negative', '0.3 · 0%', '0 · 50%', '-0.3 · 100%']


def test_zero_is_in_the_middle_of_the_colours():
    rows = [*rows_of(0.3, -0.3), *rows_of(0.3, pair='a/c'), *rows_of(-0.15, pair='b/c')]
    found = colours(reporting.conflict_heat_map(rows, ['a', 'b', 'c']))
    blue, red = style.LIGHT['hue-0'], style.LIGHT['hue-4']
    # The cells: ab and ac above; ba below, bc above; ca and cb below.
    opacities = [0.0, 1.0, 0.0, 1.0, 1.0, 0.5]
    np.testing.assert_allclose(found[:, 3], opacities, atol=1e-12)
    hues = [blue, blue, blue, red, blue, red]
    for cell, opacity, hue in zip(found, opacities, hues, strict=True):
        if opacity:
            np.testing.assert_allclose(cell[:3], [int(hue[i : i + 2], 16) / 255 for i in (1, 3, 5)])


@pytest.mark.parametrize(
    ('cosine', 'text', 'top'),
    [
        (0.031, '0.031', '0.05'), (-0.0004, '0.000', '0.05'), (-0.001, '-0.001', '0.05'),
        (0.6, '0.60', '0.7'), (-1.0, '-1.00', '1'),
    ],
)  # fmt: skip
def test_the_scale_fits_small_cosines(cosine, text, top):
    figure = reporting.conflict_heat_map(rows_of(cosine), ['a', 'b'])
    assert text in texts(figure)
    assert f'{top} · 0%' in [text.get_text() for text in figure.axes[0].child_axes[0].texts]


def test_many_tasks_are_drawn_without_numbers():
    tasks = [f'attribute_number_{index}' for index in range(40)]
    figure = reporting.conflict_heat_map(runs.with_gradients(runs.history(20), tasks), tasks)
    assert texts(figure) == []
    assert len(colours(figure)) == 40 * 39
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert len(set(labels)) == 40
    assert len(style.to_svg(figure, 'many')) < 600_000


def test_norms_are_one_panel_with_a_line_per_task():
    figure = reporting.gradient_norm_curves(MEASURED, TASKS)
    assert {'category 1', 'transcript 10'} <= set(texts(figure))
    assert figure.axes[0].get_yscale() == 'linear'
    tasks = ['a', 'b', 'c']
    figure = reporting.gradient_norm_curves(runs.with_gradients(runs.history(20), tasks), tasks)
    assert figure.axes[0].get_yscale() == 'log', 'from 1 to 100'


def test_every_of_many_lines_has_a_name_of_its_own():
    tasks = [f'attribute_number_{index}' for index in range(20)]
    rows = [{**row, **{f'{task}/gradient_norm': 1.0 for task in tasks}} for row in runs.history(10)]
    figure = reporting.gradient_norm_curves(rows, tasks)
    axes = figure.axes[0]
    figure.draw_without_rendering()
    assert len(set(texts(figure))) == 20
    boxes = sorted((text.get_window_extent() for text in axes.texts), key=lambda box: box.y0)
    assert all(low.y1 <= high.y1 - 0.7 * low.height for low, high in itertools.pairwise(boxes))
    samples = [line for line in axes.lines if line.get_transform() == axes.transAxes]
    looks = {(line.get_color(), line.get_linestyle()) for line in samples}
    assert len(looks) == 20


def test_the_share_of_conflicts_over_the_steps():
    figure = reporting.conflict_curve(MEASURED)
    assert figure.axes[0].get_title(loc='left') == 'share of conflicting pairs'
    assert list(figure.axes[0].lines[0].get_ydata()) == [0.0, 1.0] * 6
    assert 'all pairs 1' in texts(figure)


def test_the_gradients_are_no_metrics_and_no_panels_of_the_run():
    for task in TASKS:
        assert curves.metric_names(MEASURED, task) == curves.metric_names(runs.history(), task)
    titles = [panel.title for panel in curves.run_panels(MEASURED, TASKS)]
    assert titles == [panel.title for panel in curves.run_panels(runs.history(), TASKS)]
    assert len(curves.metric_panels(MEASURED, TASKS, runs.PRIMARIES)) == 3


def test_figures_are_files_where_something_was_recorded(tmp_path):
    def names(rows, tasks=TASKS):
        return [name for name, _ in gradients.balancing_figures(rows, tasks)]

    assert names([]) == []
    assert names(runs.history(5)) == ['weights']
    assert names(MEASURED) == ['weights', 'gradient_norms', 'conflicts', 'conflicts_over_time']
    assert names(runs.with_gradients([{'step': 5, 'split': 'train'}], ['a'])[:1], ['a']) == [
        'gradient_norms',
        'conflicts_over_time',
    ]
    files = reporting.write_figures(tmp_path, primaries=runs.PRIMARIES, history=MEASURED, summary={})
    written_names = {file.name for file in files}
    assert {'gradient_norms.png', 'conflicts.png', 'conflicts_over_time.png'} <= written_names


def test_the_report_shows_them_under_balancing(tmp_path):
    page = Page(written(tmp_path, history=MEASURED, samples=[], evaluations={}))
    words = ' '.join(page.texts)
    parts = ('Balancing', 'task weights', 'gradient norms', 'gradient conflicts', 'share of conflicting pairs')
    places = [words.index(part) for part in parts]
    assert places == sorted(places)
    assert '50%' in page.texts
    for part in ('Further metrics (1)', 'The run (3)'):
        assert part in words
    assert 'cosine/' not in words
    assert 'gradient_norm' not in words
    ids = [attributes['id'] for _, attributes in page.tags if 'id' in attributes]
    assert len(ids) == len(set(ids))
