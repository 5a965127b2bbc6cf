"""The methods that need losses alone against the recorded values of the published implementations, in float64."""

import jax
import numpy as np
import pytest

from mmtl_jax import balancing
from mmtl_jax.balancing import Signals
from tests.balancing.golden import JACOBIANS, LOSSES, SEQUENCE, goldens


def preference(num_tasks):
    return np.linspace(0.2, 0.8, num_tasks)


def weights_of(balancer, losses):
    """Returns the weights of the first step."""
    with jax.enable_x64(True):
        active = np.ones(len(losses), bool)
        update = jax.jit(lambda losses, state: balancer.update(Signals(losses, active), state)[0])
        return np.asarray(update(losses, balancer.init(len(losses))))


def sequence_of(balancer, read=lambda state: ()):
    """Returns the weights, and what `read` takes of the state before each step, along the recorded sequence."""
    with jax.enable_x64(True):
        active = np.ones(3, bool)

        def step(state, losses):
            before, after = losses
            weights, new = balancer.update(Signals(before, active), state)
            if balancer.after is not None:
                new = balancer.after(after, active, new)
            return new, (weights, read(state))

        pairs = (SEQUENCE['losses'], SEQUENCE['post'])
        return jax.tree.map(np.asarray, jax.jit(lambda: jax.lax.scan(step, balancer.init(3), pairs)[1])())


ON_MATRICES = [
    ('gls', {}, 'torchjd17', 'GeometricMean', ''),
    ('gls', {}, 'libmtl', 'GLS', ''),
    ('uncertainty', {}, 'torchjd17', 'UW', 'log_var=0'),
    ('uncertainty', {'init_log_variance': -0.5}, 'libmtl', 'UW', 'loss_scale=-0.5'),
    ('imtl_l', {}, 'torchjd17', 'IMTLL', 'log_scale=0'),
    ('stch', {}, 'torchjd17', 'STCH', 'mu=1.0,w=1/T,ref=0'),
    ('stch', {'mu': 0.1, 'weights': preference, 'reference': 0.1}, 'torchjd17', 'STCH', 'mu=0.1,w=pref,ref=0.1'),
    ('cosmos', {'weights': preference}, 'torchjd17', 'COSMOS', 'lambda=2,w=pref'),
    ('pbi', {'weights': preference, 'reference': 0.1}, 'torchjd17', 'PBI', 'theta=5,w=pref,ref=0.1'),
    ('famo', {}, 'libmtl', 'FAMO', 'w=0'),
]


@pytest.mark.parametrize(('name', 'arguments', 'part', 'method', 'hyperparameters'), ON_MATRICES)
def test_weights_on_the_matrices(name, arguments, part, method, hyperparameters):
    # FAMO's losses have 1e-8 added there.
    rtol = 1e-7 if name == 'famo' else 1e-10
    compared = 0
    for golden in goldens(part, method, hyperparameters):
        if golden.target not in LOSSES:
            continue
        losses = LOSSES[golden.target]
        given = {key: value(len(losses)) if callable(value) else value for key, value in arguments.items()}
        balancer = getattr(balancing, name)(**given)
        weights = weights_of(balancer, losses)
        if 'weights' in golden.arrays:
            np.testing.assert_allclose(weights, golden.arrays['weights'], rtol=rtol)
        if 'head' in golden.arrays:
            np.testing.assert_allclose(weights, golden.arrays['head'], rtol=rtol)
            assert balancer.heads == 'weighted'
        jacobian = JACOBIANS[golden.target]
        atol = rtol * np.linalg.norm(jacobian)
        np.testing.assert_allclose(weights @ jacobian, golden.arrays['agg'], rtol=0, atol=atol)
        compared += 1
    assert compared == 10


SGD = {'learning_rate': 0.1, 'optimizer': 'sgd'}
ON_SEQUENCE = [
    ('dwa', {'window': 1}, 'torchjd17', 'DWA', 'temperature=2.0', None),
    ('dwa', {'window': 1}, 'libmtl', 'DWA', 'T=2.0,1 batch/epoch', None),
    ('uncertainty', SGD, 'torchjd17', 'UW', 'log_var0=0,SGD lr=0.1', 'log_variance'),
    ('uncertainty', {**SGD, 'init_log_variance': -0.5}, 'libmtl', 'UW', 'SGD lr=0.1', 'log_variance'),
    ('imtl_l', SGD, 'torchjd17', 'IMTLL', 'log_scale0=0,SGD lr=0.1', 'log_scale'),
    ('famo', {}, 'torchjd17', 'FAMO', 'lr=0.025,weight_decay=1e-3', None),
    ('famo', {}, 'libmtl', 'FAMO', 'w_lr=0.025,w_gamma=1e-3 (defaults)', 'logits'),
    ('famo', {}, 'famo', 'famo', 'gamma=1e-3,max_norm=0', 'logits'),
    ('famo', {'weight_decay': 0.01}, 'famo', 'famo', 'gamma=0.01,max_norm=0', 'logits'),
    *(
        (
            'stch',
            {'mu': mu, 'warmup_steps': 4, 'nadir_steps': 2},
            'libmtl',
            'STCH',
            f'mu={mu},warmup_epoch=2,2 batches/epoch',
            None,
        )
        for mu in (1.0, 0.1)
    ),
    ('gls', {}, 'libmtl', 'GLS', '', None),
]


@pytest.mark.parametrize(('name', 'arguments', 'part', 'method', 'hyperparameters', 'learned'), ON_SEQUENCE)
def test_twenty_steps(name, arguments, part, method, hyperparameters, learned):
    # FAMO's losses have 1e-8 added there.
    rtol = 1e-7 if name == 'famo' else 1e-10
    read = (lambda state: getattr(state, learned)) if learned else (lambda state: ())
    weights, values = sequence_of(getattr(balancing, name)(**arguments), read)
    (golden,) = goldens(part, method, hyperparameters, 's3')
    for array in {'weights', 'head'} & set(golden.arrays):
        np.testing.assert_allclose(weights, golden.arrays[array], rtol=rtol)
    directions = np.einsum('kt,ktd->kd', weights, SEQUENCE['J'])
    np.testing.assert_allclose(directions, golden.arrays['agg'], rtol=0, atol=rtol * np.max(np.abs(directions)))
    for array in {'param', 'logits'} & set(golden.arrays):
        np.testing.assert_allclose(values, golden.arrays[array], rtol=0, atol=rtol)
    if learned:
        assert np.ptp(values[-1]) > 0.01
