"""A folder of numpy files as a data set."""

import numpy as np
import pytest

from mmtl_jax import data

KEYS = {'image': 'image', 'segmentation': 'label', 'depth': 'depth'}


def write(folder, split, number):
    for name in KEYS.values():
        (folder / split / name).mkdir(parents=True)
    for n in range(number):
        rng = np.random.default_rng(n)
        np.save(folder / split / 'image' / f'{n}.npy', rng.uniform(size=(6, 8, 3)))
        np.save(folder / split / 'label' / f'{n}.npy', rng.integers(-1, 13, size=(6, 8)).astype(np.float32))
        np.save(folder / split / 'depth' / f'{n}.npy', np.full((6, 8, 1), n, np.float32))
    return folder


def test_numbers_are_in_their_order_and_pictures_become_bytes(tmp_path):
    folder = str(write(tmp_path / 'rooms', 'train', 11))
    source = data.load_source('mmtl_jax.data.array_folder', 'train', builder_kwargs={'folder': folder, 'keys': KEYS})
    assert len(source) == 11
    assert (source.name, source.keys) == ('rooms', ('id', *KEYS))
    assert [source[n]['depth'][0, 0, 0] for n in range(11)] == list(range(11)), '10 comes after 9'
    example = source[10]
    assert example['id'] == 'train/10'
    expected = np.random.default_rng(10).uniform(size=(6, 8, 3)) * 255
    assert example['image'].dtype == np.uint8
    np.testing.assert_allclose(example['image'], expected, atol=0.5)

    mask = {'key': 'segmentation', 'kind': 'mask', 'num_classes': 13}
    targets = {'segmentation': mask, 'depth': {'key': 'depth', 'kind': 'depth'}}
    rows = data.prepare(source, data.build_preprocess(inputs={'image': 'image'}, targets=targets))
    _, batch = next(iter(data.eval_loader(rows, batch_size=11, layout=data.make_layout(rows))))
    assert batch.targets['segmentation'].dtype == np.int32
    assert batch.targets['segmentation'].min() == -1


def test_what_lacks_is_named(tmp_path):
    arguments = {'keys': KEYS, 'homepage': 'https://example.org/rooms'}
    with pytest.raises(ValueError, match=r'holds no files 0.npy.*download from https://example.org/rooms into .*rooms'):
        data.array_folder('train', folder=str(tmp_path / 'rooms'), **arguments)
    folder = write(tmp_path / 'rooms', 'train', 3)
    (folder / 'train' / 'depth' / '1.npy').unlink()
    with pytest.raises(ValueError, match=r'depth lacks 1.npy, which .*image has'):
        data.array_folder('train', folder=str(folder), keys=KEYS)


def test_a_picture_that_is_none_of_floats(tmp_path):
    folder = write(tmp_path / 'rooms', 'train', 1)
    source = data.array_folder('train', folder=str(folder), keys=KEYS, pictures=('segmentation',))
    with pytest.raises(ValueError, match=r'label/0.npy has values of float32 from -1.0 to .*, expected a picture'):
        source[0]
