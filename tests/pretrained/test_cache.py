"""What was converted once: the same tower to the bit, from a cache that is never half-written."""

import errno
import json
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmtl_jax import encoders, pretrained
from mmtl_jax.pretrained import cache as module
from mmtl_jax.pretrained.resnet import resnet_names
from tests import quick
from tests.pretrained import tiny_bert
from tests.pretrained.test_weights import code, torch_file


def pickled_bert(folder):
    arrays = tiny_bert.weights()
    # Of other types: a half becomes float32, what is not used stays as it is.
    arrays['embeddings.LayerNorm.bias'] = arrays['embeddings.LayerNorm.bias'].astype(np.float16)
    arrays |= {'pooler.dense.bias': np.arange(3).astype(jnp.bfloat16), 'embeddings.position_ids': np.arange(9)[None]}
    (folder / 'config.json').write_text(json.dumps(tiny_bert.CONFIG))
    (folder / 'pytorch_model.bin').write_bytes(torch_file('zip', arrays))
    return pretrained.bert, folder


def sharded_bert(folder):
    arrays = tiny_bert.weights()
    names = sorted(arrays)
    parts = {'model-1.safetensors': names[:9], 'model-2.safetensors': names[9:]}
    for file, held in parts.items():
        pretrained.write_weights(folder / file, {name: arrays[name] for name in held})
    index = {'weight_map': {name: file for file, held in parts.items() for name in held}}
    (folder / 'model.safetensors.index.json').write_text(json.dumps(index))
    (folder / 'config.json').write_text(json.dumps(tiny_bert.CONFIG))
    return pretrained.bert, folder


def pickled_resnet(folder):
    encoder = encoders.ResNet(width=None, depth=18, base_width=4)
    variables = quick.parameters(encoder, np.zeros((1, 32, 32, 3), np.float32), train=False)
    arrays = resnet_names(encoder).to_original({**variables['params'], 'batch_stats': variables['batch_stats']})
    arrays |= {'fc.weight': np.ones((3, 32), np.float32), 'bn1.num_batches_tracked': np.array(7)}
    (folder / 'weights.pth').write_bytes(torch_file('legacy', arrays))
    return pretrained.resnet, folder / 'weights.pth'


SLOW_FILES = {'pickle': pickled_bert, 'shards': sharded_bert, 'legacy pickle, statistics': pickled_resnet}


def bits(tower):
    """Returns everything that a tower holds, comparable."""
    arrays = {**tower.unused, **{f'param {i}': leaf for i, leaf in enumerate(jax.tree.leaves(tower.variables))}}
    held = {name: (array.dtype, array.shape, array.tobytes()) for name, array in arrays.items()}
    return held, jax.tree.structure(tower.variables), tower.report, tower.encoder, tower.config, tower.source


def kept(folder):
    return sorted(str(file.relative_to(folder)) for file in folder.rglob('*') if file.is_file())


def no_reading(monkeypatch):
    def fail(path):
        raise AssertionError(f'{path} was read again')

    monkeypatch.setattr(module, 'read_weights', fail)


@pytest.mark.parametrize('make', SLOW_FILES.values(), ids=SLOW_FILES)
def test_the_second_time_the_same_tower_comes_without_the_weights(tmp_path, monkeypatch, make):
    convert, path = make(tmp_path)
    plain = convert(path, cache=False)
    first = convert(path, cache=tmp_path / 'cache')
    assert bits(first) == bits(plain)
    files = kept(tmp_path / 'cache')
    assert [file.split('/')[0] for file in files] == [pretrained.content_hash(path)] * 2
    no_reading(monkeypatch)
    again = convert(path, cache=tmp_path / 'cache')
    assert bits(again) == bits(plain)
    assert kept(tmp_path / 'cache') == files
    again.export(tmp_path / 'again.safetensors')
    plain.export(tmp_path / 'plain.safetensors')
    assert (tmp_path / 'again.safetensors').read_bytes() == (tmp_path / 'plain.safetensors').read_bytes()


