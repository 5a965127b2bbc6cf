"""Figures: what they show, that nothing overlaps, and that any run can be drawn."""

import io
import math

import numpy as np
import pytest
import sklearn.metrics
from PIL import Image

from mmtl_jax import reporting
from mmtl_jax.core.overlays import Values
from mmtl_jax.reporting import curves, pictures, style
from tests.reporting import runs


def texts(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_smoothing_is_the_weighted_mean_of_its_formula():
    values, span = np.array([3.0, 1.0, 4.0, 1.0, 5.0]), 4.0
    keep = 1 - 2 / (span + 1)
    expected = [
        sum(keep ** (t - i) * values[i] for i in range(t + 1)) / sum(keep ** (t - i) for i in range(t + 1))
        for t in range(5)
    ]
    np.testing.assert_allclose(curves.smooth(values, span), expected, rtol=1e-12)
    np.testing.assert_array_equal(curves.smooth(values, 0.1), values)


def test_series_leave_out_what_is_missing_or_not_finite():
    steps, values = curves.series(runs.history(10), 'train', 'category/loss')
    assert list(steps) == [1, 2, 3, 4, 5, 6, 8, 9, 10]
    assert np.all(np.isfinite(values))
    assert curves.series([], 'train', 'category/loss')[0].shape == (0,)


@pytest.mark.parametrize('places', [[0.5, 0.5, 0.5], [0.99, 1.0, 0.98], [0.0, 0.01, 0.9], [0.5] * 30, [0.3], []])
def test_labels_are_spread(places):
    moved = style.spread(places, 0.1)
    assert [moved[i] for i in np.argsort(places, kind='stable')] == sorted(moved)
    assert all(0 <= place <= 1 for place in moved)
    gap = min(0.1, 1 / max(len(places) - 1, 1))
    assert np.all(np.diff(sorted(moved)) >= gap - 1e-9)


@pytest.mark.parametrize(
    ('value', 'text'),
    [
        (0.61349, '0.613'), (0.0, '0'), (1.0, '1'), (-0.5, '-0.500'), (12.345, '12.35'), (123.45, '123.5'),
        (99999.7, '100,000'), (1234567, '1,234,567'), (0.0000123, '1.2e-05'), (math.nan, 'not finite'),
    ],
)  # fmt: skip
def test_numbers_are_readable(value, text):
    assert style.number(value) == text


@pytest.mark.parametrize(
    ('name', 'short'), [('a_b', 'a_b'), ('attribute_12', 'attr…e_12'), ('two\nlines', 'two lines')]
)
def test_a_name_keeps_its_ends(name, short):
    assert style.shorten(name, 9) == short


def test_losses_have_a_panel_per_task_and_the_best_step():
    figure = reporting.loss_curves(runs.history(), ['category', 'transcript', 'unknown'], best_step=40)
    assert [axes.get_title(loc='left') for axes in figure.axes] == ['category', 'transcript']
    assert 'best' in texts(figure)
    assert any(text.startswith('train 0.1') for text in texts(figure))
    raw, smoothed = figure.axes[0].lines[:2]
    assert raw.get_color() == smoothed.get_color() == style.hue(0)
    assert raw.get_alpha() < 0.5


def test_metrics_begin_with_the_primary_one():
    assert curves.metric_names(runs.history(), 'category', 'macro_f1') == ['macro_f1', 'accuracy']
    figure = reporting.metric_curves(runs.history(), ['category', 'transcript'], primaries=runs.PRIMARIES)
    titles = [(axes.get_title(loc='left'), axes.get_title(loc='right')) for axes in figure.axes]
    assert titles == [
        ('category · accuracy', 'higher is better'),
        ('category · macro f1', ''),
        ('transcript · cer', 'lower is better'),
    ]


def test_chance_is_a_line_in_the_panel_of_its_metric():
    rows = [{'step': step, 'split': 'validation', 't/r5': 0.5, 't/r5_chance': 0.1} for step in (1, 2)]
    (panel,) = curves.metric_panels(rows, ['t'], {'t': ('r5', True)})
    assert [(line.label, line.values[-1]) for line in panel.lines] == [('validation', 0.5), ('chance', 0.1)]
    assert any(text.startswith('chance 0.1') for text in texts(curves.panel_figure(panel)))


def test_only_the_primary_metrics_can_be_drawn():
    figure = reporting.metric_curves(runs.history(), ['category'], primaries=runs.PRIMARIES, only_primary=True)
    assert [axes.get_title(loc='left') for axes in figure.axes] == ['category · accuracy']


def test_weights_and_throughput_are_labelled_at_their_ends():
    assert {'category 1', 'transcript 5'} <= set(texts(reporting.weight_curves(runs.history(), list(runs.PRIMARIES))))
    assert reporting.throughput(runs.history()).axes[0].get_title(loc='left') == 'examples per second'
    assert reporting.value_curve(runs.history(), 'learning_rate').axes[0].get_title(loc='left') == 'learning rate'


def test_a_task_keeps_its_look_among_many():
    looks = [(style.hue(index), style.dashes(index)) for index in range(4 * style.NUM_HUES)]
    assert len(set(looks)) == len(looks)


@pytest.mark.parametrize(
    'rows', [runs.history(1), runs.history(0), [{**row, 'category/loss': 0.0} for row in runs.history(30)]]
)
def test_short_and_flat_runs_can_be_drawn(rows):
    assert style.to_png(reporting.loss_curves(rows, ['category'], best_step=40), dpi=40)


def test_confusion_matrices_count_like_scikit_learn():
    rng = np.random.default_rng(0)
    expected, predicted = rng.integers(0, 5, 200), rng.integers(0, 5, 200)
    counts = reporting.confusion_matrix(expected, predicted, 6)
    np.testing.assert_array_equal(counts, sklearn.metrics.confusion_matrix(expected, predicted, labels=range(6)))


def test_confusion_matrices_show_counts_and_plain_names():
    matrix = np.array([[3, 0], [1234, 6]])
    figure = reporting.confusion(matrix, ('co$t', 'a$b'), 'category')
    assert texts(figure) == ['3', '1,234', '6']
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ['co$t', 'a$b']
    opacity = figure.axes[0].collections[0].get_facecolors()[:, 3]
    np.testing.assert_allclose(opacity, 0.08 + 0.92 * np.array([1.0, 1234 / 1240, 6 / 1240]), rtol=1e-6)


def test_many_classes_are_drawn_without_numbers():
    figure = reporting.confusion(np.eye(130, dtype=int))
    assert texts(figure) == []
    assert len(figure.axes[0].get_xticklabels()) <= 60
    assert len(style.to_svg(figure, 'many')) < 200_000


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (lambda: reporting.confusion(np.zeros((2, 3))), 'square with at least one class, got the shape'),
        (lambda: reporting.confusion(np.eye(2), ('one',)), '2 classes and 1 class names'),
        (lambda: reporting.confusion_matrix(np.zeros(2), np.zeros(3), 2), '2 expected and 3 predicted'),
        (lambda: reporting.confusion_matrix(np.array([2]), np.array([0]), 2), r'in 0\.\.1, got 0\.\.2'),
        (lambda: reporting.spectrogram(np.zeros(9)), r'a waveform \[L\] with its rate'),
        (lambda: reporting.spectrogram(np.zeros((9, 2, 1))), r'got the shape \(9, 2, 1\)'),
        (lambda: pictures.as_floats(np.zeros((9, 2))), 'mix the channels'),
    ],
)
def test_wrong_arrays_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_tone_lies_at_its_frequency_and_silence_is_no_error():
    rate = 16000
    tone = np.sin(2 * np.pi * 2000 * np.arange(rate) / rate)
    grid = pictures.decibels(tone, rate)
    assert grid.max() == 0.0
    assert grid.min() >= -pictures.DECIBELS
    np.testing.assert_array_equal(grid.argmax(axis=1), round(2000 / (rate / 512)))
    assert np.all(np.isfinite(pictures.decibels(np.zeros(10), rate)))
    assert pictures.spectrogram_pixels(np.zeros((5, 4))).shape == (4, 5, 3)


