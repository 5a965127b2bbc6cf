"""The results on the stamps: joint, single-task and single-modality runs of equal budget beside a TF-IDF baseline.

    python -m experiments.stamps --runs=runs/results --out=docs/results/stamps.md

trains what is missing in `--runs` (each run is the flagship's command with an argument and a seed), predicts the test
split, and writes the table; `--train=false` only reads the runs that are there.
"""

import dataclasses
import itertools
import json
import pathlib
import sys
from collections.abc import Sequence

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.pipeline import make_pipeline

from experiments.runs import Options, call, cell, machines, run_experiment, table, train_rows, train_run
from mmtl_jax import data
from mmtl_jax.core.files import read_json

# Name of the row -> argument of configs/stamps.py.
ARGUMENTS = {
    'joint': '',
    'category-only': 'image_caption_speech/category',
    'transcript-only': 'speech/transcript',
    'language-only': 'speech/language',
    'attributes-only': 'image_caption_speech/attributes',
    'retrieval-only': 'image_caption_speech/retrieval',
    'image': 'image',
    'caption': 'caption',
    'speech': 'speech',
    'image+caption': 'image_caption',
}
SYMBOLS = 'symbols'
# Name of the score -> its key in summary.json.
SCORES = {
    'character error rate': 'transcript/cer',
    'language accuracy': 'language/accuracy',
    'attributes macro-F1': 'attributes/macro_f1',
    'mean R@5': 'retrieval/r5',
}
# Row of a single task -> the score by which it is compared with the joint run, and whether higher is better.
SINGLE_TASKS = {
    'category-only': ('clip accuracy', True),
    'transcript-only': ('character error rate', False),
    'language-only': ('language accuracy', True),
    'attributes-only': ('attributes macro-F1', True),
    'retrieval-only': ('mean R@5', True),
}


@dataclasses.dataclass(frozen=True)
class Clip:
    """One test clip: its stamp, its category, and what a model makes of it.

    Attributes:
      stamp: the stamp's stem.
      category: index of the true category.
      probabilities: `[12]`, over the categories.
    """

    stamp: str
    category: int
    probabilities: np.ndarray


def category_scores(clips: Sequence[Clip], symbols: int) -> dict[str, float]:
    """Returns accuracy and macro-F1 per clip and per stamp, with and without the category symbols.

    A stamp's probabilities are the mean over its clips.
    """
    by_stamp: dict[str, list[Clip]] = {}
    for clip in clips:
        by_stamp.setdefault(clip.stamp, []).append(clip)
    stamps = [
        Clip(stamp, group[0].category, np.mean([clip.probabilities for clip in group], axis=0))
        for stamp, group in by_stamp.items()
    ]
    scores = {}
    for what, items in (('clip', clips), ('stamp', stamps)):
        for name, kept in (('', items), (' without symbols', [item for item in items if item.category != symbols])):
            expected = [item.category for item in kept]
            predicted = [int(np.argmax(item.probabilities)) for item in kept]
            scores[f'{what}{name} accuracy'] = float(np.mean(np.equal(expected, predicted)))
            scores[f'{what}{name} macro-F1'] = f1_score(expected, predicted, average='macro', zero_division=0)
    return scores


def tfidf(train: data.Source, validation: data.Source, test: data.Source) -> tuple[list[Clip], str]:
    """Returns what logistic regression on TF-IDF of the caption's character n-grams answers on test, and its settings.

    The n-grams and the regularisation are those with the highest accuracy on validation.
    """
    (texts, labels, _), (held_out, expected, _), (asked, categories, names) = map(_columns, (train, validation, test))
    choices = []
    for analyzer, longest, inverse_penalty in itertools.product(('char', 'char_wb'), (4, 5), (3.0, 10.0, 30.0)):
        model = make_pipeline(
            TfidfVectorizer(analyzer=analyzer, ngram_range=(1, longest), sublinear_tf=True),
            LogisticRegression(C=inverse_penalty, max_iter=2000),
        ).fit(texts, labels)
        settings = f'{analyzer} n-grams of 1 to {longest}, C = {inverse_penalty:g}'
        choices.append((model.score(held_out, expected), settings, model))
    accuracy, settings, model = max(choices, key=lambda choice: choice[0])
    probabilities = np.zeros((len(names), 12))
    probabilities[:, model.classes_] = model.predict_proba(asked)
    clips = [Clip(_stem(name), category, p) for name, category, p in zip(names, categories, probabilities, strict=True)]
    return clips, f'TF-IDF as chosen on validation (accuracy {accuracy:.3f}): {settings}.'


def _columns(source: data.Source) -> list[list]:
    keys = ['caption', 'category', 'id']
    rows = source.select(keys)
    examples = [rows[row] for row in range(len(rows))]
    return [[example[key] for example in examples] for key in keys]


def _stem(name: str) -> str:
    """Returns the stamp of an example's id, 'language stem'."""
    return name.split(' ', 1)[1]


