"""The house: a module imports only from lower floors, and each outside API lives in one place."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
FLOORS = {
    **dict.fromkeys(['core'], 0),
    **dict.fromkeys(['nn'], 1),
    **dict.fromkeys(['encoders', 'fusion', 'sharing', 'heads', 'losses', 'metrics', 'balancing', 'data'], 2),
    **dict.fromkeys(['tasks', 'model', 'pretrained'], 3),
    **dict.fromkeys(['training', 'reporting'], 4),
    **dict.fromkeys(['experiment'], 5),
    **dict.fromkeys(['command', 'run', 'results', 'robustness', 'subsets'], 6),
    **dict.fromkeys(['train', 'evaluate', 'predict', 'export'], 7),
}
ONLY_IN = {
    'orbax': ('training/checkpoint.py',),
    'tensorflow_datasets': ('data/',),
    'ml_collections': ('experiment.py', 'train.py'),
    'matplotlib': ('reporting/',),
    'grain': ('data/',),
    'safetensors': ('pretrained/',),
    'huggingface_hub': ('pretrained/locate.py',),
    **dict.fromkeys(['tensorflow', 'torch', 'transformers', 'configs', 'experiments', 'tests'], ()),
}
MODULES = {path.relative_to(ROOT / 'mmtl_jax').as_posix(): path for path in sorted((ROOT / 'mmtl_jax').rglob('*.py'))}


def imports(path: pathlib.Path) -> set[str]:
    """Returns the dotted names that a module imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f'{path}, line {node.lineno}: write the import from mmtl_jax on.'
            names |= {f'{node.module}.{alias.name}' for alias in node.names}
    return names


def violations(module: str, names: set[str]) -> list[str]:
    """Returns what is wrong with the imports `names` of `module`, a path below mmtl_jax."""
    room, found = module.removesuffix('.py').split('/')[0], []
    for name in sorted(names):
        top, *rest = name.split('.')
        if top in ONLY_IN and not any(module.startswith(place) for place in ONLY_IN[top]):
            found.append(f'{module} imports {name}, which belongs in {ONLY_IN[top] or "no module"}')
        if top == 'mmtl_jax' and rest and rest[0] in FLOORS and rest[0] != room and FLOORS[rest[0]] >= FLOORS[room]:
            found.append(f'{module} (floor {FLOORS[room]}) imports {name} (floor {FLOORS[rest[0]]})')
    return found


@pytest.mark.parametrize('module', [module for module in MODULES if module != '__init__.py'])
def test_module_imports_from_lower_floors_only(module):
    assert module.removesuffix('.py').split('/')[0] in FLOORS, (
        f'{module} has no floor; give it one here and in design.md.'
    )
    assert not violations(module, imports(MODULES[module]))


def test_the_package_itself_imports_nothing_of_the_house():
    assert not [name for name in imports(MODULES['__init__.py']) if name.startswith('mmtl_jax')]


@pytest.mark.parametrize(
    ('module', 'name', 'what'),
    [
        ('heads/ctc.py', 'mmtl_jax.losses.ctc', 'floor 2'),
        ('core/build.py', 'mmtl_jax.nn', 'floor 1'),
        ('training/loop.py', 'mmtl_jax.reporting.write_report', 'floor 4'),
        ('training/loop.py', 'orbax.checkpoint', 'checkpoint.py'),
        ('model.py', 'configs.synthetic', 'no module'),
    ],
)
def test_a_wrong_import_is_found(module, name, what):
    (found,) = violations(module, {name})
    assert what in found


def test_configs_import_only_ml_collections_and_configs():
    for path in sorted((ROOT / 'configs').glob('*.py')):
        outside = {name for name in imports(path) if name.split('.')[0] not in ('ml_collections', 'configs')}
        assert not outside, f'{path.name} imports {sorted(outside)}'
