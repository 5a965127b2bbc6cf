"""Files of weights: every format gives the same arrays, and every damage one sentence."""

import collections
import io
import json
import os
import pickle
import pickletools
import struct
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest

from mmtl_jax.pretrained import read_weights, write_weights
from mmtl_jax.pretrained.weights import read_config

ARRAYS = {
    'layer.weight': np.arange(12, dtype=np.float32).reshape(3, 4) / 7,
    'layer.bias': np.array([np.nan, -0.0, np.inf], np.float32),
    'half': np.arange(5, dtype=np.float16),
    'brain': np.arange(5).astype(jnp.bfloat16),
    'steps': np.array(7, np.int64),
    'nothing': np.zeros((0, 3), np.float32),
}


class Torch:
    """Writes pickles as `torch.save` does, opcode by opcode, so that no test needs PyTorch."""

    STORAGES = {'float32': 'Float', 'float16': 'Half', 'bfloat16': 'BFloat16', 'int64': 'Long'}

    def __init__(self):
        self.storages = {}

    def text(self, value: str) -> bytes:
        """Returns the opcodes of a text."""
        return b'X' + struct.pack('<I', len(value)) + value.encode()

    def tuple(self, values) -> bytes:
        """Returns the opcodes of a tuple of ints."""
        return b'(' + b''.join(b'J' + struct.pack('<i', value) for value in values) + b't'

    def tensor(self, array: np.ndarray, strides=None, offset: int = 0, values=None) -> bytes:
        """Returns the opcodes of a call of _rebuild_tensor_v2; `values` is the storage if it is another array."""
        key = str(len(self.storages))
        self.storages[key] = values = np.ravel(array if values is None else values)
        name = self.STORAGES[array.dtype.name]
        storage = self.text('storage') + f'ctorch\n{name}Storage\n'.encode() + self.text(key) + self.text('cpu')
        storage = b'(' + storage + b'J' + struct.pack('<i', len(values)) + b'tQ'
        strides = [stride // array.itemsize for stride in array.strides] if strides is None else strides
        arguments = storage + b'J' + struct.pack('<i', offset) + self.tuple(array.shape) + self.tuple(strides)
        hooks = b'ccollections\nOrderedDict\n(tR'
        return b'ctorch._utils\n_rebuild_tensor_v2\n(' + arguments + b'\x89' + hooks + b'tR'

    def dictionary(self, items: dict[str, bytes]) -> bytes:
        """Returns the opcodes of a dictionary, given those of its values."""
        return b'ccollections\nOrderedDict\n(tR(' + b''.join(self.text(k) + v for k, v in items.items()) + b'u'

    def zip(self, opcodes: bytes) -> bytes:
        """Returns a file as since version 1.6."""
        file = io.BytesIO()
        with zipfile.ZipFile(file, 'w') as archive:
            archive.writestr('archive/data.pkl', b'\x80\x02' + opcodes + b'.')
            archive.writestr('archive/byteorder', 'little')
            for key, values in self.storages.items():
                archive.writestr(f'archive/data/{key}', values.tobytes())
        return file.getvalue()

    def legacy(self, opcodes: bytes) -> bytes:
        """Returns a file as before version 1.6."""
        system = {'protocol_version': 1001, 'little_endian': True, 'type_sizes': {}}
        parts = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, system)]
        parts += [b'\x80\x02' + opcodes + b'.', pickle.dumps(list(self.storages), 2)]
        numbers = [struct.pack('<q', len(values)) + values.tobytes() for values in self.storages.values()]
        return b''.join(parts + numbers)


def torch_file(layout: str, arrays=ARRAYS, under: str | None = None) -> bytes:
    torch = Torch()
    opcodes = torch.dictionary({name: torch.tensor(array) for name, array in arrays.items()})
    if under:
        opcodes = torch.dictionary({'epoch': b'K\x03', under: opcodes})
    return getattr(torch, layout)(opcodes)


def assert_same(loaded, arrays=ARRAYS):
    assert set(loaded) == set(arrays)
    for name, array in arrays.items():
        assert (loaded[name].dtype, loaded[name].shape) == (array.dtype, array.shape), name
        assert loaded[name].tobytes() == array.tobytes(), name


def test_safetensors_file_and_folder(tmp_path):
    write_weights(tmp_path / 'model.safetensors', ARRAYS)
    assert_same(read_weights(tmp_path / 'model.safetensors'))
    assert_same(read_weights(str(tmp_path)))


def test_what_is_written_is_laid_out_in_rows(tmp_path):
    write_weights(tmp_path / 'a.safetensors', {'a': ARRAYS['layer.weight'].T})
    np.testing.assert_array_equal(read_weights(tmp_path / 'a.safetensors')['a'], ARRAYS['layer.weight'].T)


