"""Tasks whose answer is a sequence of symbols, such as a transcript."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from mmtl_jax import heads, losses, metrics
from mmtl_jax.core.types import Array, PyTree, Ragged
from mmtl_jax.heads.ctc_decoding import NOTHING, greedy_decode, prefix_beam_search
from mmtl_jax.tasks.base import Scorer, Task, at_least, choice, primary_metric, reading


def ctc(
    task: str,
    *,
    vocab_size: int | None = None,
    vocabulary: Sequence[str] = (),
    reads: str = 'fused',
    hidden: Sequence[int] = (),
    dropout_rate: float = 0.0,
    per: str = 'symbol',
    decoder: str = 'greedy',
    beam_width: int = 8,
    primary: str = 'cer',
) -> Task:
    """Returns a transcription task; targets `Ragged` ids `[B, L]` from 1 to vocab_size - 1, id 0 is the blank.

    Args:
      task: its name.
      vocab_size: number of symbols, blank included; None to take it from the vocabulary.
      vocabulary: the symbols of the ids 1, 2, ...; empty to score ids as if each were one character.
      reads: 'fused' or a modality whose tokens are in the order of time.
      hidden: sizes of the head's hidden layers.
      dropout_rate: in the head.
      per: 'symbol' divides a row's loss by its number of labels, 'sequence' does not.
      decoder: 'greedy' or 'beam' (prefix beam search).
      beam_width: prefixes kept by the beam search.
      primary: 'cer', or 'wer' with a vocabulary.
    """
    vocabulary = tuple(vocabulary)
    vocab_size = _vocab_size(task, vocab_size, vocabulary)
    if not isinstance(reading(reads), str):
        raise ValueError(f'task {task!r}: ctc reads one sequence, got {tuple(reads)}; name one modality.')
    choice(task, 'per', per, {'symbol': None, 'sequence': None})
    at_least(task, 'beam_width', beam_width, 1)
    beam = partial(prefix_beam_search, beam_width=beam_width)
    decode = choice(task, 'decoder', decoder, {'greedy': greedy_decode, 'beam': lambda *args: beam(*args)[0]})

    def text(ids: np.ndarray) -> str:
        # Without a vocabulary each id becomes one character of a private range, which edits then compare.
        return ''.join(vocabulary[i - 1] if vocabulary else chr(0xE000 + i) for i in ids)

    def measure(predictions: PyTree, targets: Ragged, weights: Array) -> dict[str, tuple[Array, Array]]:
        return {'infeasible': metrics.weighted(~losses.feasible(predictions['mask'], targets), weights)}

    def score(outputs: list[PyTree], targets: list[Ragged]) -> dict[str, float]:
        rates = metrics.error_rates([text(_real(row)) for row in targets], [text(_real(row)) for row in outputs])
        return rates if vocabulary else {name: rate for name, rate in rates.items() if name == 'cer'}

    def describe(output: PyTree, target: Ragged) -> tuple[str, str]:
        words = text if vocabulary else lambda ids: ' '.join(str(i) for i in ids)
        return words(_real(output)), words(_real(target))

    return Task(
        name=task,
        head=heads.CTC(vocab_size, tuple(hidden), dropout_rate),
        loss=lambda predictions, labels: losses.ctc(predictions['logits'], predictions['mask'], labels, per=per),
        metrics=measure,
        scorer=Scorer(lambda predictions: {'tokens': decode(predictions['logits'], predictions['mask'])}, score),
        **primary_metric(task, primary, ['cer', 'wer'] if vocabulary else ['cer']),
        reads=reading(reads),
        describe=describe,
    )


def _real(row: Ragged | dict[str, np.ndarray]) -> np.ndarray:
    """Returns the ids of one row, of a target or of a decoder's output."""
    if isinstance(row, Ragged):
        return np.asarray(row.values)[np.asarray(row.mask)]
    tokens = np.asarray(row['tokens'])
    return tokens[tokens != NOTHING]


def _vocab_size(task: str, vocab_size: int | None, vocabulary: tuple[str, ...]) -> int:
    if vocab_size is None and not vocabulary:
        raise ValueError(f'task {task!r}: ctc needs vocab_size or a vocabulary, got neither.')
    size = len(vocabulary) + 1 if vocab_size is None else vocab_size
    at_least(task, 'vocab_size', size, 2)
    if vocabulary and size != len(vocabulary) + 1:
        expected = f'{len(vocabulary)} symbols and the blank make {len(vocabulary) + 1}'
        raise ValueError(f'task {task!r}: vocab_size {size} does not fit the vocabulary: {expected}.')
    return size
