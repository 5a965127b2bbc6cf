"""The documentation is true: every snippet runs, every command names what is there, every table lists what exists."""

import importlib
import importlib.util
import inspect
import pathlib
import re
import sys

import jax
import pytest

from mmtl_jax import balancing, encoders, fusion, pretrained, sharing, tasks
from mmtl_jax.data import transforms
from mmtl_jax.experiment import Devices, Results
from mmtl_jax.training.inputs import Inputs
from mmtl_jax.training.loop import Settings
from mmtl_jax.training.optimizer import make_optimizer, make_schedule

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').rglob('*.md'))]
BLOCK = re.compile(r'^```(\w+)\n(.*?)^```$', re.MULTILINE | re.DOTALL)
FILE = re.compile(r'# (\w+)\.py\n')


def blocks(page: pathlib.Path, language: str) -> list[tuple[int, str]]:
    """Returns the line number and the text of every block of a language."""
    text = page.read_text(encoding='utf-8')
    return [
        (text.count('\n', 0, found.start(2)), found.group(2))
        for found in BLOCK.finditer(text)
        if found.group(1) == language
    ]


def own_files(page: pathlib.Path) -> dict[str, str]:
    """Returns name -> text of the modules that a page tells its reader to write."""
    texts = [text for _, text in blocks(page, 'python')]
    return {FILE.match(text).group(1): text for text in texts if FILE.match(text)}


@pytest.fixture
def reader(tmp_path, monkeypatch):
    """A reader's own folder; what the snippets change in the process is put back."""
    before = set(sys.modules)
    names = ('jax_compilation_cache_dir', 'jax_persistent_cache_min_compile_time_secs')
    options = {name: getattr(jax.config, name) for name in names}
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    # Without it each run would keep what it compiled in the home directory.
    monkeypatch.setenv('HOME', str(tmp_path))
    yield tmp_path
    for name in set(sys.modules) - before:
        if pathlib.Path(getattr(sys.modules[name], '__file__', None) or '/').parent == tmp_path:
            del sys.modules[name]
    for name, value in options.items():
        jax.config.update(name, value)


@pytest.mark.parametrize(
    'page', [page for page in PAGES if blocks(page, 'python')], ids=lambda page: str(page.relative_to(ROOT))
)
def test_snippets_run_in_order(page, reader):
    namespace = {'__name__': page.stem}
    for line, text in blocks(page, 'python'):
        if FILE.match(text):
            name = FILE.match(text).group(1)
            (reader / f'{name}.py').write_text(text, encoding='utf-8')
            importlib.invalidate_caches()
            importlib.import_module(name)
        else:
            # As many empty lines before it make a traceback tell the line in the page.
            exec(compile('\n' * line + text, str(page), 'exec'), namespace)


def test_adding_something_takes_less_than_forty_lines():
    files = own_files(ROOT / 'README.md')
    lines = {name: len(text.splitlines()) for name, text in files.items()}
    assert set(lines) == {'my_data', 'my_config', 'my_fusion'}
    assert max(lines.values()) < 40


def commands() -> list[tuple[pathlib.Path, str]]:
    """Returns every line of every bash block, with its page."""
    return [(page, line) for page in PAGES for _, text in blocks(page, 'bash') for line in text.splitlines() if line]


@pytest.mark.parametrize(('page', 'command'), commands(), ids=lambda value: value if isinstance(value, str) else '')
def test_commands_name_what_exists(page, command):
    for module in re.findall(r'python -m ([\w.]+)', command):
        assert importlib.util.find_spec(module), f'{page.name}: there is no module {module}.'
    for script in re.findall(r'(?:python |^)([\w./]+\.py|\.ci/run)\b', command):
        assert (ROOT / script).exists(), f'{page.name}: there is no file {script}.'
    for path, argument in re.findall(r'--config=([\w./]+\.py)(?::([\w/]+))?', command):
        if path.removesuffix('.py') in own_files(page):
            continue
        assert (ROOT / path).exists(), f'{page.name}: there is no config {path}.'
        module = importlib.import_module(path.removesuffix('.py').replace('/', '.'))
        config = module.get_config(argument)
        for key in re.findall(r'--config\.([\w.]+)=', command):
            for part in key.split('.'):
                assert part in config, f'{page.name}: {path} has no {key}.'
                config = config[part]


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page):
    text = page.read_text(encoding='utf-8')
    for target in re.findall(r'\]\(([^)#\s]+)', text):
        if '://' not in target:
            assert (page.parent / target).exists(), f'{page.name} links to {target}, which is not there.'


@pytest.mark.parametrize(
    ('page', 'namespace'),
    [
        ('modules.md', encoders),
        ('modules.md', fusion),
        ('modules.md', sharing),
        ('modules.md', tasks),
        ('balancing.md', balancing),
        ('data.md', transforms),
        ('pretrained.md', pretrained),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_pages_name_everything_that_is_public(page, namespace):
    text = (ROOT / 'docs' / page).read_text(encoding='utf-8')
    assert [name for name in namespace.__all__ if f'`{name}`' not in text] == []


def keys_of(*functions) -> dict[str, str]:
    """Returns key -> default as the tables of docs/training.md write it."""
    parameters = {
        name: parameter for function in functions for name, parameter in inspect.signature(function).parameters.items()
    }
    left_out = ('fitted', 'seed', 'arguments')
    return {
        name: 'required'
        if parameter.default is parameter.empty
        else '`{}`'
        if repr(parameter.default) == '<factory>'
        else f'`{parameter.default!r}`'
        for name, parameter in parameters.items()
        if name not in left_out
    }


@pytest.mark.parametrize(
    ('section', 'expected'),
    [
        ('data', keys_of(Inputs)),
        ('optimizer', {k: v for k, v in keys_of(make_optimizer, make_schedule).items() if k != 'num_steps'}),
        ('training', {**keys_of(Settings, Devices), 'average_decay': '`None`', 'dtype': '`None`'}),
        ('results', keys_of(Results)),
    ],
)
def test_training_page_has_every_key_with_its_default(section, expected):
    text = (ROOT / 'docs' / 'training.md').read_text(encoding='utf-8')
    table = text.split(f'### `{section}`')[1].split('\n#')[0]
    rows = re.findall(r'^\| `(\w+)` \| ((?:[^|\\]|\\.)+?) \|', table, re.MULTILINE)
    assert {key: default.replace(r'\|', '|') for key, default in rows} == expected
