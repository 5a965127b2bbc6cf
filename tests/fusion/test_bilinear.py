"""Bilinear forms, tensors and their low-rank forms by their formulas, on rows with every subset of the modalities."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmtl_jax import fusion
from mmtl_jax.fusion.bilinear import signed_root, unit_length
from tests import quick
from tests.fusion.by_hand import CLOSE, check_vectors, features_of, run
from tests.nn import plain

WIDTH = 4
EVERY = ('audio', 'image', 'text')
both_and_three = pytest.mark.parametrize('modalities', [EVERY[1:], EVERY], ids=['two', 'three'])


def multiply(factors):
    return functools.reduce(np.multiply, factors)


def projections(p, h):
    return {modality: plain.dense(p[f'project_{modality}'], vector) for modality, vector in h.items()}


@both_and_three
def test_mlb(modalities):
    def formula(p, h):
        return plain.dense(p['joint'], multiply([np.tanh(u) for u in projections(p, h).values()]))

    check_vectors(fusion.MLB(width=WIDTH, pooling='mean', rank=5), features_of(*modalities), formula)


@both_and_three
def test_mfb(modalities):
    def formula(p, h):
        """1708.01471: sum pooling over windows of 3, then power and l2 normalisation."""
        joint = multiply(projections(p, h).values())
        z = np.array([joint[3 * k : 3 * k + 3].sum() for k in range(WIDTH)])
        z = np.sign(z) * np.sqrt(np.abs(z))
        return z / np.linalg.norm(z)

    check_vectors(fusion.MFB(width=WIDTH, pooling='mean', factors=3), features_of(*modalities), formula)


def test_the_normalisations_of_mfb_are_finite_at_zero():
    x = np.array([[4.0, -9.0, 0.0], [0.0, 0.0, 0.0]], np.float32)
    roots, gradient = quick.jit(jax.value_and_grad(lambda x: jnp.sum(unit_length(signed_root(x)) ** 2)))(x)
    np.testing.assert_allclose(signed_root(x), [[2, -3, 0], [0, 0, 0]], **CLOSE)
    np.testing.assert_allclose(roots, 1, atol=1e-6)
    np.testing.assert_array_equal(np.isfinite(gradient), True)
    np.testing.assert_array_equal(gradient[1], 0)


@both_and_three
def test_mutan(modalities):
    def formula(p, h):
        embedded = {modality: np.tanh(u) for modality, u in projections(p, h).items()}
        slices = []
        for r in range(3):
            part = slice(5 * r, 5 * r + 5)
            maps = {m: {'kernel': p[f'core_{m}']['kernel'][:, part], 'bias': p[f'core_{m}']['bias'][part]} for m in h}
            slices.append(multiply([plain.dense(maps[m], embedded[m]) for m in h]))
        return plain.dense(p['joint'], sum(slices))

    module = fusion.MUTAN(width=WIDTH, pooling='mean', factor_width=3, core_width=5, rank=3)
    check_vectors(module, features_of(*modalities), formula)


def linear_terms(p, g, size):
    """Returns sum_m V_m g_m + b; the kernel has the blocks V_m above each other."""
    blocks = dict(zip(sorted(size), np.split(p['linear']['kernel'], len(size)), strict=True))
    return sum(vector @ blocks[modality] for modality, vector in g.items()) + p['linear']['bias']


@both_and_three
@pytest.mark.parametrize('form', ['matrix', 'vector', 'scalar'])
def test_multiplicative(form, modalities):
    def formula(p, h):
        g = projections(p, h)
        fused = linear_terms(p, g, modalities)
        for left, right in itertools.combinations(sorted(h), 2):
            kernel = p[f'interaction_{left}_{right}']
            if form == 'matrix':
                fused = fused + np.array([g[left] @ kernel[:, :, k] @ g[right] for k in range(WIDTH)])
            else:
                fused = fused + (g[left] @ kernel['kernel']) * g[right]
        return fused

    module = fusion.Multiplicative(width=WIDTH, pooling='mean', form=form, factor_width=3)
    check_vectors(module, features_of(*modalities), formula)


def test_multiplicative_has_no_other_forms():
    module = fusion.Multiplicative(width=WIDTH, form='tensor')
    with pytest.raises(ValueError, match=r"form must be one of \('matrix', 'vector', 'scalar'\), got 'tensor'"):
        run(module, features_of('image', 'text'))


def outer(vectors):
    """Returns vec([1; g_1] ⊗ ... ⊗ [1; g_M]), the last index the fastest."""
    indices = itertools.product(*(range(len(vector) + 1) for vector in vectors))
    extended = [np.append(1, vector) for vector in vectors]
    return np.array([np.prod([v[i] for v, i in zip(extended, index, strict=True)]) for index in indices])


@both_and_three
def test_tensor_fusion(modalities):
    def formula(p, h):
        """1707.07250, section 4.2: of an absent modality only the 1 is left."""
        g = projections(p, h)
        return plain.dense(p['joint'], outer([g.get(modality, np.zeros(2)) for modality in modalities]))

    check_vectors(fusion.TensorFusion(width=WIDTH, pooling='mean', factor_width=2), features_of(*modalities), formula)


def test_tensor_fusion_of_the_rest():
    # The rows of W that meet a factor of an absent modality are not used: what remains is the tensor of the others.
    features = features_of(*EVERY)
    module = fusion.TensorFusion(width=WIDTH, pooling='mean', factor_width=2)

    def formula(p, h):
        present = [modality for modality in EVERY if modality in h]
        rows = [slice(None) if modality in h else 0 for modality in EVERY]
        kernel = p['joint']['kernel'].reshape(3, 3, 3, WIDTH)[*rows].reshape(-1, WIDTH)
        return outer([projections(p, h)[modality] for modality in present]) @ kernel + p['joint']['bias']

    check_vectors(module, features, formula)


def low_rank(p, h):
    """1806.00064: y = b + sum_r w_r prod_m F_mr [1; h_m], where an absent h_m is zero."""
    total = p['bias']
    for r, weight in enumerate(p['rank_weights']):
        factors = [
            np.append(1, h.get(modality, np.zeros(p[f'factor_{modality}'].shape[1] - 1))) @ p[f'factor_{modality}'][r]
            for modality in EVERY
            if f'factor_{modality}' in p
        ]
        total = total + weight * multiply(factors)
    return total


@both_and_three
def test_low_rank(modalities):
    check_vectors(fusion.LowRank(width=WIDTH, pooling='mean', rank=3), features_of(*modalities), low_rank)


def test_low_rank_is_tensor_fusion_with_its_factors():
    features = features_of(*EVERY)
    module = fusion.LowRank(width=WIDTH, pooling='mean', rank=3)
    fused, p, _ = run(module, features)
    factors = [p[f'factor_{modality}'] for modality in EVERY]
    kernel = np.einsum('r,rid,rjd,rkd->ijkd', p['rank_weights'], *factors).reshape(-1, WIDTH)
    # Tensor fusion projects all to one width: here the identity, with zeros for the channels that a modality lacks.
    widest = max(factor.shape[1] - 1 for factor in factors)
    shape = [factor.shape[1] for factor in factors]
    padded = np.zeros((widest + 1,) * 3 + (WIDTH,))
    padded[: shape[0], : shape[1], : shape[2]] = kernel.reshape(*shape, WIDTH)
    params = {'joint': {'kernel': padded.reshape(-1, WIDTH), 'bias': p['bias']}}
    for modality, factor in zip(EVERY, factors, strict=True):
        params[f'project_{modality}'] = {'kernel': np.eye(factor.shape[1] - 1, widest), 'bias': np.zeros(widest)}
    params = jax.tree.map(np.float32, params)
    tensor = fusion.TensorFusion(width=WIDTH, pooling='mean', factor_width=widest)
    np.testing.assert_allclose(run(tensor, features, {'params': params})[0].tokens, fused.tokens, **CLOSE)


def test_every_factor_of_low_rank_is_a_parameter():
    # In MultiBench they stand in a plain list, which hides them from the optimizer.
    shapes = jax.eval_shape(
        lambda: fusion.LowRank(width=WIDTH, rank=3).init(jax.random.key(0), features_of('image', 'text'), train=False)
    )['params']
    assert shapes['factor_image'].shape == (3, 5, WIDTH)
    assert shapes['factor_text'].shape == (3, 4, WIDTH)


def hierarchy(p, h):
    nodes = dict(projections(p, h))
    for left, right in itertools.combinations(sorted(h), 2):
        pair = np.concatenate([nodes[left], nodes[right]])
        nodes[f'{left}+{right}'] = np.tanh(plain.dense(p[f'pair_{left}_{right}'], pair))
    stacked = np.stack([*nodes.values()])
    weights = plain.softmax((stacked @ p['scores']['kernel'])[:, 0])
    return plain.dense(p['joint'], weights @ stacked)


@both_and_three
def test_hierarchical(modalities):
    module = fusion.Hierarchical(width=WIDTH, pooling='mean')
    intermediates = check_vectors(module, features_of(*modalities), hierarchy)
    weights = intermediates['node_weights'][0]
    assert 'image+text' in weights
    np.testing.assert_allclose(sum(weights.values()), 1, atol=1e-6)
