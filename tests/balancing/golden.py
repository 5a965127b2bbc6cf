"""Recorded values of published implementations, float64, in golden.npz.

Of LibMTL 4336804 ('libmtl'), TorchJD 0.8.1+dev 46962c2 ('torchjd08') and 0.17.0+dev 862baed ('torchjd17'), and the
official code of Nash-MTL cce1840 ('nashmtl') and FAMO 0a6ad06 ('famo'): what their own code computes on the matrices
and the sequence below. 'reference' is no library: solutions of the defining optimisation problems by independent
solvers, checked against their own optimality conditions. The parts differ on purpose in convention (mean or sum,
rescaling, start).

Arrays are named `<part>/<method>[<hyperparameters>]/<target>/<array>`. The target is a matrix of `MATRICES` (Jacobian
and losses, T from 2 to 5), or `s3`, a sequence of 20 steps, whose arrays lead with the step.

agg is the direction, weights are such that it is J^T weights (weights_lstsq: recovered from it by least squares), head
is the factor on the gradient of task-own parameters, param and logits are learned scales before the step (moved by SGD
of rate 0.1 where learned by gradient), U and z are the uniform and normal numbers drawn. Methods, hyperparameters and
arrays that no test reads are left out.
"""

import itertools
import pathlib
import re
from typing import NamedTuple

import numpy as np

NAME = re.compile(r'(?P<part>\w+)/(?P<method>\w+)(?:\[(?P<hyperparameters>.*)\])?/(?P<target>\w+)/(?P<array>\w+)')


def read() -> dict[str, np.ndarray]:
    """Returns the arrays by name; the file holds all their values in one row, and a line for each name and shape."""
    with np.load(pathlib.Path(__file__).with_suffix('.npz')) as file:
        names, lines, values = str(file['names']).split('\n'), str(file['shapes']).split('\n'), file['values']
    shapes = [tuple(map(int, filter(None, line.split(',')))) for line in lines]
    ends = itertools.accumulate(int(np.prod(shape)) for shape in shapes)
    return {
        name: values[end - int(np.prod(shape)) : end].reshape(shape)
        for name, shape, end in zip(names, shapes, ends, strict=True)
    }


def _named(prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): array for name, array in ARRAYS.items() if name.startswith(prefix)}


ARRAYS = read()
JACOBIANS = _named('J/')
LOSSES = _named('losses/')
MATRICES = tuple(JACOBIANS)
# losses [20, 3] and post [20, 3], those after the step; J [20, 3, 12]; l3 [20, 3, 3] and J3 [20, 3, 3, 12] are of three
# mini-batches, which come before the tasks.
SEQUENCE = _named('seq/s3/')


class Golden(NamedTuple):
    """What one implementation computes on one matrix or sequence: the arrays by name."""

    part: str
    method: str
    hyperparameters: str
    target: str
    arrays: dict[str, np.ndarray]


def goldens(part: str, method: str, hyperparameters: str = '', target: str | None = None) -> list[Golden]:
    """Returns the recorded values of a method, on every target or on one.

    Raises:
      KeyError: there are none, so that a test cannot pass on nothing.
    """
    found: dict[str, dict[str, np.ndarray]] = {}
    for match in filter(None, map(NAME.fullmatch, ARRAYS)):
        same = (match['part'], match['method'], match['hyperparameters'] or '') == (part, method, hyperparameters)
        if same and target in (None, match['target']):
            found.setdefault(match['target'], {})[match['array']] = ARRAYS[match[0]]
    if not found:
        raise KeyError(f'no golden values of {part}/{method}[{hyperparameters}] on {target or "any target"}.')
    return [Golden(part, method, hyperparameters, place, arrays) for place, arrays in found.items()]