def test_what_does_not_change_the_conversion_shares_it(tmp_path, monkeypatch):
    _, path = pickled_resnet(tmp_path)
    pretrained.resnet(path, cache=tmp_path / 'cache')
    no_reading(monkeypatch)
    tower = pretrained.resnet(path, cache=tmp_path / 'cache', width=5, norm='batch', dropout_rate=0.1)
    assert tower.params['projection']['kernel'].shape == (32, 5)
    assert len(kept(tmp_path / 'cache')) == 2


def test_other_weights_and_another_table_are_converted_anew(tmp_path):
    convert, path = pickled_bert(tmp_path)
    convert(path, cache=tmp_path / 'cache')
    convert(path, cache=tmp_path / 'cache', ignore=['embeddings.*'])
    assert len(kept(tmp_path / 'cache')) == 3
    (path / 'pytorch_model.bin').write_bytes(torch_file('zip', tiny_bert.weights(seed=1)))
    other = convert(path, cache=tmp_path / 'cache')
    assert len(kept(tmp_path / 'cache')) == 5
    np.testing.assert_array_equal(
        other.params['embedding_norm']['bias'], tiny_bert.weights(seed=1)['embeddings.LayerNorm.bias']
    )


def test_another_configuration_is_an_error_with_a_cache_too(tmp_path):
    convert, path = pickled_bert(tmp_path)
    convert(path, cache=tmp_path / 'cache')
    files = kept(tmp_path / 'cache')
    with pytest.raises(ValueError, match=r'LayerNorm.bias: \(12,\), expected \(15,\)'):
        convert(path, cache=tmp_path / 'cache', config={**tiny_bert.CONFIG, 'hidden_size': 15})
    assert kept(tmp_path / 'cache') == files


