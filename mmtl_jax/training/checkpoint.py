"""Checkpoints of everything, through orbax: the state on the devices and what the host remembers beside it."""

import dataclasses
import json
import logging
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from mmtl_jax.core.files import explain_full_disk
from mmtl_jax.core.tree import path_string
from mmtl_jax.core.types import PyTree

BEST = 'best_value'


class Checkpoints:
    """The checkpoints of one run: the latest `keep`, and the best by a named metric.

    A save is atomic: a process that is killed while it saves leaves the previous checkpoint as the latest.
    """

    def __init__(self, directory: pathlib.Path, *, keep: int = 1, higher_is_better: bool = True):
        """Opens `directory`, which need not exist.

        Args:
          directory: where the checkpoints stand, one folder a step.
          keep: how many of the latest are kept.
          higher_is_better: the direction of the value given to `save`.
        """
        logging.getLogger('absl').setLevel(logging.CRITICAL)  # orbax reports each file that it touches
        policies = ocp.training.preservation_policies
        self._checkpointer = ocp.training.Checkpointer(
            directory.absolute(),
            save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
            preservation_policy=policies.AnyPreservationPolicy(
                [
                    policies.LatestN(keep),
                    policies.BestN(
                        get_metric_fn=lambda metrics: metrics[BEST],
                        reverse=not higher_is_better,
                        n=1,
                        keep_checkpoints_without_metrics=False,
                    ),
                ]
            ),
            cleanup_tmp_directories=True,
        )
        self.directory = directory

    def __enter__(self) -> 'Checkpoints':
        return self

    def __exit__(self, *unused) -> None:
        self._checkpointer.close()

    @property
    def steps(self) -> list[int]:
        """The steps that have a checkpoint, ascending."""
        return [checkpoint.step for checkpoint in self._checkpointer.checkpoints]

    @property
    def latest(self) -> int | None:
        """The step of the latest checkpoint."""
        return self.steps[-1] if self.steps else None

    def save(self, step: int, state: PyTree, host: Mapping[str, Any], value: float | None) -> None:
        """Saves `state` and the JSON-able `host` at `step`; `value` is the metric by which the best is kept.

        Raises:
          OSError: the disk is full; earlier checkpoints are untouched.
        """
        metrics = None if value is None else {BEST: value}
        with explain_full_disk(self.directory):
            self._checkpointer.save(
                step, _raw_keys(state), metrics=metrics, custom_metadata={'host': json.dumps(host)}, overwrite=True
            )

    def load(self, step: int, like: PyTree) -> tuple[PyTree, dict[str, Any]]:
        """Returns the state and the host's part saved at `step`.

        Args:
          step: one of `steps`.
          like: abstract state with shapes, dtypes and shardings.

        Raises:
          ValueError: the checkpoint is of another model, or broken.
        """
        try:
            metadata = self._checkpointer.metadata(step)
            _check_same_model(metadata.metadata, like, f'{self.directory}/{step}')
            host = json.loads(metadata.custom_metadata['host'])
            state = self._checkpointer.load(step, _raw_keys(like))
        except (OSError, KeyError, json.JSONDecodeError, ocp.errors.InvalidLayoutError) as error:
            raise ValueError(
                f'the checkpoint {self.directory}/{step} is broken ({_first_line(error)}); delete that folder to '
                'continue from an earlier checkpoint.'
            ) from error
        return _wrapped_keys(state, like), host


def _check_same_model(saved: PyTree, like: PyTree, where: str) -> None:
    """Raises a `ValueError` naming the first leaf in which a checkpoint differs from the expected state."""
    expected = {path_string(path): leaf.shape for path, leaf in _leaves(_raw_keys(like))}
    found = {path_string(path): tuple(leaf.shape) for path, leaf in _leaves(saved)}
    if not found:
        raise ocp.errors.InvalidLayoutError('its description of the state is empty')
    for path in sorted(expected.keys() | found.keys()):
        if expected.get(path) != found.get(path):
            raise ValueError(
                f'the checkpoint {where} is of another model: {path} has the shape {found.get(path, "(absent)")} there '
                f'and {expected.get(path, "(absent)")} in this config; use the workdir of this config, or a new one.'
            )


def _leaves(tree: PyTree) -> list:
    return jax.tree_util.tree_leaves_with_path(tree)


def _raw_keys(state: PyTree) -> dict[str, PyTree]:
    """Returns the state as a dict of its fields, with the random key as plain integers, which any format can hold."""
    fields = {
        field.name: getattr(state, field.name)
        for field in dataclasses.fields(state)
        if field.metadata.get('pytree_node', True)
    }
    key = fields['key']
    if isinstance(key, jax.ShapeDtypeStruct):
        raw = jax.eval_shape(jax.random.key_data, key)
        return {**fields, 'key': jax.ShapeDtypeStruct(raw.shape, raw.dtype, sharding=key.sharding)}
    return {**fields, 'key': jax.random.key_data(key)}


def _wrapped_keys(fields: dict[str, PyTree], like: PyTree) -> PyTree:
    return like.replace(**{**fields, 'key': jax.random.wrap_key_data(fields['key'])})


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