def test_int16_and_floats_sound_alike():
    (coarse, _), (fine, _) = runs.sample().waveforms['speech'], runs.sample(dtype=np.float32).waveforms['speech']
    np.testing.assert_allclose(pictures.as_floats(coarse), pictures.as_floats(fine), atol=2 / 32768)  # one int16 step
    assert pictures.as_floats(np.array([np.nan, 3.0, -np.inf])).tolist() == [0.0, 1.0, -1.0]


def test_a_contact_sheet_marks_what_is_wrong():
    figure = reporting.contact_sheet([runs.sample(), reporting.Sample('bare')])
    assert '✗ category: τροφή' in texts(figure)
    assert 'expected: животные' in texts(figure)
    assert '✓ language: bg' in texts(figure)
    assert style.to_png(figure, dpi=40)


def test_a_script_that_the_font_lacks_is_no_warning():
    assert style.to_png(reporting.confusion(np.eye(2, dtype=int), ('企鹅', 'ไทย'), '企鹅'), dpi=40)


def test_figures_are_files(tmp_path):
    keys = ('primaries', 'history', 'summary', 'evaluations', 'samples')
    files = reporting.write_figures(tmp_path / 'figures', **{key: runs.run()[key] for key in keys})
    curve_names = ['losses', 'metrics', 'all_metrics', 'weights', 'throughput']
    names = [*curve_names, 'confusion_test_category', 'samples', 'spectrogram']
    assert [file.name for file in files] == [f'{name}.png' for name in names]
    for file in files:
        with Image.open(io.BytesIO(file.read_bytes())) as image:
            assert min(image.size) > 200
    depth = Values(np.eye(4))
    scene = reporting.Scene(np.zeros((4, 4), np.uint8), {'depth': (depth, depth)})
    (sheet,) = reporting.write_figures(
        tmp_path / 'scenes', primaries={}, history=[], summary={}, samples=[reporting.Sample('one', scene=scene)]
    )[1:]
    assert sheet.name == 'scenes.png'
    assert reporting.write_figures(tmp_path / 'none', primaries={}, history=[], summary={}) == []