def test_a_damaged_entry_is_made_again(tmp_path):
    convert, path = pickled_bert(tmp_path)
    plain = bits(convert(path, cache=tmp_path / 'cache'))
    entry, names = (next((tmp_path / 'cache').rglob(pattern)) for pattern in ('*.safetensors', 'names.json'))
    whole, listed = entry.read_bytes(), names.read_bytes()
    flipped = bytearray(whole)
    flipped[-len(whole) // 3] ^= 1
    for damaged in (b'', whole[:7], whole[: len(whole) // 2], whole[:-1], bytes(flipped)):
        entry.write_bytes(damaged)
        assert bits(convert(path, cache=tmp_path / 'cache')) == plain
        assert entry.read_bytes() == whole
    for damaged in (b'', b'{"a', b'[1]', b'{"a": 3}'):
        names.write_bytes(damaged)
        assert bits(convert(path, cache=tmp_path / 'cache')) == plain
        assert names.read_bytes() == listed
    names.unlink()
    assert bits(convert(path, cache=tmp_path / 'cache')) == plain
    assert names.read_bytes() == listed


@pytest.mark.parametrize('error', [OSError(errno.ENOSPC, 'full'), PermissionError(errno.EACCES, 'not yours')])
def test_a_cache_that_cannot_be_written_warns_and_holds_nothing(tmp_path, monkeypatch, error):
    convert, path = pickled_bert(tmp_path)
    plain = bits(convert(path, cache=False))

    def fail(*_):
        raise error

    monkeypatch.setattr(os, 'replace', fail)
    with pytest.warns(UserWarning, match=r'not cached: .*give another folder as MMTL_JAX_CACHE, or MMTL_JAX_CACHE=off'):
        tower = convert(path, cache=tmp_path / 'cache')
    assert bits(tower) == plain
    assert kept(tmp_path / 'cache') == []


def test_a_kill_leaves_nothing_half_written(tmp_path, monkeypatch):
    convert, path = pickled_bert(tmp_path)

    def kill(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, 'fsync', kill)
        with pytest.raises(KeyboardInterrupt):
            convert(path, cache=tmp_path / 'cache')
    assert kept(tmp_path / 'cache') == []
    assert bits(convert(path, cache=tmp_path / 'cache')) == bits(convert(path, cache=False))


@pytest.mark.parametrize(
    ('content', 'what'),
    [
        (torch_file('zip', {'conv1.weight': np.zeros(3, np.float32)}), 'does not fit BERT'),
        (torch_file('zip', tiny_bert.weights())[:-100], 'cut off'),
        (b'', 'cut off'),
        (code('os.mkdir') + b'.', 'which may run code'),
    ],
    ids=['another architecture', 'truncated', 'empty', 'code'],
)
def test_bad_weights_leave_no_trace(tmp_path, content, what):
    convert, path = pickled_bert(tmp_path)
    (path / 'pytorch_model.bin').write_bytes(content)
    with pytest.raises(ValueError, match=what):
        convert(path, cache=tmp_path / 'cache')
    assert not (tmp_path / 'cache').exists()


def test_what_was_let_pass_once_is_not_let_pass_from_the_cache(tmp_path, monkeypatch):
    convert, path = pickled_bert(tmp_path)
    arrays = {**tiny_bert.weights(), 'encoder.layer.7.scale': np.ones(1, np.float32)}
    (path / 'pytorch_model.bin').write_bytes(torch_file('zip', arrays))
    lenient = convert(path, cache=tmp_path / 'cache', strict=False)
    assert lenient.report.unexpected == ('encoder.layer.7.scale',)
    no_reading(monkeypatch)
    assert bits(convert(path, cache=tmp_path / 'cache', strict=False)) == bits(lenient)
    with pytest.raises(ValueError, match=r'does not fit BERT: 1 unexpected \(encoder\.layer\.7\.scale\)'):
        convert(path, cache=tmp_path / 'cache')


def test_what_was_not_found_is_drawn_and_not_kept(tmp_path):
    convert, path = pickled_bert(tmp_path)
    arrays = tiny_bert.weights()
    del arrays['embeddings.LayerNorm.bias']
    (path / 'pytorch_model.bin').write_bytes(torch_file('zip', arrays))
    towers = [convert(path, cache=tmp_path / 'cache', strict=False, key=jax.random.key(seed)) for seed in (0, 1)]
    assert towers[0].report.missing == ('embeddings.LayerNorm.bias',)
    assert not (tmp_path / 'cache').exists()


def test_where_the_cache_is(tmp_path, monkeypatch):
    (tmp_path / 'in').mkdir()
    convert, path = pickled_bert(tmp_path / 'in')
    monkeypatch.setenv('HOME', str(tmp_path / 'home'))
    for value in ('off', str(tmp_path / 'elsewhere')):
        monkeypatch.setenv(module.VARIABLE, value)
        convert(path)
    monkeypatch.delenv(module.VARIABLE)
    assert not (tmp_path / 'home').exists()
    assert sorted(os.listdir(tmp_path)) == ['elsewhere', 'in']
    convert(path, cache=True)
    default = pathlib.Path('~/.cache/mmtl_jax/pretrained').expanduser()
    assert default.is_relative_to(tmp_path / 'home')
    assert kept(default) == kept(tmp_path / 'elsewhere')


def test_a_single_safetensors_file_is_read_as_it_is(tmp_path):
    tower = pretrained.bert(tiny_bert.write_folder(tmp_path / 'in', tiny_bert.weights()), cache=tmp_path / 'cache')
    assert tower.report.problems() == ''
    assert not (tmp_path / 'cache').exists()


def test_the_content_of_weights_is_that_of_their_files(tmp_path):
    (tmp_path / 'a').mkdir()
    (tmp_path / 'b').mkdir()
    _, path = pickled_bert(tmp_path / 'a')
    # Of sha256sum.
    (path / 'pytorch_model.bin').write_bytes(b'abc')
    assert pretrained.content_hash(path) == 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad'
    _, path = sharded_bert(tmp_path / 'b')
    before = pretrained.content_hash(path)
    (path / 'model-2.safetensors').write_bytes((path / 'model-2.safetensors').read_bytes() + b' ')
    assert pretrained.content_hash(path) != before
    (path / 'model-2.safetensors').unlink()
    with pytest.raises(ValueError, match=r'names the file model-2\.safetensors, which is not beside it'):
        pretrained.content_hash(path)
