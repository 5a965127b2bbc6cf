"""Tasks: data that says how to answer a question, learn from its label, and score the answers.

A factory makes a `Task` from plain values, and raises a `ValueError` that names the task for those that do not fit.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mmtl_jax import heads, losses, metrics
from mmtl_jax.core.types import Array, PyTree, Ragged
from mmtl_jax.heads.ctc_decoding import NOTHING, greedy_decode, prefix_beam_search

__all__ = ['Scorer', 'Task', 'classification', 'contrastive', 'ctc', 'multilabel', 'regression']

LOWER_IS_BETTER = ('mae', 'mse', 'cer', 'wer')


@dataclasses.dataclass(frozen=True)
class Scorer:
    """Scores that are no mean over rows, such as macro-F1 or the character error rate.

    Attributes:
      reduce: predictions -> a small pytree with leading axis B; runs on the device, under jit.
      score: per-row outputs of `reduce` and per-row targets, both numpy and of labelled rows only -> {name: score}.
    """

    reduce: Callable[[PyTree], PyTree]
    score: Callable[[list[PyTree], list[PyTree]], dict[str, float]]


@dataclasses.dataclass(frozen=True)
class Task:
    """One question to the model.

    Attributes:
      name: what the batch, the metrics and the parameters call it.
      head: linen module, features -> predictions.
      loss: predictions, targets -> `[B]`.
      metrics: predictions, targets, weights `[B]` -> {name: (sum, count)}.
      scorer: scores of a whole split, or None.
      primary: the metric or score that stands for the task.
      higher_is_better: direction of `primary`.
      reads: 'fused', or the modality or modalities whose features the head takes before fusion.
      class_names: what the classes or labels are called; empty if they have numbers only.
      describe: one row's reduced output and its target -> both in words, for reports; or None.
    """

    name: str
    head: nn.Module
    loss: Callable[[PyTree, PyTree], Array]
    metrics: Callable[[PyTree, PyTree, Array], dict[str, tuple[Array, Array]]]
    scorer: Scorer | None
    primary: str
    higher_is_better: bool
    reads: str | tuple[str, ...] = 'fused'
    class_names: tuple[str, ...] = ()
    describe: Callable[[PyTree, PyTree], tuple[str, str]] | None = None


def classification(
    task: str,
    *,
    num_classes: int,
    reads: str | Sequence[str] = 'fused',
    hidden: Sequence[int] = (),
    dropout_rate: float = 0.0,
    label_smoothing: float = 0.0,
    top_k: int | None = None,
    class_names: Sequence[str] = (),
    primary: str = 'accuracy',
) -> Task:
    """Returns a task with one class out of several; targets `[B]` int.

    Args:
      task: its name.
      num_classes: number of classes, at least 2.
      reads: 'fused', a modality, or several.
      hidden: sizes of the head's hidden layers.
      dropout_rate: in the head.
      label_smoothing: weight of the uniform distribution in the target.
      top_k: also measures how often the class is among the `top_k` highest; None to leave it out.
      class_names: one per class, for reports.
      primary: 'accuracy', `top{k}`, 'macro_f1' or 'micro_f1'.
    """
    _at_least(task, 'num_classes', num_classes, 2)
    names = _names(task, class_names, num_classes)
    if top_k is not None and not 1 <= top_k <= num_classes:
        raise ValueError(f'task {task!r}: top_k must be between 1 and {num_classes}, got {top_k}.')
    if not 0 <= label_smoothing < 1:
        raise ValueError(f'task {task!r}: label_smoothing must be at least 0 and below 1, got {label_smoothing}.')
    known = ['accuracy', 'macro_f1', 'micro_f1'] + ([] if top_k is None else [f'top{top_k}'])

    def reduce(logits: Array) -> dict[str, Array]:
        label = jnp.argmax(logits, axis=-1).astype(jnp.int32)
        return {'label': label, 'probabilities': jax.nn.softmax(logits.astype(jnp.float32))}

    def score(outputs: list[PyTree], targets: list[PyTree]) -> dict[str, float]:
        labels, predicted = np.array(targets), np.array([output['label'] for output in outputs])
        probabilities = np.array([output['probabilities'] for output in outputs])
        return metrics.f1(labels, predicted) | metrics.calibration(labels, probabilities)

    def describe(output: PyTree, target: PyTree) -> tuple[str, str]:
        label = int(output['label'])
        return f'{_called(names, label)} ({output["probabilities"][label]:.0%})', _called(names, int(target))

    return Task(
        name=task,
        head=heads.Classification(num_classes, tuple(hidden), dropout_rate),
        loss=partial(losses.cross_entropy, label_smoothing=label_smoothing),
        metrics=partial(metrics.classification, top_k=top_k),
        scorer=Scorer(reduce, score),
        **_primary(task, primary, known),
        reads=_reads(reads),
        class_names=names,
        describe=describe,
    )


def multilabel(
    task: str,
    *,
    num_labels: int,
    reads: str | Sequence[str] = 'fused',
    hidden: Sequence[int] = (),
    dropout_rate: float = 0.0,
    class_names: Sequence[str] = (),
    primary: str = 'macro_f1',
) -> Task:
    """Returns a task with any number of labels per row; targets `[B, num_labels]` of 0 and 1.

    Args:
      task: its name.
      num_labels: number of labels.
      reads: 'fused', a modality, or several.
      hidden: sizes of the head's hidden layers.
      dropout_rate: in the head.
      class_names: one per label, for reports.
      primary: 'macro_f1', 'micro_f1', 'average_precision', 'roc_auc', 'accuracy' (share of labels that are right) or
        'exact_match'.
    """
    _at_least(task, 'num_labels', num_labels, 1)
    known = ['macro_f1', 'micro_f1', 'average_precision', 'roc_auc', 'accuracy', 'exact_match']
    names = _names(task, class_names, num_labels)

    def reduce(logits: Array) -> dict[str, Array]:
        return {'probabilities': jax.nn.sigmoid(logits.astype(jnp.float32))}

    def score(outputs: list[PyTree], targets: list[PyTree]) -> dict[str, float]:
        truth = (np.array(targets) > 0.5).astype(np.int32)
        probabilities = np.array([output['probabilities'] for output in outputs])
        scores = metrics.f1(truth, (probabilities > 0.5).astype(np.int32)) | metrics.ranking(truth, probabilities)
        return scores | metrics.calibration(truth, probabilities)

    def describe(output: PyTree, target: PyTree) -> tuple[str, str]:
        return tuple(
            ', '.join(_called(names, label) for label in np.flatnonzero(np.asarray(values) > 0.5)) or 'none'
            for values in (output['probabilities'], target)
        )

    return Task(
        name=task,
        head=heads.MultiLabel(num_labels, tuple(hidden), dropout_rate),
        loss=losses.binary_cross_entropy,
        metrics=metrics.multilabel,
        scorer=Scorer(reduce, score),
        **_primary(task, primary, known),
        reads=_reads(reads),
        class_names=names,
        describe=describe,
    )


def regression(
    task: str,
    *,
    num_outputs: int = 1,
    reads: str | Sequence[str] = 'fused',
    hidden: Sequence[int] = (),
    dropout_rate: float = 0.0,
    kind: str = 'mse',
    delta: float = 1.0,
    primary: str = 'mae',
) -> Task:
    """Returns a task with real numbers; targets `[B, num_outputs]`, or `[B]` for one number.

    Args:
      task: its name.
      num_outputs: how many numbers a row has.
      reads: 'fused', a modality, or several.
      hidden: sizes of the head's hidden layers.
      dropout_rate: in the head.
      kind: of the loss: 'mse', 'mae' or 'huber'.
      delta: error at which the Huber loss turns linear.
      primary: 'mae', 'mse' or 'r2'.
    """
    _at_least(task, 'num_outputs', num_outputs, 1)
    kinds = {'mse': losses.squared_error, 'mae': losses.absolute_error, 'huber': partial(losses.huber, delta=delta)}
    loss = _choice(task, 'kind', kind, kinds)

    def score(outputs: list[PyTree], targets: list[PyTree]) -> dict[str, float]:
        return metrics.r2(
            np.array([np.ravel(target) for target in targets]), np.array([output['value'] for output in outputs])
        )

    def describe(output: PyTree, target: PyTree) -> tuple[str, str]:
        return tuple(', '.join(f'{number:.3g}' for number in np.ravel(row)) for row in (output['value'], target))

    return Task(
        name=task,
        head=heads.Regression(num_outputs, tuple(hidden), dropout_rate),
        loss=lambda values, targets: loss(values, targets.reshape(values.shape)),
        metrics=lambda values, targets, weights: metrics.regression(values, targets.reshape(values.shape), weights),
        scorer=Scorer(lambda values: {'value': values}, score),
        **_primary(task, primary, ['mae', 'mse', 'r2']),
        reads=_reads(reads),
        describe=describe,
    )


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
    if not isinstance(_reads(reads), str):
        raise ValueError(f'task {task!r}: ctc reads one sequence, got {tuple(reads)}; name one modality.')
    _choice(task, 'per', per, {'symbol': None, 'sequence': None})
    _at_least(task, 'beam_width', beam_width, 1)
    beam = partial(prefix_beam_search, beam_width=beam_width)
    decode = _choice(task, 'decoder', decoder, {'greedy': greedy_decode, 'beam': lambda *args: beam(*args)[0]})

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
        **_primary(task, primary, ['cer', 'wer'] if vocabulary else ['cer']),
        reads=_reads(reads),
        describe=describe,
    )


def contrastive(
    task: str,
    *,
    modalities: Sequence[str],
    width: int = 128,
    hidden: Sequence[int] = (),
    dropout_rate: float = 0.0,
    kind: str = 'clip',
    init_temperature: float | None = None,
    init_bias: float = -10.0,
    primary: str = 'r5',
) -> Task:
    """Returns a retrieval task; targets `{'group': [B] int}` and optionally {modality: `[B]` int identity}.

    Rows of one group are positives of each other; an identity says which item of a modality a row shows, so that the
    scorer counts each once.

    Args:
      task: its name.
      modalities: at least two; every pair is compared, in both directions.
      width: size of the common space.
      hidden: sizes of the head's hidden layers, applied to every token.
      dropout_rate: in the head.
      kind: of the loss: 'clip' or 'siglip'.
      init_temperature: at the start; None for .07 (CLIP) or .1 (SigLIP), as in the papers.
      init_bias: at the start, for SigLIP.
      primary: 'r1', 'r5' or 'r10', the means over the directions, or one direction, such as 'image_to_text_r5'.
    """
    reads = (modalities,) if isinstance(modalities, str) else tuple(modalities)
    if len(set(reads)) < 2 or len(set(reads)) != len(reads) or 'group' in reads:
        raise ValueError(f"task {task!r}: needs two or more different modalities, none called 'group', got {reads}.")
    loss = _choice(task, 'kind', kind, {'clip': losses.clip, 'siglip': losses.siglip})
    temperature = init_temperature if init_temperature is not None else {'clip': 0.07, 'siglip': 0.1}[kind]
    if temperature <= 0:
        raise ValueError(f'task {task!r}: init_temperature must be above 0, got {temperature}.')

    def reduce(predictions: PyTree) -> PyTree:
        return {'embeddings': predictions['embeddings'], 'valid': predictions['valid']}

    def score(outputs: list[PyTree], targets: list[PyTree]) -> dict[str, float]:
        if not targets:
            return {}
        rows = jax.tree.map(lambda *leaves: np.stack(leaves), *outputs)
        labels = jax.tree.map(lambda *leaves: np.stack(leaves), *targets)
        identity = {modality: labels[modality] for modality in reads if modality in labels}
        return metrics.retrieval(rows['embeddings'], rows['valid'], labels['group'], identity)

    directions = [f'{asking}_to_{asked}_' for asking in reads for asked in reads if asking != asked]
    return Task(
        name=task,
        head=heads.Contrastive(
            width, reads, temperature, init_bias if kind == 'siglip' else None, tuple(hidden), dropout_rate
        ),
        loss=lambda predictions, targets: loss(predictions, targets['group']),
        metrics=lambda predictions, targets, weights: {
            'scale': metrics.weighted(jnp.broadcast_to(predictions['scale'], weights.shape), weights)
        },
        scorer=Scorer(reduce, score),
        **_primary(task, primary, [f'{where}r{k}' for where in ['', *directions] for k in metrics.KS]),
        reads=reads,
    )


def _real(row: Ragged | dict[str, np.ndarray]) -> np.ndarray:
    """Returns the ids of one row, of a target or of a decoder's output."""
    if isinstance(row, Ragged):
        return np.asarray(row.values)[np.asarray(row.mask)]
    tokens = np.asarray(row['tokens'])
    return tokens[tokens != NOTHING]