def run_scores(run: pathlib.Path, truth: dict[str, int], symbols: int) -> dict[str, float]:
    """Returns the test scores of a finished run."""
    values = read_json(run / 'summary.json')['test']
    scores = {name: values[key] for name, key in SCORES.items() if key in values}
    for key, value in values.items():
        if '_to_' in key and key.endswith('_r5'):
            direction = key.removeprefix('retrieval/').removesuffix('_r5').replace('_to_', ' → ')
            scores[direction] = value
            scores[f'{direction}, times chance'] = value / values[f'{key}_chance']
    predictions = [json.loads(line) for line in (run / 'test.jsonl').read_text().splitlines()]
    if 'category' in predictions[0]:
        clips = [
            Clip(_stem(line['id']), truth[line['id']], np.array(line['category']['output']['probabilities']))
            for line in predictions
        ]
        scores |= category_scores(clips, symbols)
    return scores


def train_and_predict(run: pathlib.Path, argument: str, seed: int) -> None:
    """Trains a run and predicts the test split, if that has not been done."""
    train_run(run, f'configs/stamps.py:{argument}' if argument else 'configs/stamps.py', seed)
    if not (run / 'test.jsonl').exists():
        call('mmtl_jax.predict', f'--workdir={run}', '--split=test', f'--out={run}/test.jsonl')


def against_single_tasks(rows: dict[str, list[dict[str, float]]]) -> str:
    """Returns a Markdown table of the joint run beside each run of one task alone, and which of them is better."""
    lines = ['| task alone | score | alone | joint | joint is |', '|---|---|---|---|---|']
    for row, (score, higher_is_better) in SINGLE_TASKS.items():
        alone, joint = ([scores[score] for scores in rows.get(name, ()) if score in scores] for name in (row, 'joint'))
        if alone and joint:
            gain = (np.mean(joint) - np.mean(alone)) * (1 if higher_is_better else -1)
            size = f'{abs(gain):.3f}'
            verdict = 'the same' if float(size) == 0 else f'{"better" if gain > 0 else "worse"} by {size}'
            lines.append(f'| {row} | {score} | {cell(alone)} | {cell(joint)} | {verdict} |')
    return '\n'.join(lines)


def page(rows: dict[str, list[dict[str, float]]], facts: Sequence[str]) -> str:
    """Returns the results page."""
    kinds = [f'{what}{which}' for what in ('clip', 'stamp') for which in ('', ' without symbols')]
    category = [f'{kind} {measure}' for kind in kinds for measure in ('accuracy', 'macro-F1')]
    directions = sorted({name for runs in rows.values() for scores in runs for name in scores if ' → ' in name})
    return '\n\n'.join([
        '# Results on the Tux Paint stamps',
        'Made by `python -m experiments.stamps --runs=runs/results --out=docs/results/stamps.md`: test split, mean ± '
        'standard deviation over the seeds, best checkpoint by validation. All runs take the same number of steps with '
        'the same batch size; each is the command `python -m mmtl_jax.train --config=configs/stamps.py:<argument> '
        '--config.seed=<seed>`.',
        *facts,
        '## Category',
        'Per clip, and per stamp (mean probabilities over the clips of a stamp). 30 % of the stamps are symbols, so '
        'both also without these.',
        table(rows, category),
        '## The other tasks',
        table(rows, SCORES),
        'Language identification is a test of the voice, not of the language: each language has one reader and one '
        'microphone, and averaged spectra alone reach .99. Do not quote it as a result.',
        '## Retrieval, R@5',
        'A picture counts once, a caption and a recording once per language; what belongs to the same group of stamps '
        'is a hit. Chance is that of a random order.',
        table(rows, directions),
        '## Joint training against one task alone',
        against_single_tasks(rows),
    ]) + '\n'  # fmt: skip


def work(options: Options) -> None:
    """Trains what is missing and writes the page."""
    train_rows(options, lambda run, row, seed: train_and_predict(run, ARGUMENTS[row], seed))
    train, validation, test = (data.load_source('stamps', split) for split in ('train', 'validation', 'test'))
    symbols = test.class_names('category').index(SYMBOLS)
    _, categories, names = _columns(test)
    truth = dict(zip(names, categories, strict=True))
    clips, settings = tfidf(train, validation, test)
    rows = {'TF-IDF + logistic regression': [category_scores(clips, symbols)]}
    finished = []
    for name in ARGUMENTS:
        runs = [run for run in options.of_row(name) if (run / 'test.jsonl').exists()]
        rows |= {name: [run_scores(run, truth, symbols) for run in runs]} if runs else {}
        finished += runs
    options.out.write_text(page(rows, [*machines(finished), settings]))


if __name__ == '__main__':
    sys.exit(run_experiment(__doc__, work, rows=ARGUMENTS, out='docs/results/stamps.md'))
