"""Evaluates a saved run: `python -m mmtl_jax.evaluate --workdir=runs/stamps --split=test`.

With `--modalities=all-subsets`, or one subset such as `--modalities=image_caption`, it is evaluated without the others;
with `--corruptions=image:noise,speech:snr`, with inputs that get worse.
"""

import pathlib
import sys
from collections.abc import Sequence

from absl import flags

from mmtl_jax.command import run_command
from mmtl_jax.core.files import read_json, write_json_atomic
from mmtl_jax.experiment import Experiment
from mmtl_jax.results import refresh_report
from mmtl_jax.robustness import (
    baseline_entries,
    chosen_corruptions,
    chosen_levels,
    corruption_entry,
    robustness_lines,
    write_robustness,
)
from mmtl_jax.run import saved_experiment, trained
from mmtl_jax.subsets import (
    ALL_SUBSETS,
    asked_values,
    chosen_subsets,
    modality_worth,
    subset_lines,
    worth_lines,
    write_subsets,
)
from mmtl_jax.tasks import Task
from mmtl_jax.training.evaluation import evaluate as evaluate_batches
from mmtl_jax.training.evaluation import evaluate_subsets
from mmtl_jax.training.mesh import split as split_rows
from mmtl_jax.training.progress import stderr_console


def evaluate(workdir: pathlib.Path, split: str) -> dict[str, float]:
    """Evaluates the best checkpoint of a run on a split; prints the values and keeps them in `summary.json`.

    Raises:
      ValueError: the workdir holds no trained run, or there is no such split.
    """
    with trained(workdir, saved_experiment(workdir)) as (run, state, host):
        values = run.evaluate(state, split).values
    print_values(values)
    summary_path = workdir / 'summary.json'
    summary = read_json(summary_path) if summary_path.exists() else {'best_step': host.best_step}
    write_json_atomic(summary_path, {**summary, split: values})
    refresh_report(workdir, run.experiment, host.best_step)
    return values


def evaluate_modalities(workdir: pathlib.Path, split: str, modalities: str) -> None:
    """Evaluates the best checkpoint with subsets of its modalities alone; prints and keeps the table.

    Args:
      workdir: the run directory.
      split: of the data.
      modalities: 'all-subsets', or the names of one subset joined by '_'.

    Raises:
      ValueError: the workdir holds no trained run, there is no such split, or no such modality.
    """
    experiment = saved_experiment(workdir)
    names = sorted(experiment.model.encoders)
    subsets = chosen_subsets(modalities, names)
    with trained(workdir, experiment) as (run, state, host):
        batches = experiment.inputs.eval_batches(split, split_rows(run.mesh))
        found = evaluate_subsets(run.eval_step, state.inference, batches, experiment.tasks, subsets)
    tasks = scored(experiment)
    worth = modality_worth(tasks, names, found) if modalities == ALL_SUBSETS else None
    if worth is None:
        print_values(asked_values(tasks, subsets[0], found[subsets[0]]))
    else:
        print_table(subset_lines(tasks, found))
        print()
        print_table(worth_lines(tasks, names, worth))
    written = write_subsets(workdir, split, host.best_step, tasks, names, found, worth)
    report_files([*written, *refresh_report(workdir, experiment, host.best_step)])


def evaluate_corruptions(
    workdir: pathlib.Path,
    split: str,
    corruptions: str,
    levels: Sequence[str],
    baseline: pathlib.Path | None = None,
) -> None:
    """Evaluates the best checkpoint with inputs that get worse; prints, keeps and draws the curves.

    Args:
      workdir: the run directory.
      split: of the data.
      corruptions: `<modality>:<corruption>`, several joined by commas.
      levels: numbers from 0 to 1, as text.
      baseline: directory of a run that was evaluated with the same corruptions and levels, for effective robustness.

    Raises:
      ValueError: the workdir holds no trained run, or there is no such split, modality, corruption or level.
    """
    experiment = saved_experiment(workdir)
    chosen = chosen_corruptions(corruptions, sorted(experiment.model.encoders))
    steps = chosen_levels(levels)
    theirs = baseline_entries(baseline, split, [':'.join(pair) for pair in chosen], steps)
    inputs = {pair: experiment.inputs.corrupt_input(split, *pair) for pair in chosen}
    tasks, entries = scored(experiment), {}
    with trained(workdir, experiment) as (run, state, host):
        clean = run.evaluate(state, split).values
        for (modality, corruption), corrupt in inputs.items():
            name, evaluations = f'{modality}:{corruption}', [clean]
            for level in steps[1:]:
                batches = experiment.inputs.eval_batches(split, split_rows(run.mesh), corrupt.at(level))
                found = evaluate_batches(run.eval_step, state.inference, batches, experiment.tasks)
                evaluations.append(found.values)
                stderr_console().print(f'{name} at level {level:g} is done.')
            transform = corrupt.spec['name']
            entries[name] = corruption_entry(tasks, modality, transform, steps, evaluations, theirs.get(name))
    print_table(robustness_lines(entries))
    written = write_robustness(workdir, split, host.best_step, tasks, entries)
    report_files([*written, *refresh_report(workdir, experiment, host.best_step)])


def scored(experiment: Experiment) -> list[Task]:
    """Returns the tasks that are measured by more than a loss."""
    return [task for task in experiment.tasks if task.primary]


def print_values(values: dict[str, float]) -> None:
    """Prints one value a line."""
    for name, value in sorted(values.items()):
        print(f'{name} {value:.4f}')


def print_table(lines: Sequence[Sequence[str]]) -> None:
    """Prints lines of cells in columns, the first one to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for first, *others in lines:
        print('  '.join([first.ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(others, widths[1:], strict=True))]))


def report_files(paths: Sequence[pathlib.Path]) -> None:
    """Says on stderr where the results are."""
    stderr_console().print(f'Written: {", ".join(map(str, paths))}.')


def main() -> int:
    """Runs the command line; returns the exit code."""
    values = flags.FlagValues()
    flags.DEFINE_string('workdir', None, 'Directory of a trained run.', flag_values=values)
    flags.DEFINE_string('split', 'validation', 'Split to evaluate: train, validation or test.', flag_values=values)
    flags.DEFINE_string(
        'modalities',
        None,
        'Evaluate with these alone: names joined by "_", such as image_caption, or all-subsets for a table of all.',
        flag_values=values,
    )
    flags.DEFINE_string(
        'corruptions',
        None,
        'Evaluate with inputs that get worse: <modality>:<corruption>, such as image:noise, several joined by commas.',
        flag_values=values,
    )
    flags.DEFINE_list(
        'levels', ['0', '0.25', '0.5', '0.75', '1'], 'Of the corruptions, from 0 (none) to 1.', flag_values=values
    )
    flags.DEFINE_string(
        'baseline', None, 'Directory of a run to compare the curves with, for effective robustness.', flag_values=values
    )

    def work() -> None:
        workdir = pathlib.Path(values.workdir)
        if values.modalities is not None and values.corruptions is not None:
            raise ValueError('--modalities and --corruptions are two evaluations; give one of them a time.')
        if values.baseline is not None and values.corruptions is None:
            raise ValueError('--baseline goes with --corruptions; give these too.')
        if values.corruptions is not None:
            baseline = None if values.baseline is None else pathlib.Path(values.baseline)
            evaluate_corruptions(workdir, values.split, values.corruptions, values.levels, baseline)
        elif values.modalities is not None:
            evaluate_modalities(workdir, values.split, values.modalities)
        else:
            evaluate(workdir, values.split)

    return run_command(__doc__, values, work)


if __name__ == '__main__':
    sys.exit(main())