def _reads(reads: str | Sequence[str]) -> str | tuple[str, ...]:
    """Returns a single name as a string and several as a tuple."""
    names = (reads,) if isinstance(reads, str) else tuple(reads)
    return names[0] if len(names) == 1 else names


def _called(names: tuple[str, ...], label: int) -> str:
    return names[label] if names else str(label)


def _names(task: str, class_names: Sequence[str], size: int) -> tuple[str, ...]:
    if class_names and len(class_names) != size:
        raise ValueError(f'task {task!r}: class_names must have {size} entries, got {len(class_names)}.')
    return tuple(class_names)


def _vocab_size(task: str, vocab_size: int | None, vocabulary: tuple[str, ...]) -> int:
    if vocab_size is None and not vocabulary:
        raise ValueError(f'task {task!r}: ctc needs vocab_size or a vocabulary, got neither.')
    size = len(vocabulary) + 1 if vocab_size is None else vocab_size
    _at_least(task, 'vocab_size', size, 2)
    if vocabulary and size != len(vocabulary) + 1:
        expected = f'{len(vocabulary)} symbols and the blank make {len(vocabulary) + 1}'
        raise ValueError(f'task {task!r}: vocab_size {size} does not fit the vocabulary: {expected}.')
    return size


def _at_least(task: str, name: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f'task {task!r}: {name} must be at least {least}, got {value}.')


def _choice(task: str, name: str, value: str, choices: dict[str, object]) -> object:
    if value not in choices:
        raise ValueError(f'task {task!r}: {name} must be one of {sorted(choices)}, got {value!r}.')
    return choices[value]


def _primary(task: str, primary: str, known: list[str]) -> dict[str, str | bool]:
    _choice(task, 'primary', primary, dict.fromkeys(known))
    return {'primary': primary, 'higher_is_better': primary not in LOWER_IS_BETTER}
