"""Every sharing scheme on the scenes: category, boxes and foreground in one model, beside a network for each task.

    python -m experiments.sharing --runs=runs/sharing --steps=600 --out=docs/results/sharing.md

trains what is missing in `--runs` (each run is the command of configs/stamp_scenes.py with a task or a scheme, a seed
and the number of steps), and writes the page, with what the first run of `Hard` makes of held-out scenes in
docs/figures/scenes_predictions.png. `--train=false` only reads what is there.
"""

import pathlib
import sys
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from configs import stamp_scenes
from experiments.runs import (
    DEVIATIONS,
    Options,
    exceeds,
    least_table,
    machines,
    run_experiment,
    table,
    train_rows,
    train_run,
    training_costs,
)
from mmtl_jax import data, sharing
from mmtl_jax.core.files import read_json, write_bytes_atomic
from mmtl_jax.metrics import delta_m
from mmtl_jax.reporting import scene_sheet
from mmtl_jax.reporting.style import to_png
from mmtl_jax.results import RESOURCES, chosen_rows, scene
from mmtl_jax.run import saved_experiment, trained

CONFIG = 'configs/stamp_scenes.py'
TASKS = ('category', 'objects', 'foreground')
ROWS = (*TASKS, *sharing.__all__)
SINGLE = 'single tasks'
STEPS = 600
EVALUATIONS = 3
SPLIT = 'test'
# Key in summary.json -> name of the score.
SCORES = {
    'category/accuracy': 'category accuracy',
    'category/macro_f1': 'category macro-F1',
    'objects/objects_ap50': 'boxes AP50',
    'objects/objects_ap': 'boxes AP',
    'objects/ap50': 'AP50 with classes',
    'objects/ap': 'AP with classes',
    'foreground/miou': 'foreground mIoU',
}
# The primary metric of each task; higher is better for all.
PRIMARIES = ('category/accuracy', 'objects/objects_ap50', 'foreground/miou')
DELTA = 'Δm, % ↓'
OF_SCHEME = 'of the scheme'
COSTS = ('parameters', OF_SCHEME, 'ms a step', 'training, s')
DRAWN = 'Hard-0'
FIGURE = 'scenes_predictions.png'
NUM_SCENES = 4


def config_of(row: str) -> str:
    """Returns the config of a row: a task by itself, or all tasks under a sharing scheme."""
    return f'{CONFIG}:{row}' if row in TASKS else f'{CONFIG}:{"_".join(TASKS)}/{row}'


