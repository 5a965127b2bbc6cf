"""Curves over the level of a corruption: which tasks have one, and what is said of it."""

import math

import pytest

from mmtl_jax import robustness, tasks
from mmtl_jax.core import files
from mmtl_jax.reporting import primary_curves
from mmtl_jax.reporting.sections import robustness_section
from mmtl_jax.tasks import primaries_of

TASKS = (
    tasks.classification('kind', num_classes=2),
    tasks.regression('size', reads='text'),
    tasks.classification('odd', num_classes=2),
)
CURVES = [
    {'kind/accuracy': 0.8, 'size/mae': 1.0, 'odd/accuracy': 0.5, 'kind/loss': 0.2},
    {'kind/accuracy': 0.6, 'size/mae': 3.0, 'kind/loss': 0.4},
]


def test_a_task_has_a_curve_where_it_reads_the_modality_and_is_defined():
    entry = robustness.corruption_entry(TASKS, 'image', 'image_noise', [0.0, 1.0], CURVES)
    assert entry['robustness'] == {'kind/accuracy': {'relative': pytest.approx(0.7)}}
    assert entry['values']['kind/loss'] == [0.2, 0.4], 'every value is kept'
    assert math.isnan(entry['values']['odd/accuracy'][1])
    assert list(robustness.corruption_entry(TASKS, 'text', 'text_swap', [0.0, 1.0], CURVES)['robustness']) == [
        'kind/accuracy', 'size/mae',
    ]  # fmt: skip


def test_effective_robustness_is_above_zero_for_the_better_in_both_directions():
    baseline = {'values': {'kind/accuracy': [0.9, 0.5], 'size/mae': [1.0, 5.0]}}
    found = robustness.corruption_entry(TASKS, 'text', 'text_swap', [0.0, 1.0], CURVES, baseline)['robustness']
    # The baseline loses .4 where the run loses .2; its error grows by 4 where that of the run grows by 2.
    assert found['kind/accuracy']['effective'] == pytest.approx(0.1)
    assert found['size/mae']['effective'] == pytest.approx(1.0)


def test_a_baseline_without_the_value_leaves_effective_out():
    baseline = {'values': {'kind/accuracy': [0.9, None]}}
    entry = robustness.corruption_entry(TASKS, 'image', 'image_noise', [0.0, 1.0], CURVES, baseline)
    assert set(entry['robustness']['kind/accuracy']) == {'relative'}
    (_, line) = robustness.robustness_lines({'image:noise': entry})
    assert line == ['image:noise kind/accuracy', '0.8000', '0.6000', '0.7000', '-']


def test_the_curve_of_the_baseline_is_kept_and_drawn(tmp_path):
    baseline = {'values': {'kind/accuracy': [0.9, 0.5]}}
    entry = robustness.corruption_entry(TASKS, 'image', 'image_noise', [0.0, 1.0], CURVES, baseline)
    assert primary_curves({'image:noise': entry}, baseline=True) == {'kind': {'image:noise': ([0.0, 1.0], [0.9, 0.5])}}
    (kept, _) = robustness.write_robustness(tmp_path, 'test', 3, TASKS, {'image:noise': entry})
    saved = files.read_json(kept)
    alone = robustness_section({'test': saved}, primaries_of(TASKS))
    saved['corruptions']['image:noise']['robustness']['kind/accuracy'].pop('baseline')
    assert ''.join(map(str, alone)) != ''.join(map(str, robustness_section({'test': saved}, primaries_of(TASKS))))


def test_levels_are_sorted_and_clean_is_among_them():
    assert robustness.chosen_levels(['1', '0.5', '0.50']) == [0.0, 0.5, 1.0]


def test_corruptions_are_named_once():
    chosen = robustness.chosen_corruptions('image:noise, text:text_swap,image:noise', ('image', 'text'))
    assert chosen == [('image', 'noise'), ('text', 'text_swap')]
