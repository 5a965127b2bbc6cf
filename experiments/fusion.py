"""Every fusion on the stamps, over features of frozen towers; the best without some modalities, and from scratch.

    python -m mmtl_jax.train --config=configs/stamps.py --workdir=runs/stamps
    python -m mmtl_jax.export --workdir=runs/stamps --out=runs/towers
    python -m experiments.fusion --runs=runs/fusion --seeds=5 --out=docs/results/fusion.md

The first two make the tower of speech. The third trains what is missing in `--runs` (each run is the command of
configs/stamps_pretrained.py with a fusion and a seed), evaluates the best fusion with every subset of the modalities,
trains it on all but one, trains the best fusions with encoders from scratch (configs/stamps.py), and writes the page;
`--train=false` only reads what is there.
"""

import pathlib
import sys
from collections.abc import Mapping, Sequence

import numpy as np

from experiments.runs import (
    COSTS,
    DEVIATIONS,
    Options,
    call,
    cell,
    exceeds,
    least_table,
    machines,
    run_experiment,
    table,
    train_rows,
    train_run,
    training_costs,
)
from mmtl_jax import fusion
from mmtl_jax.core.files import read_json
from mmtl_jax.results import RESOURCES

CONFIG = 'configs/stamps_pretrained.py'
MODALITIES = ('image', 'caption', 'speech')
ALL = '_'.join(MODALITIES)
# Rows of the best fusion: share of the rows in which the fusion goes without each modality in training.
DROPOUT = {'best-without_dropout': 0.0, 'best-with_dropout': 0.3}
ROWS = (*MODALITIES, *fusion.__all__)
# Row of the best fusion trained on the other modalities alone -> the modality that it lacks.
REST = {f'rest-{"_".join(other for other in MODALITIES if other != name)}': name for name in MODALITIES}
# The best fusions, and `Concat`, with encoders from scratch.
FROM_SCRATCH = 5
SCRATCH_CONFIG = f'configs/stamps.py:{ALL}/category_attributes_retrieval'
SCRATCH_STEPS = 2000
SCRATCH_SEEDS = 3
SCORES = {
    'category accuracy': 'category/accuracy',
    'category macro-F1': 'category/macro_f1',
    'attributes macro-F1': 'attributes/macro_f1',
}
SPLIT = 'test'
RETRAINED = 'trained on the rest'
# Which standard deviation of two rows -> from that of each.
SPREADS = {'of either row': max, 'of the difference': np.hypot}
# The cost of an absence counts when it is more than this.
COUNTS = 0.01


def config_of(row: str, modalities: str = ALL) -> str:
    """Returns the config of a row: a modality by itself, or a fusion of several, by default of all."""
    return f'{CONFIG}:{row}' if row in MODALITIES else f'{CONFIG}:{modalities}/frozen/{row}'


def scores(run: pathlib.Path, split: str = SPLIT) -> dict[str, float]:
    """Returns what the table shows of a finished run."""
    summary = read_json(run / 'summary.json')
    found = {name: summary[split][key] for name, key in SCORES.items()}
    return found | training_costs(read_json(run / RESOURCES), summary['step'])


def best_fusions(options: Options) -> list[str]:
    """Returns the fusions by the mean accuracy of the category on validation, the highest first."""
    means = {
        row: np.mean([scores(run, 'validation')['category accuracy'] for run in options.of_row(row)])
        for row in fusion.__all__
        if options.of_row(row)
    }
    if not means:
        raise ValueError(f'{options.runs} holds no finished run of a fusion; train some first.')
    return sorted(means, key=means.get, reverse=True)


def from_scratch(ranked: Sequence[str]) -> list[str]:
    """Returns the fusions to train from scratch, of those in order of their accuracy."""
    return list(dict.fromkeys([*ranked[:FROM_SCRATCH], 'Concat']))


def subsets(run: pathlib.Path) -> dict:
    """Returns what a run does with each subset of its modalities, evaluated if that has not been done."""
    path = run / f'subsets-{SPLIT}.json'
    if not path.exists():
        call('mmtl_jax.evaluate', f'--workdir={run}', f'--split={SPLIT}', '--modalities=all-subsets')
    return read_json(path)


