"""The data set `stamps`, on a generated miniature of its package; the real one is marked `download`."""

import collections
import errno
import pathlib
import types
from unittest import mock

import numpy as np
import pytest
import soundfile
import tensorflow_datasets as tfds

from mmtl_jax.data.builders import Stamps, StampsConfig, stamps_index, stamps_media, stamps_package
from tests.data.builders import miniature_stamps as miniature

SIDE = 16
SPLITS = ('train', 'validation', 'test')


@pytest.fixture(scope='module')
def package(tmp_path_factory):
    """A miniature that passes for the installed package."""
    root = miniature.write(tmp_path_factory.mktemp('package'))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stamps_package, 'INSTALLED', root)
        patch.setattr(stamps_package, 'TREE_SHA256', stamps_package.tree_sha256(root))
        yield root


@pytest.fixture(scope='module')
def index(package):
    return stamps_index.read_index(package)


def prepare(data_dir: pathlib.Path) -> Stamps:
    builder = Stamps(config=StampsConfig(name='tiny', longest_side=SIDE), data_dir=data_dir)
    builder.download_and_prepare()
    return builder


@pytest.fixture(scope='module')
def builder(package, tmp_path_factory):
    return prepare(tmp_path_factory.mktemp('data'))


@pytest.fixture(scope='module')
def examples(builder):
    return {split: list(builder.as_data_source(split)) for split in SPLITS}


def check_nothing_crosses(examples):
    """Fails where a caption, a recording, a picture or a group occurs in two splits."""
    kinds = {
        'caption': lambda e: (e['language'], e['caption']),
        'English caption': lambda e: e['caption_english'],
        'recording': lambda e: e['speech'].tobytes(),
        'picture': lambda e: (e['image'].shape, e['image'].tobytes(), e['mask'].tobytes()),
        'group': lambda e: e['group'],
        'stamp': lambda e: e['stamp'],
    }
    for kind, of in kinds.items():
        splits = collections.defaultdict(set)
        for split, rows in examples.items():
            for example in rows:
                splits[of(example)].add(split)
        assert [key for key, where in splits.items() if len(where) > 1] == [], kind


def by_id(examples):
    return {example['id'].decode(): example for rows in examples.values() for example in rows}


def test_normalise_keeps_letters_numbers_and_marks():
    assert stamps_index.normalise("  L'Été,\tn° Ⅳ (ﬁn)! ") == 'l été n iv fin'
    assert stamps_index.normalise('Ё́ - 5€') == 'ё́ 5'
    assert stamps_index.normalise('—!') == ''


def test_index_reads_the_folder(index):
    stamps = {stamp.stem: stamp for stamp in index.stamps}
    assert sorted(stamps) == sorted(miniature.STEMS)
    assert [stamps[stem].category for stem in ('animals/thing0', 'hobbies/music/drum')] == ['animals', 'misc']
    assert stamps['animals/thing0'].flags == (True, False, True)
    assert stamps['animals/thing1'].flags == (False, False, False)
    styles = {stem: stamps[stem].style for stem in ('clothes/cartoon/hat', 'town/thing1', 'town/thing2', 'town/thing3')}
    assert list(styles.values()) == ['cartoon', 'svg', 'svg', 'raster']
    assert [stamps[f'town/thing{number}'].picture for number in (1, 2)] == ['town/thing1.svg', 'town/thing2.png']
    assert set(stamps['food/orange'].captions) == {'fr', 'ru', 'da'}


def test_filters_are_counted(index):
    assert index.counts == {
        'found': 2 * len(miniature.STEMS),
        'too_short': 1,
        'too_long': 1,
        'too_fast': 1,
        'too_slow': 1,
        'repeated': 1,
        'kept': 2 * len(miniature.STEMS) - 5,
    }
    kept = {clip.id for clip in index.clips}
    assert not kept & {f'fr {stem}' for stem in miniature.ODD_SPEECH}
    assert index.characters_per_second == pytest.approx({'fr': 20, 'ru': 20}, rel=0.01)  # ends are cut to a sample


