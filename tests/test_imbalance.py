"""A run with everything against imbalance at once: what it records, and that a resume is exact."""

import numpy as np

from mmtl_jax import train
from tests.verbs import edited, rows_of, train_tiny

EDIT = """label = {'key': 'kind', 'num_classes': 3}
    config.data.targets = {'kind': label, 'of_table': label, 'of_text': label, 'size': 'size'}
    config.data.sampling = {'by': 'kind', 'power': 0.5}
    head = {'name': 'classification', 'num_classes': 3}
    config.tasks.of_table, config.tasks.of_text = {**head, 'reads': 'table'}, {**head, 'reads': 'text'}
    groups = {'kind': 'kind', 'of_table': 'kind', 'of_text': 'kind', 'size': 'size'}
    config.balancing = {'name': 'gradient_blend', 'groups': groups, 'record_every': None, 'ogm_ge': {'until': 12}}
    config.optimizer = {'name': 'adam', 'learning_rate': 1e-2, 'schedule': 'constant'}
    config.training.log_every, config.training.eval_every = 4, 4"""


def test_a_run_against_imbalance_resumes_to_the_bit(tmp_path, monkeypatch):
    monkeypatch.setattr(train, 'write_results', lambda *_: None)
    config = edited(tmp_path, EDIT)
    assert train_tiny(tmp_path / 'whole', '--config.training.num_steps=16', config=config) == 0
    for steps in (8, 16):
        arguments = ('--config.training.num_steps=' + str(steps),)
        assert train_tiny(tmp_path / 'parts', *arguments, config=config) == 0
    rows = rows_of(tmp_path / 'whole')
    assert rows == rows_of(tmp_path / 'parts')
    lines = {row['step']: row for row in rows if row['split'] == 'train'}
    for modality in ('table', 'text'):
        assert 0 < lines[4][f'modalities/{modality}/coefficient'] <= 1
        assert lines[16][f'modalities/{modality}/coefficient'] == 1
    np.testing.assert_allclose(1.0, lines[16]['modalities/table/ratio'] * lines[16]['modalities/text/ratio'], rtol=0.5)
    blended = [[lines[step][f'{task}/weight'] for task in ('kind', 'of_table', 'of_text')] for step in (4, 8, 12, 16)]
    # Two evaluations, then the weights of the last two.
    assert blended[:2] == [[1.0] * 3] * 2
    assert blended[2] != [1.0] * 3
    np.testing.assert_allclose(np.sum(blended, axis=1), 3.0, rtol=1e-5)
    assert lines[16]['size/weight'] == 1.0, 'alone in its group'
