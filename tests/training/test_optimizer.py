"""The optimizer is optax's own; what is added to it does what it says."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmtl_jax.training.optimizer import make_optimizer, make_schedule

PARAMS = {
    'encoders': {'text': {'kernel': jnp.ones(2), 'bias': jnp.ones(2)}},
    'heads': {'kind': {'kernel': jnp.ones(2)}},
}


def test_schedules_are_optaxs_own():
    mine = make_schedule(0.1, num_steps=100, schedule='cosine', warmup=0.1)
    theirs = optax.warmup_cosine_decay_schedule(0.0, 0.1, 10, 100)
    steps = np.arange(100)
    np.testing.assert_allclose([mine(s) for s in steps], [theirs(s) for s in steps], atol=1e-8)
    spec = {'name': 'exponential_decay', 'init_value': 1.0, 'transition_steps': 10, 'decay_rate': 0.5}
    assert make_schedule(0.1, num_steps=100, schedule=spec)(10) == pytest.approx(0.5)


@pytest.mark.parametrize(('schedule', 'rates'), [('linear', [0.0, 0.1, 0.05, 0.0]), ('constant', [0.0, 0.1, 0.1, 0.1])])
def test_shapes_after_the_warmup(schedule, rates):
    found = make_schedule(0.1, num_steps=100, schedule=schedule, warmup=0.2)
    np.testing.assert_allclose([found(step) for step in (0, 20, 60, 100)], rates, atol=1e-8)


def test_adam_is_optaxs_own():
    gradients = {'encoders': {'text': {'kernel': jnp.array([1.0, -2.0]), 'bias': jnp.array([0.5, 3.0])}},
                 'heads': {'kind': {'kernel': jnp.array([0.1, 0.2])}}}  # fmt: skip
    mine, theirs = make_optimizer('adam', optax.constant_schedule(0.1)), optax.adam(0.1)
    a, _ = mine.update(gradients, mine.init(PARAMS), PARAMS)
    b, _ = theirs.update(gradients, theirs.init(PARAMS), PARAMS)
    np.testing.assert_array_equal(a['encoders']['text']['kernel'], b['encoders']['text']['kernel'])


def zero_gradient_update(**options):
    optimizer = make_optimizer('adamw', optax.constant_schedule(0.1), weight_decay=0.5, **options)
    zeros = {
        'encoders': {'text': {'kernel': jnp.zeros(2), 'bias': jnp.zeros(2)}},
        'heads': {'kind': {'kernel': jnp.zeros(2)}},
    }
    return optimizer.update(zeros, optimizer.init(PARAMS), PARAMS)[0]


def test_decay_spares_biases():
    update = zero_gradient_update()
    np.testing.assert_allclose(update['encoders']['text']['kernel'], -0.05)
    np.testing.assert_array_equal(update['encoders']['text']['bias'], 0.0)


def test_what_decay_spares_may_be_chosen():
    update = zero_gradient_update(decay_exclude='^heads/')
    np.testing.assert_allclose(update['encoders']['text']['bias'], -0.05)
    np.testing.assert_array_equal(update['heads']['kind']['kernel'], 0.0)


def test_the_first_rate_that_matches_counts():
    update = zero_gradient_update(rate_by_path={'encoders/text/kernel': 0.1, 'encoders': 10.0})
    np.testing.assert_allclose(update['encoders']['text']['kernel'], -0.005)


def test_rates_by_path():
    update = zero_gradient_update(rate_by_path={'encoders/text': 0.1})
    np.testing.assert_allclose(update['encoders']['text']['kernel'], -0.005)
    np.testing.assert_allclose(update['heads']['kind']['kernel'], -0.05)


def rates_over_steps(steps, **options):
    """Returns the learning rates of the encoder's kernel and of the head's, step by step."""
    optimizer = make_optimizer('sgd', optax.constant_schedule(1.0), **options)
    state, gradients, found = optimizer.init(PARAMS), jax.tree.map(jnp.ones_like, PARAMS), []
    for _ in range(steps):
        updates, state = optimizer.update(gradients, state, PARAMS)
        found.append([-float(updates['encoders']['text']['kernel'][0]), -float(updates['heads']['kind']['kernel'][0])])
    return found


def test_a_rate_may_be_a_schedule_whose_steps_json_made_text():
    spec = {'name': 'piecewise_constant_schedule', 'init_value': 1.0, 'boundaries_and_scales': {2: 0.5, 3: 0.5}}
    rates = {'encoders/text': spec, 'heads': 0.1}
    found = rates_over_steps(5, rate_by_path=json.loads(json.dumps(rates)))
    np.testing.assert_allclose(found, [[1, 0.1], [1, 0.1], [0.5, 0.1], [0.25, 0.1], [0.25, 0.1]])


def test_rates_multiply():
    rising = {'name': 'linear_schedule', 'init_value': 0.0, 'end_value': 1.0, 'transition_steps': 4}
    found = rates_over_steps(4, rate_by_path={'encoders': rising, 'heads': 0.5}, unfreeze={'encoders': 2, 'heads': 1})
    np.testing.assert_allclose(found, [[0, 0], [0, 0.5], [0.5, 0.5], [0.75, 0.5]])


def test_of_several_steps_the_first_that_matches_counts():
    found = rates_over_steps(3, unfreeze={'encoders/text/kernel': 1, 'encoders': 2})
    np.testing.assert_allclose(found, [[0, 1], [1, 1], [1, 1]])


def test_a_factor_of_0_stops_what_is_not_finite():
    optimizer = make_optimizer('sgd', optax.constant_schedule(1.0), unfreeze={'encoders': 1})
    gradients = jax.tree.map(lambda leaf: leaf * jnp.inf, PARAMS)
    updates, _ = optimizer.update(gradients, optimizer.init(PARAMS), PARAMS)
    np.testing.assert_array_equal(updates['encoders']['text']['kernel'], 0.0)


def test_clipping():
    optimizer = make_optimizer('sgd', optax.constant_schedule(1.0), clip_norm=1.0)
    update, _ = optimizer.update({'a': jnp.array([3.0, 4.0])}, optimizer.init({'a': jnp.zeros(2)}))
    np.testing.assert_allclose(update['a'], [-0.6, -0.8], rtol=1e-6)


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (lambda: make_optimizer('adamm', optax.constant_schedule(1.0)), "no optimizer 'adamm'"),
        (lambda: make_optimizer('adam', optax.constant_schedule(1.0), betas=0.9), "adam has no argument 'betas'"),
        (lambda: make_schedule(0.1, num_steps=5, schedule='cosin'), "no schedule 'cosin'"),
        (lambda: make_schedule(0.1, num_steps=5, warmup=1.5), 'share of the run'),
        (
            lambda: zero_gradient_update(rate_by_path={'encoders/txt': 1.0}),
            "rate_by_path 'encoders/txt' matches no",
        ),
        (lambda: zero_gradient_update(unfreeze={'encoders/txt': 1}), "unfreeze 'encoders/txt' matches no parameter"),
        (
            lambda: zero_gradient_update(unfreeze={'encoders': 0.5}),
            "unfreeze gives 'encoders' the step 0.5",
        ),
        (lambda: zero_gradient_update(rate_by_path={'heads': {'name': 'cosin'}}), "no schedule 'cosin' in optax"),
        (
            lambda: zero_gradient_update(
                rate_by_path={
                    'heads': {
                        'name': 'piecewise_constant_schedule',
                        'init_value': 1.0,
                        'boundaries_and_scales': {'soon': 0.5},
                    }
                }
            ),
            "'boundaries_and_scales' of a schedule is by steps, got \\['soon'\\]",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