@pytest.mark.parametrize('layout', ['zip', 'legacy'])
@pytest.mark.parametrize('under', [None, 'state_dict'])
def test_pickles_of_torch(tmp_path, layout, under):
    (tmp_path / 'weights.pth').write_bytes(torch_file(layout, under=under))
    assert_same(read_weights(tmp_path / 'weights.pth'))


@pytest.mark.parametrize('layout', ['zip', 'legacy'])
def test_tensors_are_views_with_strides_and_offsets(tmp_path, layout):
    torch, values = Torch(), np.arange(20, dtype=np.float32)
    view = torch.tensor(np.zeros((3, 4), np.float32), strides=(1, 4), offset=2, values=values)
    (tmp_path / 'weights.pt').write_bytes(getattr(torch, layout)(torch.dictionary({'a': view})))
    expected = 2 + np.arange(3)[:, None] + 4 * np.arange(4)[None]
    np.testing.assert_array_equal(read_weights(tmp_path / 'weights.pt')['a'], expected)


def test_shards(tmp_path):
    names = {'a.safetensors': ['half', 'steps'], 'b.safetensors': ['layer.weight', 'layer.bias', 'brain', 'nothing']}
    for file, held in names.items():
        write_weights(tmp_path / file, {name: ARRAYS[name] for name in held})
    places = {name: file for file, held in names.items() for name in held}
    index = tmp_path / 'model.safetensors.index.json'
    index.write_text(json.dumps({'metadata': {}, 'weight_map': places}), encoding='utf-8')
    assert_same(read_weights(tmp_path))
    index.write_text(json.dumps({'weight_map': {**places, 'lost': 'a.safetensors'}}), encoding='utf-8')
    with pytest.raises(ValueError, match="promises 'lost'"):
        read_weights(tmp_path)
    index.write_text(json.dumps({'weight_map': {'half': '../a.safetensors'}}), encoding='utf-8')
    with pytest.raises(ValueError, match='files beside it'):
        read_weights(tmp_path)
    index.write_text(json.dumps({'weight_map': places}), encoding='utf-8')
    (tmp_path / 'b.safetensors').unlink()
    with pytest.raises(ValueError, match=r'names the file b\.safetensors, which is not beside it'):
        read_weights(tmp_path)


