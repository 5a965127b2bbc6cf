"""CTC by enumeration of all alignments, for small cases."""

import itertools

import numpy as np


def collapse(path: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the labelling of a path: repeats collapsed, blanks (0) removed."""
    return tuple(symbol for symbol, _ in itertools.groupby(path) if symbol != 0)


def labelling_probabilities(log_probs: np.ndarray) -> dict[tuple[int, ...], float]:
    """Returns the probability of every labelling: the sum over all paths, `log_probs [T, V]`."""
    frames, vocab_size = log_probs.shape
    total: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(vocab_size), repeat=frames):
        labels = collapse(path)
        total[labels] = total.get(labels, 0.0) + float(np.exp(sum(log_probs[t, s] for t, s in enumerate(path))))
    return total


def random_log_probs(seed: int, frames: int, vocab_size: int, sharpness: float = 1.5) -> np.ndarray:
    """Returns `[T, V]` float64 log-probabilities."""
    logits = sharpness * np.random.default_rng(seed).normal(size=(frames, vocab_size))
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