def gains(found: Mapping[str, Sequence[Mapping[str, float]]]) -> list[str]:
    """Returns a sentence for each score on which fusions beat the best single modality by two standard deviations.

    Both the larger deviation of the two rows counts and, more strictly, that of their difference.
    """
    sentences = []
    for score in SCORES:
        single = {row: [run[score] for run in found[row]] for row in MODALITIES if found.get(row)}
        fused = {row: [run[score] for run in found[row]] for row in fusion.__all__ if found.get(row)}
        if not single:
            continue
        best = max(single, key=lambda row: np.mean(single[row]))
        counts = []
        for which, spread in SPREADS.items():
            better = [row for row, values in fused.items() if exceeds(values, single[best], spread)]
            names = f' ({", ".join(better)})' if better else ''
            counts.append(
                f'{len(better) or "none"} of {len(fused)} fusions by more than {DEVIATIONS} standard deviations '
                f'{which}{names}'
            )
        sentences.append(
            f'On {score} the best single modality is {best}, {cell(single[best])}. It is beaten by '
            f'{", and by ".join(counts)}.'
        )
    return sentences


def subset_table(runs: Sequence[pathlib.Path]) -> str:
    """Returns the scores of a row's runs with every subset of the modalities."""
    found = [subsets(run)['subsets'] for run in runs]
    rows = {
        name.replace('_', ' + '): [
            {score: values['values'][key] for score, key in SCORES.items() if key in values['values']}
            for values in (each[name] for each in found)
        ]
        for name in found[0]
    }
    return table(rows, SCORES)


def absence_costs(run: pathlib.Path) -> dict[str, float]:
    """Returns how much accuracy of the category the absence of each modality costs at test time."""
    found = subsets(run)['subsets'].values()
    accuracy = {frozenset(each['modalities']): each['values'].get('category/accuracy') for each in found}
    everything = frozenset(MODALITIES)
    return {f'without {name}': accuracy[everything] - accuracy[everything - {name}] for name in MODALITIES}


def rest_costs(whole: Sequence[pathlib.Path], rest: Mapping[str, Sequence[pathlib.Path]]) -> list[dict[str, float]]:
    """Returns for each seed how much accuracy of the category a training without each modality costs.

    Args:
      whole: the runs with all modalities, by seed.
      rest: row of `REST` -> its runs, by seed.
    """
    accuracy = {
        f'without {REST[row]}': [scores(run)['category accuracy'] for run in runs] for row, runs in rest.items()
    }
    return [
        {name: scores(run)['category accuracy'] - values[seed] for name, values in accuracy.items()}
        for seed, run in enumerate(whole[: min(map(len, accuracy.values()))])
    ]


def dropout_part(runs: Mapping[str, Sequence[pathlib.Path]], rest: Mapping[str, Sequence[pathlib.Path]]) -> list[str]:
    """Returns what each modality's absence costs by the rows of `DROPOUT`, and how much of it has to be."""
    without, with_dropout = DROPOUT
    costs = {row: [absence_costs(run) for run in finished] for row, finished in runs.items()}
    costs[RETRAINED] = rest_costs(runs[without], rest)
    means = {row: {name: np.mean([each[name] for each in costs[row]]) for name in costs[row][0]} for row in costs}

    def left(row: str) -> str:
        counted = [name for name, cost in means[without].items() if cost > COUNTS]
        return ' and '.join(f'{means[row][name] / means[without][name]:.0%} {name}' for name in counted) or 'nothing'

    return [
        'What the absence of a modality costs at test time, in accuracy of the category, when the fusion went without '
        'each modality in no row of the training, and in 30 % of the rows; and what it costs a fusion that was trained '
        f'on the other modalities alone (`{CONFIG}:<modality>_<modality>/frozen/<fusion>`), which is what the modality '
        'is worth:',
        table(costs, means[without]),
        f'Of the costs above {COUNTS}, modality dropout leaves {left(with_dropout)}, and the training on the others '
        f'alone {left(RETRAINED)}.',
    ]


def worth_table(runs: Sequence[pathlib.Path]) -> str:
    """Returns each modality's Shapley value of each task's primary metric."""
    found = [subsets(run)['shapley'] for run in runs]
    rows = {name: [{task: each[task][name] for task in each} for each in found] for name in MODALITIES}
    return table(rows, list(found[0]))


