"""Fusions by attention by their formulas, one row with one subset of the modalities at a time, without its padding."""

import numpy as np
import pytest

from mmtl_jax import fusion
from tests.fusion.by_hand import CLOSE, SIZES, features_of, real_tokens, run
from tests.nn import plain

WIDTH = 6
FIELDS = {'width': WIDTH, 'pooling': 'mean', 'num_heads': 2}
LAYERS = {**FIELDS, 'depth': 2, 'expansion': 2}


def positions(length):
    angles = np.arange(length)[:, None] * 10_000.0 ** (-np.arange(WIDTH // 2) / (WIDTH // 2))
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)


def embed(p, tokens, *, add_positions=True):
    """Returns W_m x + b_m of each modality, plus sinusoids."""
    return {
        modality: plain.dense(p[f'project_{modality}'], x) + add_positions * positions(len(x))
        for modality, x in tokens.items()
    }


def mean_of_means(tokens):
    return np.mean([x.mean(axis=0) for x in tokens.values()], axis=0)


def split(joint, tokens):
    """Returns the rows of `joint` by modality."""
    ends = np.cumsum([len(x) for x in tokens.values()])
    return dict(zip(tokens, np.split(joint, ends[:-1]), strict=True))


def early(p, tokens):
    x = embed(p, tokens)
    joint = np.concatenate([*x.values()])
    for layer in range(2):
        joint = plain.attention_block(p[f'layer_{layer}'], joint)
    return mean_of_means(split(plain.layer_norm(p['norm'], joint), x))


def bottleneck(p, tokens, *, published):
    """2107.00135, eq. 8 and 9; with `published` False the tokens attend to the bottlenecks only."""
    x, shared = embed(p, tokens), p['bottleneck']
    for layer in range(2):
        heard = []
        for modality in x:
            block, joint = p[f'{modality}_{layer}'], np.concatenate([x[modality], shared])
            if published:
                joint = plain.attention_block(block, joint)
                x[modality], own = joint[: -len(shared)], joint[-len(shared) :]
            else:
                own = plain.attention_block(block, shared, joint)
                x[modality] = plain.attention_block(block, x[modality], shared)
            heard.append(own)
        shared = np.mean(heard, axis=0)
    return mean_of_means({modality: plain.layer_norm(p[f'norm_{modality}'], tokens) for modality, tokens in x.items()})


def perceiver(p, tokens):
    joint, latents = np.concatenate([*embed(p, tokens).values()]), p['latents']
    for _ in range(2):
        latents = plain.attention_block(p['read'], latents, joint)
        for layer in range(2):
            latents = plain.attention_block(p[f'layer_{layer}'], latents)
    return plain.layer_norm(p['norm'], latents).mean(axis=0)


def non_local_gate(p, tokens):
    x = embed(p, tokens, add_positions=False)
    gated = {}
    for modality in x:
        others = np.concatenate([np.zeros((0, WIDTH)), *(x[name] for name in x if name != modality)])
        gated[modality] = x[modality] + plain.attention_to(p[f'gate_{modality}'], x[modality], others)[0]
    return mean_of_means(gated)


def cross_attention(p, tokens):
    """1906.00295: an absent source leaves its target alone, an absent target is zero."""
    x, vectors = embed(p, tokens), []
    for target in sorted(SIZES):
        if target not in x:
            vectors.append(np.zeros(2 * WIDTH))
            continue
        streams = []
        for source in sorted({*SIZES} - {target}):
            stream, name = x[target], f'{target}_from_{source}'
            for layer in range(2):
                context = x.get(source, np.zeros((0, WIDTH)))
                stream = plain.attention_block(p[f'{name}_{layer}'], stream, context)
            streams.append(plain.layer_norm(p[f'{name}_norm'], stream))
        joint = plain.attention_block(p[f'{target}_0'], np.concatenate(streams, axis=1))
        vectors.append(plain.layer_norm(p[f'{target}_norm'], joint).mean(axis=0))
    h = np.concatenate(vectors)
    h = h + plain.dense(p['residual'], np.maximum(plain.dense(p['hidden'], h), 0))
    return plain.dense(p['joint'], h)


CASES = {
    'Early': (fusion.Early(**LAYERS), early),
    'Bottleneck': (
        fusion.Bottleneck(**LAYERS, num_bottlenecks=2),
        lambda p, tokens: bottleneck(p, tokens, published=False),
    ),
    'Bottleneck, as published': (
        fusion.Bottleneck(**LAYERS, num_bottlenecks=2, self_attention=True),
        lambda p, tokens: bottleneck(p, tokens, published=True),
    ),
    'Perceiver': (fusion.Perceiver(**LAYERS, num_latents=3, num_reads=2), perceiver),
    'NonLocalGate': (fusion.NonLocalGate(**FIELDS), non_local_gate),
    'CrossAttention': (fusion.CrossAttention(**LAYERS), cross_attention),
}


# They take seconds to compile.
SLOW = {'Bottleneck', 'Perceiver', 'CrossAttention'}


def marked(*names: str) -> list:
    return [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in names]


@pytest.mark.parametrize('name', marked(*CASES))
def test_every_subset_gives_the_formula_of_the_modalities_that_are_there(name):
    module, formula = CASES[name]
    features = features_of(*SIZES)
    fused, parameters, intermediates = run(module, features)
    for row in range(len(fused.tokens)):
        np.testing.assert_allclose(fused.tokens[row, 0], formula(parameters, real_tokens(features, row)), **CLOSE)
    check_record(intermediates['attention'], features)


def check_record(record, features):
    """Asserts that the weights of every query add up to 1 over its keys, or to 0 where it has none."""
    assert record
    for call in record:
        for query, keys in call.items():
            total = sum(np.sum(weights, axis=-1) for weights in keys.values())
            length = features[query].mask.shape[1] if query in features else total.shape[-1]
            assert total.shape == (7, 2, length)
            np.testing.assert_allclose(total, np.round(total), atol=1e-5)
            assert np.max(total) < 1.5
            for key, weights in keys.items():
                if key in features:
                    # No real query looks at a masked key.
                    assert not np.any(np.moveaxis(weights, 3, 1)[~features[key].mask])


@pytest.mark.parametrize('name', marked('Early', 'Perceiver'))
def test_one_learned_token_stands_for_an_absent_modality(name):
    module, formula = CASES[name]
    features = features_of(*SIZES)
    fused, p, _ = run(module.clone(absent='token'), features)
    for row in range(len(fused.tokens)):
        tokens = real_tokens(features, row)
        # One token of zeros, whose embedding is the bias and position 0: with this bias, the learned token.
        given = {modality: tokens.get(modality, np.zeros((1, SIZES[modality][1]))) for modality in sorted(SIZES)}
        own = dict(p)
        for modality in set(SIZES) - set(tokens):
            bias = p[f'absent_{modality}'] - positions(1)[0]
            own[f'project_{modality}'] = {**p[f'project_{modality}'], 'bias': bias}
        np.testing.assert_allclose(fused.tokens[row, 0], formula(own, given), **CLOSE)


def test_without_pooling_all_tokens_are_handed_on():
    features = features_of(*SIZES)
    fused, p, _ = run(fusion.NonLocalGate(**FIELDS).clone(pooling='none'), features)
    assert fused.tokens.shape[1] == sum(length for length, _ in SIZES.values())
    np.testing.assert_array_equal(fused.mask, np.concatenate([features[name].mask for name in sorted(SIZES)], axis=1))
    np.testing.assert_array_equal(np.any(fused.tokens, axis=-1), fused.mask)
    tokens = embed(p, real_tokens(features, 4), add_positions=False)
    # Row 4 has the audio alone, and nobody to ask.
    np.testing.assert_allclose(fused.tokens[4][fused.mask[4]], tokens['audio'], **CLOSE)
