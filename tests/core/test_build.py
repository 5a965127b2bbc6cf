"""Wiring by name: what is built, and what a wrong spec is told."""

import sys
import types

import flax.linen as nn
import pytest

from mmtl_jax.core.build import build, resolve


class Concat(nn.Module):
    """A stand-in for a fusion."""

    width: int
    depth: int = 1


def scaled(factor, *, offset=0.0):
    return factor + offset


def anything(**options):
    return options


@pytest.fixture(name='fusion')
def _fusion():
    namespace = types.ModuleType('mmtl_jax.fusion')
    namespace.Concat, namespace.scaled, namespace.anything, namespace.hidden = Concat, scaled, anything, Concat
    namespace.__all__ = ['Concat', 'anything', 'scaled']
    return namespace


@pytest.fixture(name='my_lab')
def _my_lab(monkeypatch):
    module = types.ModuleType('my_lab')
    module.Mine, module.NUMBER = Concat, 3
    monkeypatch.setitem(sys.modules, 'my_lab', module)


def test_a_name_alone_takes_the_defaults(fusion):
    assert build('Concat', fusion, width=8) == Concat(width=8)


def test_a_spec_overrides_the_defaults_and_is_left_alone(fusion):
    spec = {'name': 'Concat', 'width': 64}
    assert build(spec, fusion, width=8, depth=2) == Concat(width=64, depth=2)
    assert spec == {'name': 'Concat', 'width': 64}


def test_functions_build_too(fusion):
    assert build({'name': 'scaled', 'factor': 2, 'offset': 1}, fusion) == 3
    assert build({'name': 'anything', 'whatever': 1}, fusion) == {'whatever': 1}


def test_a_dotted_name_is_an_import_path(fusion, my_lab):
    assert build({'name': 'my_lab.Mine', 'width': 4}, fusion) == Concat(width=4)


@pytest.mark.parametrize(
    ('spec', 'message'),
    [
        ('Concta', "no fusion 'Concta'; did you mean 'Concat'?"),
        ('hidden', r"no fusion 'hidden'; choose one of \['Concat', 'anything', 'scaled'\]"),
        ('my_lab.Yours', "fusion: cannot import 'my_lab.Yours': module 'my_lab' has no attribute 'Yours'"),
        ('nowhere_at_all.Mine', 'No module named'),
        ('.Mine', "cannot import '.Mine'"),
        ('my_lab.NUMBER', 'my_lab.NUMBER is a int; name a class or a function'),
        ({'width': 8}, "a spec needs a 'name' that is text, got {'width': 8}"),
        ({'name': None}, "a spec needs a 'name' that is text"),
        (None, "a spec is a name or a mapping with 'name' and arguments, got None"),
        ({'name': 'Concat', 'widht': 8}, "Concat has no argument 'widht'; did you mean 'width'?"),
        ({'name': 'Concat', 'zzz': 8}, r"Concat has no argument 'zzz'; it takes \['depth', 'width'\]"),
        ({'name': 'Concat', 'parent': None, 'width': 8}, "Concat has no argument 'parent'"),
        ({'name': 'scaled', 'offset': 8}, r"scaled needs the argument 'factor', got \['offset'\]"),
    ],
)
def test_a_wrong_spec_says_what_to_do(fusion, my_lab, spec, message):
    with pytest.raises(ValueError, match=message.replace('?', r'\?')):
        build(spec, fusion)


def test_resolve_gives_the_object_itself(fusion):
    assert resolve('scaled', fusion) is scaled
