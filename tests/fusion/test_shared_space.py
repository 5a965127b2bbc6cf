"""Fusions that learn a space by themselves: their objectives against plain numpy, scikit-learn, and the literature."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.cross_decomposition import CCA

from mmtl_jax.core.types import Features
from mmtl_jax.fusion import matrix_factorization
from mmtl_jax.fusion.autoencoder import Autoencoder, all_or_one
from mmtl_jax.fusion.deep_belief_network import RBM
from mmtl_jax.fusion.deep_cca import DeepCCA, mean_correlation
from mmtl_jax.fusion.factorized import Factorized, gaussian_mmd
from mmtl_jax.fusion.matrix_factorization import MatrixFactorization, least_squares
from mmtl_jax.fusion.variational import Variational, kl_divergence, product_of_gaussians
from tests import quick
from tests.nn.plain import dense, gelu, sigmoid

# float32 against double precision.
CLOSE = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
SIZES = {'image': 5, 'text': 4}
# Row 0 has both, rows 1 and 2 one each, row 3 none.
PRESENT = np.array([[1, 1], [1, 0], [0, 1], [0, 0]], bool)


def features() -> dict[str, Features]:
    """Returns one token per modality and row."""
    random = np.random.default_rng(0)
    return {
        modality: Features(random.normal(size=(4, 1, size)).astype(np.float32), PRESENT[:, index, None])
        for index, (modality, size) in enumerate(SIZES.items())
    }


def standardised() -> list[np.ndarray]:
    """Returns the x_m of `features`, in double precision."""
    tokens = [part.tokens[:, 0].astype(np.float64) for part in features().values()]
    return [(x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-6) for x in tokens]


def evaluated(module) -> tuple[dict, np.ndarray, dict[str, np.ndarray]]:
    """Returns drawn parameters, the tokens and the objectives in evaluation."""
    variables = quick.parameters(module, features(), train=False)
    fused = quick.jit(lambda: module.apply(variables, features(), train=False))()
    return variables['params'], np.asarray(fused.tokens[:, 0]), jax.tree.map(np.asarray, fused.objectives)


def test_the_product_of_gaussian_experts():
    random = np.random.default_rng(0)
    means, log_variances = random.normal(size=(2, 4, 2, 3))
    mean, variance = quick.jit(product_of_gaussians)(means, log_variances, PRESENT)
    for row in range(4):
        # The log of the product is a quadratic, of which these are curvature and peak.
        precision, natural = np.ones(3), np.zeros(3)
        for modality in np.flatnonzero(PRESENT[row]):
            precision += np.exp(-log_variances[row, modality])
            natural += means[row, modality] / np.exp(log_variances[row, modality])
        CLOSE(mean[row], natural / precision)
        CLOSE(variance[row], 1 / precision)
    CLOSE(kl_divergence(mean, variance)[3], 0)
    # Of full covariance matrices: (tr S + |m|^2 - D - log det S) / 2.
    m, s = np.asarray(mean[0], np.float64), np.diag(np.asarray(variance[0], np.float64))
    CLOSE(kl_divergence(mean, variance)[0], 0.5 * (np.trace(s) + m @ m - 3 - np.linalg.slogdet(s)[1]))


def decoded(p, code):
    return dense(p['Dense_1'], gelu(dense(p['Dense_0'], code)))


def test_the_evidence_lower_bounds_of_all_modalities_and_of_each():
    parameters, tokens, objectives = evaluated(Variational(width=3, pooling='mean', kl_weight=0.5))
    x = standardised()
    experts = [decoded(parameters[f'encode_{m}'], x[i]) for i, m in enumerate(SIZES)]
    for row in range(4):
        reconstruction, kl = 0.0, 0.0
        here = [int(m) for m in np.flatnonzero(PRESENT[row])]
        for subset in [here, *([m] for m in here)]:
            precision = 1 + sum((np.exp(-experts[m][row, 3:]) for m in subset), np.zeros(3))
            mean = sum((np.exp(-experts[m][row, 3:]) * experts[m][row, :3] for m in subset), np.zeros(3)) / precision
            kl += 0.5 * np.sum(1 / precision + mean**2 - 1 + np.log(precision))
            for m in subset:
                output = decoded(parameters[f'decode_{list(SIZES)[m]}'], mean)
                reconstruction += 0.5 * np.sum((output - x[m][row]) ** 2)
            if subset == here:
                CLOSE(tokens[row], mean if here else np.zeros(3))
        CLOSE(objectives['reconstruction'][row], reconstruction / 9)
        CLOSE(objectives['kl'][row], kl / 9)
        CLOSE(objectives['elbo'][row], (reconstruction + 0.5 * kl) / 9)


def test_a_variational_code_is_a_sample_in_training():
    module = Variational(width=3)
    variables = quick.parameters(module, features(), train=False)
    # Certain experts: the variance of the sample is next to nothing, so that it is the mean.
    narrow = jax.tree.map(jnp.copy, variables)
    for modality in SIZES:
        narrow['params'][f'encode_{modality}']['Dense_1']['bias'] = np.array([0, 0, 0, 20, 20, 20], np.float32) * -1
    train = quick.jit(lambda v, key: module.apply(v, features(), train=True, rngs={'dropout': key}).tokens)
    one, other = (train(variables, jax.random.key(seed)) for seed in (0, 1))
    assert np.abs(one - other)[:3].min(axis=(1, 2)).max() > 1e-3
    assert not np.any(one[3])
    # Standard deviations of exp(-10).
    np.testing.assert_allclose(*(train(narrow, jax.random.key(seed)) for seed in (0, 1)), atol=1e-3)


def correlated(rows: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    common = random.normal(size=(rows, 2))
    one = np.concatenate([common, random.normal(size=(rows, 1))], axis=1) @ random.normal(size=(3, 3))
    other = np.concatenate([common + random.normal(size=(rows, 2)), random.normal(size=(rows, 1))], axis=1)
    return one.astype(np.float32), other.astype(np.float32)


correlation = quick.jit(
    jax.value_and_grad(lambda one, other, mask, r: mean_correlation(one, other, mask, r)), static_argnames='r'
)


def in_numpy(one, other, r):
    """Returns the mean correlation and its gradient by `one` (Andrew et al. 2013, equations 9 to 13)."""
    one, other = (view.astype(np.float64) - view.mean(axis=0) for view in (one, other))
    n, k = one.shape

    def power(matrix, exponent):
        values, vectors = np.linalg.eigh(matrix)
        return vectors @ np.diag(values**exponent) @ vectors.T

    of_one, of_other = (power(v.T @ v / (n - 1) + r * np.eye(k), -0.5) for v in (one, other))
    u, d, vt = np.linalg.svd(of_one @ (one.T @ other / (n - 1)) @ of_other)
    across, within = of_one @ u @ vt @ of_other, -0.5 * of_one @ u @ np.diag(d) @ u.T @ of_one
    return d.sum() / k, (2 * one @ within + other @ across.T) / (n - 1) / k


def test_canonical_correlations_and_their_gradient():
    one, other = correlated()
    mask = np.ones(len(one), bool)
    value, gradient = correlation(one, other, mask, 1e-3)
    expected, by_one = in_numpy(one, other, 1e-3)
    CLOSE(value, expected)
    CLOSE(gradient, by_one)
    # Rows that lack one of the two are as if they were not there.
    mask[::3] = False
    spoilt = np.where(mask[:, None], one, np.nan)
    value, gradient = correlation(spoilt, other, mask, 1e-3)
    CLOSE(value, in_numpy(one[mask], other[mask], 1e-3)[0])
    assert np.isfinite(gradient).all()
    assert not np.any(gradient[~mask])


def test_the_correlations_are_those_of_scikit_learn():
    one, other = correlated()
    transformed = CCA(n_components=3, max_iter=10_000, tol=1e-10).fit_transform(one, other)
    expected = np.mean([np.corrcoef(*(view[:, i] for view in transformed))[0, 1] for i in range(3)])
    value, _ = correlation(one, other, np.ones(len(one), bool), 1e-6)
    # Its power iterations end at a tolerance of their own.
    assert value == pytest.approx(expected, rel=1e-3)


def test_equal_and_zero_correlations_have_finite_gradients():
    one, _ = correlated()
    for other, expected in ((one, 1.0), (np.zeros_like(one), 0.0)):
        value, gradient = correlation(one, other, np.ones(len(one), bool), 1e-6)
        # The regularisation takes a little from the correlation of what varies little.
        assert value == pytest.approx(expected, abs=1e-2)
        assert np.isfinite(gradient).all()
    value, gradient = correlation(one, one, np.arange(len(one)) < 1, 1e-3)
    assert value == 0
    assert not np.any(gradient)


def test_pairs_without_two_rows_in_common_do_not_count():
    _, _, objectives = evaluated(DeepCCA(width=3, components=2))
    np.testing.assert_array_equal(objectives['cca'], np.zeros(4))  # Only row 0 has both.


@pytest.mark.parametrize('most_subsets', [matrix_factorization.MOST_SUBSETS, 1], ids=['by subset', 'by row'])
def test_the_rows_of_a_factorisation_are_those_of_least_squares(most_subsets, monkeypatch):
    monkeypatch.setattr(matrix_factorization, 'MOST_SUBSETS', most_subsets)
    random = np.random.default_rng(0)
    targets = [random.normal(size=(4, size)).astype(np.float32) for size in SIZES.values()]
    matrices = [random.normal(size=(3, size)).astype(np.float32) for size in SIZES.values()]
    codes = quick.jit(functools.partial(least_squares, ridge=0.3))(targets, matrices, PRESENT)
    for row in range(4):
        here = np.flatnonzero(PRESENT[row])
        # Ridge regression as least squares: sqrt(ridge) I below the design, zeros below the target.
        design = np.concatenate([*(matrices[m].T for m in here), np.sqrt(0.3) * np.eye(3)])
        target = np.concatenate([*(targets[m][row] for m in here), np.zeros(3)])
        CLOSE(codes[row], np.linalg.lstsq(design, target, rcond=None)[0])


def test_the_objective_of_a_factorisation_is_its_minimum_by_the_number_of_entries():
    parameters, tokens, objectives = evaluated(MatrixFactorization(width=3, pooling='mean', ridge=0.3))
    for row, entries in enumerate([9, 5, 4]):
        total = 0.3 * np.sum(tokens[row] ** 2)
        for m in np.flatnonzero(PRESENT[row]):
            total += np.sum((standardised()[m][row] - tokens[row] @ parameters[f'matrix_{list(SIZES)[m]}']) ** 2)
        CLOSE(objectives['reconstruction'][row], total / entries)
    assert objectives['reconstruction'][3] == 0
    with pytest.raises(ValueError, match=r'MatrixFactorization: ridge must be above 0, got 0'):
        evaluated(MatrixFactorization(width=3, ridge=0))


@pytest.mark.parametrize('gaussian', [False, True])
def test_one_step_of_contrastive_divergence(gaussian):
    machine = RBM(width=3, num_steps=1, gaussian=gaussian)
    random = np.random.default_rng(0)
    mask = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]], bool)
    data = (random.normal(size=(3, 4)) if gaussian else random.random((3, 4))).astype(np.float32)
    p = {
        'weights': random.normal(size=(4, 3)).astype(np.float32),
        'visible_bias': random.normal(size=4).astype(np.float32),
        'hidden_bias': random.normal(size=3).astype(np.float32),
    }

    @functools.partial(quick.jit, static_argnames='train')
    def step(params, train):
        def total(params):
            apply = functools.partial(machine.apply, {'params': params}, data, mask, train=train)
            hidden, losses = apply(rngs={'dropout': jax.random.key(0)})
            return jnp.sum(losses), (hidden, losses)

        return jax.grad(total, has_aux=True)(params)

    def activate(drive):
        return drive if gaussian else sigmoid(drive)

    w, b, c = (p[name].astype(np.float64) for name in ('weights', 'visible_bias', 'hidden_bias'))
    counts = np.array([4, 2, 1])[:, None]
    v0 = np.where(mask, data, 0)
    h0 = sigmoid(c + v0 @ w)
    vk = np.where(mask, activate(b + h0 @ w.T), 0)
    for train in (False, True):
        gradient, (hidden, losses) = step(p, train)
        if train:
            # Samples of hidden units are 0 or 1: of the 8 states, each row's v_k belongs to one.
            states = np.array(np.meshgrid(*[[0, 1]] * 3)).reshape(3, -1).T
            options = [np.where(mask[:, None], activate(b + states @ w.T)[None], 0)[row] for row in range(3)]
            errors = [np.sum((v0[row] - options[row]) ** 2, axis=1) / counts[row] for row in range(3)]
            chosen = [int(np.argmin(np.abs(errors[row] - losses[row]))) for row in range(3)]
            vk = np.stack([options[row][chosen[row]] for row in range(3)])
        hk = sigmoid(c + vk @ w)
        CLOSE(hidden, h0)
        CLOSE(losses, np.sum((v0 - vk) ** 2, axis=1) / counts[:, 0])
        CLOSE(gradient['weights'], -(v0 / counts).T @ h0 + (vk / counts).T @ hk)
        CLOSE(gradient['visible_bias'], -np.sum((v0 - vk) / counts, axis=0))
        CLOSE(gradient['hidden_bias'], -np.sum((h0 - hk) / counts, axis=0))


def test_an_autoencoder_sees_all_or_one_and_reconstructs_all():
    present = np.tile([[True, True, True], [True, False, True], [False, True, False], [False] * 3], (3000, 1))
    seen = np.asarray(quick.jit(all_or_one)(present, jax.random.key(0)))
    assert not np.any(seen & ~present)
    np.testing.assert_array_equal(seen.any(axis=1), present.any(axis=1))
    three = seen[0::4]
    # Four choices of a quarter each; three standard deviations of a share of 3,000 rows.
    shares = [three.all(axis=1).mean(), *(np.mean(three[:, m] & (three.sum(axis=1) == 1)) for m in range(3))]
    np.testing.assert_allclose(shares, 0.25, atol=3 * np.sqrt(0.25 * 0.75 / 3000))

    module = Autoencoder(width=4, pooling='mean')
    variables = quick.parameters(module, features(), train=False)
    train = quick.jit(
        lambda key: module.apply(variables, features(), train=True, rngs={'dropout': key}).objectives['reconstruction']
    )
    parameters, x = variables['params'], standardised()

    def error(row, shown):
        joint = np.concatenate([x[m][row] * (m in shown) for m in range(2)])
        code = decoded(parameters['encoder'], joint)
        here = np.flatnonzero(PRESENT[row])
        outputs = [decoded(parameters[f'decode_{list(SIZES)[m]}'], code) for m in here]
        return np.mean([np.mean((output - x[m][row]) ** 2) for m, output in zip(here, outputs, strict=True)])

    possible = [error(0, shown) for shown in ([0, 1], [0], [1])]
    losses = np.array([train(jax.random.key(seed)) for seed in range(20)])
    which = np.argmin(np.abs(losses[:, :1] - possible), axis=1)
    CLOSE(losses[:, 0], np.take(possible, which))
    assert set(which) == {0, 1, 2}, 'every choice comes up, and both modalities are reconstructed from each'
    CLOSE(losses[:, 1], error(1, [0]))
    CLOSE(losses[:, 3], 0)


def test_the_distance_from_the_prior():
    random = np.random.default_rng(0)
    samples, prior = 0.5 + 0.7 * random.normal(size=(40, 3)), random.normal(size=(1500, 3))

    def kernel(one, other):
        return np.exp(-((one[:, None] - other[None]) ** 2).sum(-1) / 6).mean()

    expected = kernel(samples, samples) - 2 * kernel(samples, prior) + kernel(prior, prior)
    mask = np.arange(50) < 40
    padded = np.concatenate([samples, np.full((10, 3), np.nan)]).astype(np.float32)
    # The prior is known here and sampled there: 1,500 samples of a kernel with a standard deviation near 0.3.
    assert quick.jit(gaussian_mmd)(padded, mask) == pytest.approx(expected, abs=0.03)
    assert quick.jit(gaussian_mmd)(padded, np.zeros(50, bool)) == 0
    assert 0 <= quick.jit(gaussian_mmd)(prior.astype(np.float32)[:50], np.ones(50, bool)) < 0.05


def test_tasks_do_not_see_what_only_a_modality_needs():
    module = Factorized(width=4)
    variables = quick.parameters(module, features(), train=False)

    def total(variables, of):
        fused = module.apply(variables, features(), train=False)
        return jnp.sum(jnp.sin(fused.tokens if of == 'tokens' else fused.objectives['reconstruction']))

    gradient = quick.jit(jax.grad(total), static_argnames='of')
    for of, reaches in (('tokens', False), ('reconstruction', True)):
        found = gradient(variables, of=of)['params']
        for name in [f'{part}_{modality}' for part in ('encode', 'factor', 'decode') for modality in SIZES]:
            assert any(np.any(leaf) for leaf in jax.tree.leaves(found[name])) == reaches, name