def train(run: pathlib.Path, row: str, seed: int, steps: int) -> None:
    """Trains a run, if that has not been done."""
    budget = {'num_steps': steps, 'eval_every': steps // EVALUATIONS}
    train_run(run, config_of(row), seed, *(f'--config.training.{name}={value}' for name, value in budget.items()))


def values_of(run: pathlib.Path) -> dict[str, float]:
    """Returns the scores of a finished run by their keys, and what it cost."""
    summary, used = read_json(run / 'summary.json'), read_json(run / RESOURCES)
    found = {key: summary[SPLIT][key] for key in SCORES if key in summary[SPLIT]}
    return found | {OF_SCHEME: used['parameters'].get('sharing', 0)} | training_costs(used, summary['step'])


def num_steps(runs: Iterable[pathlib.Path]) -> int:
    """Returns how many steps the runs were trained for.

    Raises:
      ValueError: they differ.
    """
    found = {read_json(run / 'config.json')['training']['num_steps']: run for run in runs}
    if len(found) != 1:
        budgets = ', '.join(f'{found[steps]} {steps} steps' for steps in sorted(found))
        raise ValueError(f'the runs have different budgets: {budgets}; give those of one budget a folder of their own.')
    return found.popitem()[0]


def single_tasks(found: Mapping[str, Sequence[Mapping[str, float]]]) -> list[dict[str, float]]:
    """Returns the values of the networks of single tasks as those of one system, seed by seed; costs are summed."""
    seeds = zip(*(found.get(task, ()) for task in TASKS), strict=False)
    return [
        {key: sum(run[key] for run in runs) if key in COSTS else value for run in runs for key, value in run.items()}
        for runs in seeds
    ]


def shown(runs: Sequence[Mapping[str, float]], baselines: Mapping[str, float]) -> list[dict[str, float]]:
    """Returns what the first table shows of the runs of a row; no delta without baselines."""
    return [
        {
            **{name: 100 * run[key] for key, name in SCORES.items()},
            **({DELTA: delta_m(run, baselines, dict.fromkeys(PRIMARIES, True))} if baselines else {}),
        }
        for run in runs
    ]


def page(found: Mapping[str, Sequence[Mapping[str, float]]], steps: int, facts: Sequence[str], figure: bool) -> str:
    """Returns the results page of the `values_of` the runs of each row."""
    alone = single_tasks(found)
    baselines = {key: float(np.mean([run[key] for run in alone])) for key in PRIMARIES} if alone else {}
    schemes = {row: found[row] for row in sharing.__all__ if found.get(row)}
    scores = {row: shown(runs, baselines) for row, runs in {SINGLE: alone, **schemes}.items()}
    costs = {**{f'{task} alone': found.get(task, []) for task in TASKS}, SINGLE: alone, **schemes}
    parts = [
        '# Results of the sharing schemes on the scenes',
        f'Made by `python -m experiments.sharing --runs=runs/sharing --steps={steps} --out=docs/results/sharing.md`: '
        '500 test scenes of sprites that occur in no training scene, mean ± standard deviation over the seeds, best '
        f'checkpoint by validation. Each run is `python -m mmtl_jax.train --config={CONFIG}:{"_".join(TASKS)}/<scheme> '
        f'--config.seed=<seed> --config.training.num_steps={steps} --config.training.eval_every={steps // EVALUATIONS}`'
        ', or with one task for the three and no scheme: the same encoder and heads, steps of 32 scenes, optimizer and '
        'equal weights for all. The schemes have their defaults; none was tuned. Tokens and maps of the picture go '
        'through the scheme, from which all three heads read.',
        *facts,
        table(scores, [*SCORES.values(), DELTA], digits=1),
        'In percent. Single tasks: a network for each task. Boxes: average precision with the classes left out, AP50 '
        'at an overlap of .5 and AP the mean over .5 to .95, as on COCO; with classes, a box counts only if its class '
        'is right. Δm as in Nash-MTL: the mean drop of category accuracy, boxes AP50 and foreground mIoU against the '
        'means of the single tasks; lower is better. With one metric a task, Δp as in LibMTL is the same with the '
        'other sign. The spread of the first row is what chance alone makes.',
        *better(scores),
        least_table(costs, COSTS),
        'The least over the seeds, since other work on the machine only adds to it. Training is without compilation, '
        'evaluation and checkpoints; single tasks have the sum of the three networks. `Hard` hands on what it gets and '
        'has no parameters.',
    ]
    if figure:
        parts += [
            f'![Predicted boxes and masks over held-out scenes, beside the truth](../figures/{FIGURE})',
            f'What seed 0 of `{DRAWN.split("-")[0]}` makes of test scenes, evenly spread over the split.',
        ]
    return '\n\n'.join(parts) + '\n'


def better(scores: Mapping[str, Sequence[Mapping[str, float]]]) -> list[str]:
    """Returns what can be said of the schemes against the single tasks, task by task; nothing without these."""
    schemes = [row for row in scores if row != SINGLE and DELTA in scores[row][0]]
    if not schemes:
        return []
    found = []
    for name in map(SCORES.get, PRIMARIES):
        values = {row: [run[name] for run in scores[row]] for row in (SINGLE, *schemes)}
        above = [row for row in schemes if exceeds(values[row], values[SINGLE], max)]
        below = [row for row in schemes if exceeds(values[SINGLE], values[row], max)]
        found.append(f'{name} better {", ".join(above) or "none"}, worse {", ".join(below) or "none"}')
    return [
        f'By more than {DEVIATIONS} standard deviations, the larger of the two rows, these differ from single tasks: '
        f'in {"; in ".join(found)}.'
    ]


def labels_of_scenes() -> list[int]:
    """Returns the categories of the test scenes, as they stand in the data."""
    return data.read_values(data.load_source('stamp_scenes', SPLIT), stamp_scenes.TARGETS['category']['key'])


def most_frequent(labels: Sequence[int]) -> str:
    """Returns a sentence about what naming the most frequent category reaches; below 0 is no label."""
    labelled = np.asarray(labels)[np.asarray(labels) >= 0]
    share = np.bincount(labelled).max() / len(labelled)
    return (
        f'The most frequent category makes up {100 * share:.1f} % of the test scenes: an accuracy near this says that '
        'the category was not learnt in these steps, and that its part of Δm is chance.'
    )


def draw(run: pathlib.Path) -> bytes:
    """Returns a PNG of what a run predicts on scenes of the test split, beside the truth, drawn once."""
    path = run / FIGURE
    if not path.exists():
        with trained(run, saved_experiment(run)) as (opened, state, _):
            found = opened.evaluate(state, SPLIT)
            places = [found.rows.index(row) for row in chosen_rows(found, NUM_SCENES)]
            scenes = [scene(opened.experiment, SPLIT, found, place) for place in places]
        write_bytes_atomic(path, to_png(scene_sheet(scenes)))
    return path.read_bytes()


def work(options: Options) -> None:
    """Trains what is missing, writes the page, and the figure into the folder `figures` beside that of the page."""
    train_rows(options, lambda run, row, seed: train(run, row, seed, options.steps or STEPS))
    runs = {row: options.of_row(row) for row in ROWS}
    finished = [run for of_row in runs.values() for run in of_row]
    if not finished:
        raise ValueError(f'{options.runs} holds no finished run; train some first.')
    steps = num_steps(finished)
    drawn = options.runs / DRAWN
    if drawn in finished:
        write_bytes_atomic(options.out.parent.parent / 'figures' / FIGURE, draw(drawn))
    found = {row: [values_of(run) for run in of_row] for row, of_row in runs.items()}
    facts = [*machines(finished), most_frequent(labels_of_scenes())]
    options.out.write_text(page(found, steps, facts, drawn in finished))


if __name__ == '__main__':
    sys.exit(run_experiment(__doc__, work, rows=ROWS, runs='runs/sharing', out='docs/results/sharing.md', steps=STEPS))