@pytest.mark.parametrize(('one', 'other'), miniature.TIED)
def test_ties_make_a_group(index, one, other):
    assert index.groups[one] == index.groups[other] == min(one, other)


def test_groups_are_no_larger_than_their_ties(index):
    assert len(set(index.groups.values())) == len(miniature.STEMS) - len(miniature.TIED)


def test_equal_samples_in_different_files_stay_in_the_split_that_is_scored(index):
    one, other = miniature.SAME_SAMPLES
    assert (index.split[one], index.split[other]) == ('train', 'test')
    kept = {clip.id for clip in index.clips}
    assert f'ru {other}' in kept
    assert f'ru {one}' not in kept
    assert f'fr {one}' in kept


def test_ranks_decide_the_split():
    # In the order of (crc32, stem): a fact about these names, computed once.
    order = [f'animals/{letter}' for letter in 'hldiaegckbfj']
    stamps = [types.SimpleNamespace(stem=stem, category='animals') for stem in sorted(order)]
    split = stamps_index.split_stamps(stamps, {stem: stem for stem in order})
    block = ['test', 'validation', *['train'] * 3, 'test', *['train'] * 4]
    assert [split[stem] for stem in order] == [*block, 'test', 'validation']


def test_nothing_crosses_a_split_of_the_miniature(examples):
    check_nothing_crosses(examples)
    assert all(examples.values())


def test_an_example(builder, examples):
    example = by_id(examples)['fr animals/thing0']
    stem = b'animals/thing0'
    texts = {key: example[key] for key in ('stem', 'caption', 'caption_raw', 'caption_english', 'caption_english_raw')}
    assert texts == {
        'stem': stem,
        'caption': b'un animals thing0',
        'caption_raw': b'Un animals thing0 !',
        'caption_english': b'a animals thing0',
        'caption_english_raw': b'A animals thing0.',
    }
    names = {key: builder.info.features[key].int2str(example[key]) for key in ('language', 'category', 'style')}
    assert names == {'language': 'fr', 'category': 'animals', 'style': 'raster'}
    np.testing.assert_array_equal(example['flags'], np.array([1, 0, 1], np.int8))
    assert example['speech'].dtype == np.int16
    assert len(example['speech']) == round(len('un animals thing0') / miniature.CHARACTERS_PER_SECOND * 16_000)


