"""The results on the stamps: joint, single-task and single-modality runs of equal budget beside a TF-IDF baseline.

    python -m experiments.stamps --runs=runs/results --out=docs/results/stamps.md

trains what is missing in `--runs` (each run is the flagship's command with an argument and a seed), predicts the test
split, and writes the table; `--train=false` only reads the runs that are there.
"""

import dataclasses
import json
import pathlib
import subprocess
import sys
from collections.abc import Iterable, Sequence

import numpy as np
from absl import app, flags
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

from mmtl_jax import data
from mmtl_jax.core.files import read_json

RUNS = flags.DEFINE_string('runs', 'runs/results', 'Directory of the runs.')
OUT = flags.DEFINE_string('out', 'docs/results/stamps.md', 'Page to write.')
SEEDS = flags.DEFINE_integer('seeds', 3, 'Seeds per row.')
TRAIN = flags.DEFINE_bool('train', True, 'Train what is missing.')
ROWS = flags.DEFINE_list('rows', None, 'Names of the rows to train; all by default.')

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


def tfidf_clips(train: data.Source, test: data.Source) -> list[Clip]:
    """Returns what logistic regression on TF-IDF of the caption's characters 1 to 4 answers."""
    keys = ['caption', 'category', 'id']
    train, test = train.select(keys), test.select(keys)
    texts, labels, _ = _columns(train, keys)
    features = TfidfVectorizer(analyzer='char', ngram_range=(1, 4), sublinear_tf=True)
    model = LogisticRegression(C=10.0, max_iter=2000).fit(features.fit_transform(texts), labels)
    texts, labels, names = _columns(test, keys)
    probabilities = np.zeros((len(texts), 12))
    probabilities[:, model.classes_] = model.predict_proba(features.transform(texts))
    return [Clip(_stem(n), label, p) for n, label, p in zip(names, labels, probabilities, strict=True)]


def _columns(source: data.Source, keys: Sequence[str]) -> list[list]:
    examples = [source[row] for row in range(len(source))]
    return [[example[key] for example in examples] for key in keys]


def _stem(name: str) -> str:
    """Returns the stamp of an example's id, 'language stem'."""
    return name.split(' ', 1)[1]


def run_scores(run: pathlib.Path, truth: dict[str, int], symbols: int) -> dict[str, float]:
    """Returns the test scores of a finished run."""
    values = read_json(run / 'summary.json')['test']
    scores = {name: values[key] for name, key in SCORES.items() if key in values}
    retrieval = {name: value for name, value in values.items() if '_to_' in name and name.endswith('_r5')}
    if retrieval:
        scores['worst R@5 over chance'] = min(value / values[f'{name}_chance'] for name, value in retrieval.items())
    predictions = [json.loads(line) for line in (run / 'test.jsonl').read_text().splitlines()]
    if 'category' in predictions[0]:
        clips = [
            Clip(_stem(line['id']), truth[line['id']], np.array(line['category']['output']['probabilities']))
            for line in predictions
        ]
        scores |= category_scores(clips, symbols)
    return scores


SCORES = {
    'character error rate': 'transcript/cer',
    'language accuracy': 'language/accuracy',
    'attributes macro-F1': 'attributes/macro_f1',
    'mean R@5': 'retrieval/r5',
    'mean R@5 by chance': 'retrieval/r5_chance',
}


def train_run(run: pathlib.Path, argument: str, seed: int) -> None:
    """Trains a run and predicts the test split, if that has not been done."""
    config = f'configs/stamps.py:{argument}' if argument else 'configs/stamps.py'
    if not (run / 'summary.json').exists():
        _call('mmtl_jax.train', f'--config={config}', f'--config.seed={seed}', f'--workdir={run}')
    if not (run / 'test.jsonl').exists():
        _call('mmtl_jax.predict', f'--workdir={run}', '--split=test', f'--out={run}/test.jsonl')


def _call(module: str, *arguments: str) -> None:
    subprocess.run([sys.executable, '-m', module, *arguments], check=True)


def table(rows: dict[str, list[dict[str, float]]], names: Iterable[str]) -> str:
    """Returns a Markdown table of mean and standard deviation over the seeds."""
    names = [name for name in names if any(name in scores for runs in rows.values() for scores in runs)]
    lines = ['| run | seeds | ' + ' | '.join(names) + ' |', '|---' * (len(names) + 2) + '|']
    for row, runs in rows.items():
        cells = [_cell([scores[name] for scores in runs if name in scores]) for name in names]
        if any(cells):
            lines.append(f'| {row} | {len(runs)} | ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


def _cell(values: Sequence[float]) -> str:
    if not values:
        return ''
    spread = f' ± {np.std(values, ddof=1):.3f}' if len(values) > 1 else ''
    return f'{np.mean(values):.3f}{spread}'


def page(rows: dict[str, list[dict[str, float]]], facts: Sequence[str]) -> str:
    """Returns the results page."""
    kinds = [f'{what}{which}' for what in ('clip', 'stamp') for which in ('', ' without symbols')]
    category = [f'{kind} {measure}' for kind in kinds for measure in ('accuracy', 'macro-F1')]
    return '\n\n'.join([
        '# Results on the Tux Paint stamps',
        'Made by `python -m experiments.stamps --runs=runs/results --out=docs/results/stamps.md`; test split, mean ± '
        'standard deviation over seeds, best checkpoint by validation. All runs take the same number of steps.',
        *facts,
        '## Category',
        table(rows, category),
        '## The other tasks',
        table(rows, [*SCORES, 'worst R@5 over chance']),
        'Language identification is a test of the voice, not of the language: each language has one reader and one '
        'microphone, and averaged spectra alone reach .99. Do not quote it as a result.',
    ]) + '\n'  # fmt: skip


def main(_: list[str]) -> None:
    """Trains what is missing and writes the page."""
    folder = pathlib.Path(RUNS.value)
    train, test = (data.load_source('stamps', split) for split in ('train', 'test'))
    symbols = test.class_names('category').index(SYMBOLS)
    labels = test.select(['id', 'category'])
    truth = {example['id']: example['category'] for example in (labels[row] for row in range(len(labels)))}
    if TRAIN.value:
        for seed in range(SEEDS.value):
            for name in ROWS.value or ARGUMENTS:
                train_run(folder / f'{name}-{seed}', ARGUMENTS[name], seed)
    rows = {'TF-IDF and logistic regression': [category_scores(tfidf_clips(train, test), symbols)]}
    for name in ARGUMENTS:
        runs = [folder / f'{name}-{seed}' for seed in range(SEEDS.value)]
        rows[name] = [run_scores(run, truth, symbols) for run in runs if (run / 'test.jsonl').exists()]
    pathlib.Path(OUT.value).write_text(page({name: runs for name, runs in rows.items() if runs}, facts(folder)))


def facts(folder: pathlib.Path) -> list[str]:
    """Returns what the runs say about the machine."""
    environments = {
        (read_json(run / 'environment.json')['device_kind'], read_json(run / 'environment.json')['packages']['jax'])
        for run in folder.iterdir()
        if (run / 'summary.json').exists()
    }
    return [f'Machine: {kind}; jax {version}.' for kind, version in sorted(environments)]


if __name__ == '__main__':
    app.run(main)
