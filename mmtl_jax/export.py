"""Writes a trained run as safetensors: `python -m mmtl_jax.export --workdir=runs/stamps --out=towers`.

What is in `--out` then: a folder for each modality, whose encoder a config begins with by `'pretrained': <folder>`, and
`model.safetensors` with all parameters by their paths. An encoder that began with published weights goes back to the
names of its original library, which loads the folder.
"""

import pathlib
import sys
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from absl import flags

from mmtl_jax.command import run_command
from mmtl_jax.core.tree import flatten_with_paths
from mmtl_jax.core.types import PyTree
from mmtl_jax.encoders import LoRA
from mmtl_jax.experiment import Experiment
from mmtl_jax.pretrained import export_encoder, load, write_weights
from mmtl_jax.pretrained.from_spec import ADAPTERS, PRETRAINED
from mmtl_jax.pretrained.weights import SAFETENSORS
from mmtl_jax.run import saved_experiment, trained
from mmtl_jax.training.progress import stderr_console


def export(workdir: pathlib.Path, out: pathlib.Path) -> None:
    """Writes the best checkpoint of a run: every encoder by itself, and the whole model.

    Raises:
      ValueError: the workdir holds no trained run, `out` exists, or published weights that an encoder began with are
        not there any more.
    """
    if out.exists():
        raise ValueError(f'--out={out} exists; choose another name, nothing is overwritten.')
    experiment = saved_experiment(workdir)
    with trained(workdir, experiment) as (_, state, _):
        variables = jax.tree.map(np.asarray, state.inference)
    for modality in experiment.model.encoders:
        part = {name: tree['encoders'][modality] for name, tree in variables.items() if modality in _encoders(tree)}
        export_modality(experiment, modality, part, out / modality)
        stderr_console().print(f'{out / modality} holds the encoder of {modality}.')
    names = {name.replace('/', '.'): leaf for name, leaf in flatten_with_paths(variables).items()}
    write_weights(out / SAFETENSORS, {name.removeprefix('params.'): leaf for name, leaf in names.items()})


def export_modality(
    experiment: Experiment, modality: str, variables: Mapping[str, PyTree], folder: pathlib.Path
) -> None:
    """Writes one encoder, with adapters merged into its weights."""
    module, spec = experiment.model.encoders[modality], experiment.config['encoders'][modality]
    if isinstance(module, LoRA):
        merged = {'params': module.merge(variables['params'])}
        variables = {name: tree['base'] for name, tree in variables.items() if name != 'params'} | merged
        module = module.encoder
    if isinstance(spec, Mapping) and spec.get(PRETRAINED) is not None:
        arguments = {key: value for key, value in spec.items() if key not in (PRETRAINED, ADAPTERS)}
        tower = load(arguments.pop('name'), spec[PRETRAINED], **arguments)
        tower.export(folder, variables['params'], variables.get('batch_stats'))
    else:
        example = experiment.inputs.empty_batches()[0].inputs[modality]
        export_encoder(folder, module, variables, example, input=_described(experiment, modality))


def _described(experiment: Experiment, modality: str) -> dict[str, Any]:
    """Returns what a reader of an exported encoder must know of its input: the key, and the transforms of the data."""
    data = experiment.config['data']
    return {'field': data['inputs'][modality], 'steps': data.get('steps', ()), 'eval_steps': data.get('eval_steps', ())}


def _encoders(tree: PyTree) -> PyTree:
    return tree.get('encoders', {}) if isinstance(tree, Mapping) else {}


def main() -> int:
    """Runs the command line; returns the exit code."""
    values = flags.FlagValues()
    workdir = flags.DEFINE_string('workdir', None, 'Directory of a trained run.', flag_values=values)
    out = flags.DEFINE_string('out', None, 'Folder to write; it must not exist.', flag_values=values)
    return run_command(
        __doc__,
        values,
        lambda: export(pathlib.Path(workdir.value), pathlib.Path(out.value)),
        required=('workdir', 'out'),
    )


if __name__ == '__main__':
    sys.exit(main())