def test_pictures_are_on_white_and_scaled_down_only(examples):
    rows = by_id(examples)
    image, mask = (rows['fr town/thing0'][key] for key in ('image', 'mask'))
    assert image.shape == (SIDE // 2, SIDE, 3)
    assert mask.shape == (SIDE // 2, SIDE, 1)
    np.testing.assert_array_equal(image[:, 0], 255)
    np.testing.assert_array_equal(mask[:, 0], 0)
    np.testing.assert_array_equal(mask[2:-2, SIDE // 2], 255)
    assert rows['fr town/thing2']['image'].shape == (6, 12, 3)
    drawn = rows['fr town/thing1']['mask']
    assert drawn.shape == (SIDE, SIDE // 2, 1)
    assert drawn[SIDE // 2, SIDE // 4] == 255
    assert drawn[0, 0] == 0


def test_metadata_survive_a_reload(builder, index):
    metadata = Stamps(config=builder.builder_config, data_dir=builder.data_dir_root).info.metadata
    assert metadata['clips'] == index.counts
    assert {' ', '0', 'э', 'u'} <= set(metadata['characters'])
    assert not {'U', '!', '«'} & set(metadata['characters'])
    assert metadata['flags'] == ['colorable', 'nomirror', 'noflip']
    assert sum(metadata['stamps'].values()) == len(miniature.STEMS)
    assert metadata['groups'] == len(set(index.groups.values()))
    assert metadata['sample_rate'] == 16_000


def test_numbers_name_stamps_and_groups(examples, index):
    rows = by_id(examples)
    assert sorted({row['stamp'] for row in rows.values()}) == list(range(len(miniature.STEMS)))
    for one, other in miniature.TIED:
        assert rows[f'fr {one}']['group'] == rows[f'fr {other}']['group']
    assert len({row['group'] for row in rows.values()}) == len(set(index.groups.values()))


def test_the_name_resolves_and_reading_is_silent(package, tmp_path, caplog):
    source = tfds.data_source('stamps', split='validation', data_dir=tmp_path)
    assert source[0]['image'].shape[-1] == 3
    assert [record.getMessage() for record in caplog.records if record.levelname == 'WARNING'] == []


def test_preparing_twice_gives_the_same_rows(examples, tmp_path):
    again = prepare(tmp_path).as_data_source('train')
    assert [row['id'] for row in again] == [row['id'] for row in examples['train']]


def test_speech_is_resampled_well(tmp_path):
    seconds, rate = 0.5, 44_100
    # 3 kHz must pass unchanged, 11 kHz must not fold down to 5 kHz.
    time = np.arange(round(seconds * rate)) / rate
    tone = 0.4 * np.sin(2 * np.pi * 3000 * time)
    above = 0.4 * np.sin(2 * np.pi * 11_000 * time)
    soundfile.write(tmp_path / 'a.wav', np.stack([tone + above, tone + above], axis=1), rate, subtype='FLOAT')
    speech = stamps_media.read_speech(tmp_path / 'a.wav')
    expected = 0.4 * np.sin(2 * np.pi * 3000 * np.arange(round(seconds * 16_000)) / 16_000)
    inside = slice(200, -200)  # the filter rings at the ends
    # 0.2 % is the filter's ripple.
    np.testing.assert_allclose(speech[inside] / 32767, expected[inside], atol=2e-3)
    seconds_probed, opening = stamps_media.probe(tmp_path / 'a.wav')
    assert seconds_probed == len(speech) / 16_000
    assert opening


@pytest.mark.parametrize('read', [stamps_media.read_speech, stamps_media.probe])
def test_broken_recording(tmp_path, read):
    (tmp_path / 'a.ogg').write_bytes(b'no sound')
    with pytest.raises(ValueError, match=r'cannot read the recording .*a\.ogg: .*'):
        read(tmp_path / 'a.ogg')


@pytest.mark.parametrize('suffix', ['png', 'svg'])
def test_broken_picture(tmp_path, suffix):
    (tmp_path / f'a.{suffix}').write_bytes(b'no picture')
    with pytest.raises(ValueError, match=rf'cannot read the picture .*a\.{suffix}: .*'):
        stamps_media.encode_picture(tmp_path / f'a.{suffix}', SIDE)


FULL_DISK = r'^the disk of .* is too full for the stamps: 1000 MB are needed; free some, or name another data_dir\.$'


def test_a_disk_that_is_full(package, tmp_path, monkeypatch):
    monkeypatch.setattr(stamps_package, 'free_bytes', lambda folder: 10**8)
    with pytest.raises(ValueError, match=FULL_DISK):
        prepare(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    'error',
    [OSError(errno.ENOSPC, 'No space left on device'), RuntimeError('write() failed: No space left on device')],
)
def test_a_disk_that_fills_up(package, tmp_path, monkeypatch, error):
    monkeypatch.setattr(stamps_media, 'read_speech', mock.Mock(side_effect=error))
    with pytest.raises(ValueError, match=FULL_DISK):
        prepare(tmp_path)
    assert list((tmp_path / 'stamps' / 'tiny').iterdir()) == []


def test_other_errors_are_not_taken_for_a_full_disk(package, tmp_path, monkeypatch):
    monkeypatch.setattr(stamps_media, 'read_speech', mock.Mock(side_effect=OSError('an unreadable sector')))
    with pytest.raises(OSError, match='an unreadable sector'):
        prepare(tmp_path)


@pytest.fixture(scope='module')
def real_index(real_builder):
    downloads = pathlib.Path(real_builder.data_dir_root) / 'downloads'
    return stamps_index.read_index(stamps_package.obtain(downloads / 'stamps', downloads / 'manual'))


@pytest.fixture(scope='module')
def real_builder():
    builder = tfds.builder('stamps')
    builder.download_and_prepare()
    return builder


@pytest.mark.download
def test_split_of_the_real_data(real_index):
    test_stems = [stem for stem, split in real_index.split.items() if split == 'test']
    groups = {stem: real_index.groups[stem] for stem in test_stems}
    assert len(real_index.stamps) == 950
    assert len(set(real_index.groups.values())) == 727
    assert max(collections.Counter(real_index.groups.values()).values()) == 9
    assert (len(set(groups.values())), len(test_stems)) == (150, 189)
    assert stamps_index.check_value(test_stems) == '14a3868d8d550f39'
    category = {stamp.stem: stamp.category for stamp in real_index.stamps}
    assert collections.Counter(category[stem] for stem in test_stems) == {
        'animals': 29, 'clothes': 10, 'food': 16, 'household': 13, 'misc': 10, 'people': 5, 'plants': 6,
        'seasonal': 12, 'space': 4, 'symbols': 57, 'town': 17, 'vehicles': 10,
    }  # fmt: skip
    assert collections.Counter(real_index.split.values()) == {'train': 665, 'validation': 96, 'test': 189}


@pytest.mark.download
def test_clips_of_the_real_data(real_builder, real_index):
    assert real_index.counts == {
        'found': 7135, 'too_short': 16, 'too_long': 73, 'too_fast': 275, 'too_slow': 137, 'repeated': 3, 'kept': 6631,
    }  # fmt: skip
    assert {language: round(speed, 2) for language, speed in real_index.characters_per_second.items()} == {
        'be': 8.02, 'bg': 12.42, 'ca': 16.13, 'da': 14.70, 'el': 11.06, 'es': 11.86, 'fr': 15.72, 'ro': 8.82,
        'ru': 10.84,
    }  # fmt: skip
    # Over all clips that pass the filters, before the three repeats outside test are dropped.
    downloads = pathlib.Path(real_builder.data_dir_root) / 'downloads'
    root = stamps_package.obtain(downloads / 'stamps', downloads / 'manual')
    fitting, _, _ = stamps_index.filter_clips(stamps_index.read_clips(root, real_index.stamps))
    assert len(fitting) == 6634
    assert stamps_index.check_value(clip.id for clip in fitting) == '88543cfd48786f9d'
    assert {clip.id for clip in fitting} - {clip.id for clip in real_index.clips} == {
        'el seasonal/halloween/grave-j',
        'el seasonal/easter/chick-hatched',
        'el animals/marsupials/cartoon/kangaroo-silo',
    }
    test = [clip for clip in real_index.clips if real_index.split[clip.stamp.stem] == 'test']
    assert len(test) == 1343
    assert collections.Counter(clip.language for clip in test) == {
        'be': 117, 'bg': 183, 'ca': 140, 'da': 62, 'el': 120, 'es': 175, 'fr': 179, 'ro': 183, 'ru': 184,
    }  # fmt: skip
    assert collections.Counter(clip.stamp.category for clip in test) == {
        'animals': 228, 'clothes': 72, 'food': 123, 'household': 93, 'misc': 73, 'people': 37, 'plants': 43,
        'seasonal': 85, 'space': 31, 'symbols': 331, 'town': 141, 'vehicles': 86,
    }  # fmt: skip


@pytest.mark.download
def test_real_examples(real_builder):
    examples = {split: list(real_builder.as_data_source(split)) for split in SPLITS}
    assert {split: len(rows) for split, rows in examples.items()} == {'train': 4609, 'validation': 679, 'test': 1343}
    check_nothing_crosses(examples)
    rows = [row for split in examples.values() for row in split]
    assert len(set().union(*(row['caption'].decode() for row in rows))) == 131
    hours = {split: sum(len(row['speech']) for row in part) / 16_000 / 3600 for split, part in examples.items()}
    assert round(hours['test'], 2) == 0.55
    assert round(hours['train'] + hours['validation'], 2) == 2.03
    assert max(max(row['image'].shape) for row in rows) == 256
    assert real_builder.info.metadata['characters'] == ''.join(
        sorted(set().union(*(row['caption'].decode() for row in examples['train'])))
    )