def scratch_part(options: Options, ranked: Sequence[str]) -> list[str]:
    """Returns the paragraphs on encoders from scratch, none without a finished run."""
    rows = {row: options.of_row(f'scratch-{row}')[:SCRATCH_SEEDS] for row in from_scratch(ranked)}
    found = {row: [scores(run) for run in finished] for row, finished in rows.items() if finished}
    if not found:
        return []
    return [
        '## Encoders from scratch',
        f'The {FROM_SCRATCH} fusions with the highest accuracy on validation, and `Concat`, with no pretrained tower: '
        f'`python -m mmtl_jax.train --config={SCRATCH_CONFIG}/<fusion> --config.training.num_steps={SCRATCH_STEPS} '
        '--config.seed=<seed>`.',
        table(found, [*SCORES]),
        least_table(found, COSTS),
    ]


def page(options: Options, ranked: Sequence[str]) -> str:
    """Returns the results page; `ranked` are the fusions with a finished run, the best first."""
    best = ranked[0]
    runs = {row: options.of_row(row) for row in ROWS}
    found = {row: [scores(run) for run in finished] for row, finished in runs.items() if finished}
    without = {row: options.of_row(row) for row in DROPOUT}
    parts = [
        '# Results of the fusions on the stamps',
        f'Made by `python -m experiments.fusion --runs=runs/fusion --seeds={options.seeds} '
        '--out=docs/results/fusion.md`: mean ± standard deviation over the seeds, all clips of the test split, best '
        f'checkpoint by validation. Each run is `python -m mmtl_jax.train --config={CONFIG}:{ALL}/frozen/<fusion> '
        '--config.seed=<seed>`: features of frozen towers of picture and English caption and of the speech encoder '
        'that seed 0 of `configs/stamps.py` trained, 400 steps of 256 clips, the same settings for all; none was tuned '
        'but those of `Concat`. What a fusion learns by itself has the weight .1.',
        *machines(run for finished in (*runs.values(), *without.values()) for run in finished),
        table(found, [*SCORES]),
        *gains(found),
        least_table(found, COSTS),
        'The least over the seeds, for other work on the machine only adds to it; without compilation, evaluation and '
        'checkpoints. [What they cost](../fusion.md#what-they-cost) compares the fusions in turns in one process.',
        f'## Every subset of the modalities: {best}',
        'The fusion with the highest accuracy on validation, as the config has it, with `python -m mmtl_jax.evaluate '
        f'--split={SPLIT} --modalities=all-subsets`:',
        subset_table(runs[best]),
        'Shapley values of the primary metrics:',
        worth_table(runs[best]),
    ]
    rest = {row: options.of_row(row) for row in REST}
    if all(without.values()) and all(rest.values()):
        parts += dropout_part(without, rest)
    return '\n\n'.join(parts + scratch_part(options, ranked)) + '\n'


def work(options: Options) -> None:
    """Trains what is missing and writes the page."""
    train_rows(options, lambda run, row, seed: train_run(run, config_of(row), seed))
    ranked = best_fusions(options)
    if options.train:
        train_best(options, ranked)
    options.out.write_text(page(options, ranked))


def train_best(options: Options, ranked: Sequence[str]) -> None:
    """Trains what shows the best fusions more closely.

    These are the best with and without modality dropout, and on two of the modalities alone; and several from scratch.
    """
    for seed in range(options.seeds):
        for row, dropout in DROPOUT.items():
            changes = [f'--config.fusion.modality_dropout.{name}={dropout}' for name in MODALITIES]
            train_run(options.runs / f'{row}-{seed}', config_of(ranked[0]), seed, *changes)
        for row in REST:
            train_run(options.runs / f'{row}-{seed}', config_of(ranked[0], row.removeprefix('rest-')), seed)
    for seed in range(SCRATCH_SEEDS):
        for row in from_scratch(ranked):
            run, steps = options.runs / f'scratch-{row}-{seed}', f'--config.training.num_steps={SCRATCH_STEPS}'
            train_run(run, f'{SCRATCH_CONFIG}/{row}', seed, steps)


if __name__ == '__main__':
    sys.exit(run_experiment(__doc__, work, rows=ROWS, runs='runs/fusion', out='docs/results/fusion.md'))
