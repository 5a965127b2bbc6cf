"""What the tests of formulas share: rows with every subset of the modalities, and one row at a time for numpy."""

import itertools

import jax
import numpy as np

from mmtl_jax.core.types import Features
from tests import quick

# Tokens of a modality where a row has it, and their width.
SIZES = {'audio': (3, 5), 'image': (2, 4), 'text': (1, 3)}
# float32 against float64, on numbers around one.
CLOSE = {'atol': 1e-5, 'rtol': 1e-5}


def subsets(*modalities: str) -> list[tuple[str, ...]]:
    """Returns every non-empty subset of the sorted modalities, the whole first."""
    chosen = sorted(modalities)
    return [subset for size in range(len(chosen), 0, -1) for subset in itertools.combinations(chosen, size)]


def features_of(*modalities: str, fill: float = np.nan) -> dict[str, Features]:
    """Returns features with one row for each of `subsets`, and `fill` where a row lacks the modality.

    The last token of the rows after the first is masked, if there is more than one.
    """
    rows = subsets(*modalities)
    features = {}
    for seed, modality in enumerate(sorted(modalities)):
        length, width = SIZES[modality]
        tokens = np.random.default_rng(seed).normal(size=(len(rows), length, width))
        mask = np.array([[modality in row] * length for row in rows])
        if length > 1:
            mask[1:, -1] = False
        features[modality] = Features(np.where(mask[..., None], tokens, fill).astype(np.float32), mask)
    return features


def real_tokens(features: dict[str, Features], row: int) -> dict[str, np.ndarray]:
    """Returns {modality: its real tokens `[N, D]`} of a row, in float64, of those that the row has."""
    tokens = {modality: np.float64(f.tokens[row][f.mask[row]]) for modality, f in features.items()}
    return {modality: real for modality, real in tokens.items() if len(real)}


def means(features: dict[str, Features], row: int) -> dict[str, np.ndarray]:
    """Returns {modality: the mean of its real tokens `[D]`} of a row, of those that the row has."""
    return {modality: real.mean(axis=0) for modality, real in real_tokens(features, row).items()}


def run(module, features: dict[str, Features], variables: dict | None = None, seed: int = 0) -> tuple:
    """Returns the fused Features, the parameters in float64 and the intermediates; random parameters without any."""
    if variables is None:
        variables = quick.parameters(module, features, seed=seed, noise=0.3, train=False)

    @quick.jit
    def apply(features):
        return module.apply(variables, features, train=False, mutable=['intermediates'])

    fused, state = apply(features)
    return fused, jax.tree.map(np.float64, variables['params']), state.get('intermediates', {})


def check_vectors(module, features: dict[str, Features], formula, **options) -> dict:
    """Asserts that each row is `formula(parameters, {modality: mean})`, and returns the intermediates."""
    fused, parameters, intermediates = run(module, features, **options)
    for row in range(len(fused.tokens)):
        np.testing.assert_allclose(fused.tokens[row, 0], formula(parameters, means(features, row)), **CLOSE)
    return intermediates