@pytest.mark.parametrize('layout', ['safetensors', 'zip', 'legacy'])
def test_a_truncated_file_is_told_wherever_it_ends(tmp_path, layout):
    if layout == 'safetensors':
        write_weights(tmp_path / 'whole.safetensors', ARRAYS)
        whole = (tmp_path / 'whole.safetensors').read_bytes()
    else:
        whole = torch_file(layout)
    file = tmp_path / ('cut.safetensors' if layout == 'safetensors' else 'cut.pth')
    for size in sorted({0, 1, 7, len(whole) - 1, *range(0, len(whole), len(whole) // 23)}):
        file.write_bytes(whole[:size])
        with pytest.raises(ValueError, match='cut off'):
            read_weights(file)


def code(function: str) -> bytes:
    """Returns a pickle that calls a function with the name of a folder, were it loaded."""
    module, name = function.rsplit('.', 1)
    return f'c{module}\n{name}\n'.encode() + b'(X\x06\x00\x00\x00hackedtR'


@pytest.mark.parametrize('layout', ['zip', 'legacy'])
@pytest.mark.parametrize(
    'function', ['os.mkdir', 'posix.mkdir', 'builtins.eval', 'builtins.getattr', 'torch.load', 'torch._utils.mkdir']
)
def test_a_pickle_with_code_in_it_is_refused_and_not_run(tmp_path, monkeypatch, layout, function):
    monkeypatch.chdir(tmp_path)
    torch = Torch()
    opcodes = torch.dictionary({'a': torch.tensor(ARRAYS['half']), 'b': code(function)})
    (tmp_path / 'weights.bin').write_bytes(getattr(torch, layout)(opcodes))
    with pytest.raises(ValueError, match=rf'asks for {function}, which may run code; only tensors'):
        read_weights(tmp_path / 'weights.bin')
    assert not os.path.exists('hacked')


def test_the_pickle_that_is_refused_would_have_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pickletools.dis(code('os.mkdir') + b'.', io.StringIO())
    pickle.loads(code('os.mkdir') + b'.')
    assert os.path.isdir('hacked')


@pytest.mark.parametrize(
    ('strides', 'offset', 'what'),
    [((4, 1), 9, 'reaches beyond'), ((400, 1), 0, 'reaches beyond'), ((-4, 1), 11, 'strides'), ((1,), 0, 'strides')],
)
def test_a_view_beyond_its_storage_is_refused(tmp_path, strides, offset, what):
    torch = Torch()
    view = torch.tensor(ARRAYS['layer.weight'], strides=strides, offset=offset)
    (tmp_path / 'weights.bin').write_bytes(torch.zip(torch.dictionary({'a': view})))
    with pytest.raises(ValueError, match=what):
        read_weights(tmp_path / 'weights.bin')


@pytest.mark.parametrize('layout', ['zip', 'legacy'])
def test_a_storage_that_lies_about_its_size_is_refused(tmp_path, layout):
    torch = Torch()
    view = torch.tensor(np.zeros((1000, 1000), np.float32), values=np.zeros(4, np.float32))
    # After the storage is built, a BUILD opcode writes another size into it.
    build = b'tQ}' + torch.text('size') + b'J' + struct.pack('<i', 10**6) + b'sb'
    opcodes = torch.dictionary({'a': view.replace(b'tQ', build)})
    (tmp_path / 'weights.bin').write_bytes(getattr(torch, layout)(opcodes))
    with pytest.raises(ValueError, match=r'reaches beyond its storage|instead of 1000000'):
        read_weights(tmp_path / 'weights.bin')


@pytest.mark.parametrize(
    ('value', 'what'),
    [([1, 2], 'holds a list'), ({}, 'holds a dict'), ({'a': 1}, "'a' in its dictionary is no tensor")],
)
def test_a_pickle_without_tensors_is_told(tmp_path, value, what):
    torch = Torch()
    (tmp_path / 'weights.bin').write_bytes(torch.zip(pickle.dumps(value, 2)[2:-1]))
    with pytest.raises(ValueError, match=what):
        read_weights(tmp_path / 'weights.bin')


def test_what_is_not_there_or_of_another_format_is_told(tmp_path):
    with pytest.raises(ValueError, match='there is no file or folder'):
        read_weights(tmp_path / 'nowhere')
    with pytest.raises(ValueError, match=r'holds no weights; expected one of model\.safetensors'):
        read_weights(tmp_path)
    (tmp_path / 'weights.h5').write_bytes(b'HDF')
    with pytest.raises(ValueError, match='not of a known format'):
        read_weights(tmp_path / 'weights.h5')
    (tmp_path / 'weights.bin').write_bytes(b'plain text')
    with pytest.raises(ValueError, match='no file of tensors'):
        read_weights(tmp_path / 'weights.bin')
    with pytest.raises(ValueError, match=r'written to a \.safetensors file'):
        write_weights(tmp_path / 'weights.bin', ARRAYS)


def test_a_damaged_configuration_is_told(tmp_path):
    write_weights(tmp_path / 'model.safetensors', ARRAYS)
    (tmp_path / 'config.json').write_text('{"model_type":', encoding='utf-8')
    with pytest.raises(ValueError, match='cut off or damaged'):
        read_config(tmp_path)
    (tmp_path / 'config.json').write_text('[]', encoding='utf-8')
    with pytest.raises(ValueError, match='holds a list'):
        read_config(tmp_path)


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
    write_weights(tmp_path / 'a.safetensors', ARRAYS)

    def fail(*_):
        raise OSError('no space')

    monkeypatch.setattr(os, 'replace', fail)
    with pytest.raises(OSError, match='no space'):
        write_weights(tmp_path / 'a.safetensors', {'half': ARRAYS['half']})
    assert_same(read_weights(tmp_path / 'a.safetensors'))
    assert os.listdir(tmp_path) == ['a.safetensors']


@pytest.mark.parametrize('zipped', [True, False])
def test_pytorch_itself_writes_what_is_read(tmp_path, zipped):
    torch = pytest.importorskip('torch', reason='pip install mmtl_jax[parity]')
    tensor = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4)
    state = collections.OrderedDict(
        a=tensor, b=tensor.permute(2, 0, 1), c=tensor[1, 1:], d=torch.nn.Parameter(tensor.half()), e=torch.tensor(3)
    )
    state['f'] = tensor.bfloat16()
    torch.save(state, tmp_path / 'weights.pth', _use_new_zipfile_serialization=zipped)
    loaded = read_weights(tmp_path / 'weights.pth')
    for name, value in state.items():
        np.testing.assert_array_equal(loaded[name].astype(np.float64), value.detach().double().numpy(), err_msg=name)
    torch.save(torch.nn.Linear(2, 3), tmp_path / 'weights.pth', _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r'asks for torch\.nn\.modules\.linear\.Linear'):
        read_weights(tmp_path / 'weights.pth')
