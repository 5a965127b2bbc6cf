"""The TFDS data set `stamps`: pictures, captions in nine languages, and people who read the captions."""

import collections
import concurrent.futures
import dataclasses
import errno
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from mmtl_jax.data.builders import stamps_index, stamps_media, stamps_package

# The prepared data set, and as much again while TFDS shuffles it.
PREPARED_BYTES = 1_000_000_000

DESCRIPTION = """\
Tux Paint's stamps: 950 pictures with captions, and people who read the captions in nine languages.

One example is one stamp in one language: picture, alpha mask, caption, recording, category, flags and style.
No caption, recording or picture occurs in two splits. One person read each language, with one microphone: whoever
tells the language from these recordings may be telling the voice.
"""


@dataclasses.dataclass(eq=False)
class StampsConfig(tfds.core.BuilderConfig):
    """How large the pictures are.

    Attributes:
      longest_side: pixels; larger pictures are scaled down to it, smaller ones keep their size, vector drawings are
        drawn at it.
    """

    longest_side: int = 256


class Stamps(tfds.core.GeneratorBasedBuilder):
    """Builds `stamps` from Debian's package tuxpaint-stamps-default, without TensorFlow.

    `info.metadata` holds what a pipeline needs before it reads an example: `characters` (those of the training
    captions, sorted), `languages`, `categories`, `styles`, `flags`, `sample_rate`, `clips` (how many the filters
    dropped, and why), `characters_per_second` (median reading speed by language), `stamps` (per split), `groups`.
    """

    VERSION = tfds.core.Version('1.0.0')
    RELEASE_NOTES = {'1.0.0': 'tuxpaint-stamps-default 2022.06.04-1.'}
    BUILDER_CONFIGS = [
        StampsConfig(name='default', description='Pictures of at most 256 pixels.', longest_side=256),
        StampsConfig(name='full', description='Pictures of at most 1024 pixels, for sprites.', longest_side=1024),
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = f'Put {stamps_package.DEB} here, where neither apt nor an installed copy is at hand.'

    def __init__(self, *, file_format: Any = 'array_record', **kwargs: Any):
        super().__init__(file_format=file_format, **kwargs)

    def download_and_prepare(self, **kwargs: Any) -> None:
        """Prepares the data set as TFDS does, but for a full disk: one sentence then, and nothing half-written.

        Raises:
          ValueError: the package cannot be had, or the disk is too full for what is made of it.
        """
        full = f'the disk of {self.data_dir_root} is too full for the stamps: {PREPARED_BYTES / 1e6:.0f} MB are needed'
        full += '; free some, or name another data_dir.'
        if not self.data_path.exists() and stamps_package.free_bytes(pathlib.Path(self.data_dir_root)) < PREPARED_BYTES:
            raise ValueError(full)
        try:
            super().download_and_prepare(**kwargs)
        except (OSError, RuntimeError) as error:
            # array_record reports it as a RuntimeError.
            if os.strerror(errno.ENOSPC) not in str(error):
                raise
            raise ValueError(full) from error

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=DESCRIPTION,
            features=tfds.features.FeaturesDict(
                {
                    'id': tfds.features.Text(doc='language and stem'),
                    'stem': tfds.features.Text(doc="path below the package's folder"),
                    'stamp': tfds.features.Scalar(np.int32, doc='index of the stem among the 950'),
                    'group': tfds.features.Scalar(np.int32, doc='index of the leak-free group among the 727'),
                    'image': tfds.features.Image(shape=(None, None, 3), encoding_format='png', doc='on white'),
                    'mask': tfds.features.Image(shape=(None, None, 1), encoding_format='png', doc='alpha'),
                    'caption': tfds.features.Text(doc="normalised, in the recording's language"),
                    'caption_raw': tfds.features.Text(doc='as written'),
                    'caption_english': tfds.features.Text(doc='normalised'),
                    'caption_english_raw': tfds.features.Text(doc='as written'),
                    # Bytes: a list of numbers would take three times the space and long to parse.
                    'speech': tfds.features.Tensor(shape=(None,), dtype=np.int16, encoding='bytes', doc='mono, 16 kHz'),
                    'language': tfds.features.ClassLabel(names=list(stamps_index.LANGUAGES)),
                    'category': tfds.features.ClassLabel(names=list(stamps_index.CATEGORIES)),
                    'style': tfds.features.ClassLabel(names=list(stamps_index.STYLES)),
                    'flags': tfds.features.Tensor(shape=(3,), dtype=np.int8, doc=', '.join(stamps_index.FLAGS)),
                }
            ),
            homepage='https://tuxpaint.org/stamps/',
            license='GPL-2.0 (the stamps; copyright 2002-2022 by Bill Kendrick and the Tux Paint contributors)',
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        download_dir = pathlib.Path(dl_manager.download_dir)
        try:
            manual_dir = pathlib.Path(dl_manager.manual_dir)
        except AssertionError:  # TFDS says so where nothing was put there.
            manual_dir = download_dir / 'manual'
        root = stamps_package.obtain(download_dir / self.name, manual_dir)
        index = stamps_index.read_index(root)
        self.info.metadata.update(_metadata(index))
        numbers = _numbers(index)
        return {
            name: self._generate_examples(root, [c for c in index.clips if index.split[c.stamp.stem] == name], numbers)
            for name in stamps_index.SPLITS
        }

    def _generate_examples(
        self, root: pathlib.Path, clips: list[stamps_index.Clip], numbers: dict[str, dict[str, int]]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        by_stamp = collections.defaultdict(list)
        for clip in clips:
            by_stamp[clip.stamp.stem].append(clip)

        def examples_of(stem: str) -> list[dict[str, Any]]:
            return [{**example, **numbers[stem]} for example in self._examples_of_stamp(root, by_stamp[stem])]

        # Threads suffice: the decoders work outside the interpreter's lock.
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            for examples in pool.map(examples_of, by_stamp):
                for example in examples:
                    yield example['id'], example

    def _examples_of_stamp(self, root: pathlib.Path, clips: list[stamps_index.Clip]) -> Iterator[dict[str, Any]]:
        stamp = clips[0].stamp
        # Encoded once for all languages.
        image, mask = stamps_media.encode_picture(root / stamp.picture, self.builder_config.longest_side)
        for clip in clips:
            caption = stamp.captions[clip.language]
            yield {
                'id': clip.id,
                'stem': stamp.stem,
                'image': image,
                'mask': mask,
                'caption': stamps_index.normalise(caption),
                'caption_raw': caption,
                'caption_english': stamps_index.normalise(stamp.english),
                'caption_english_raw': stamp.english,
                'speech': stamps_media.read_speech(root / stamp.recordings[clip.language]),
                'language': clip.language,
                'category': stamp.category,
                'style': stamp.style,
                'flags': np.array(stamp.flags, np.int8),
            }


def _metadata(index: stamps_index.Index) -> dict[str, Any]:
    captions = (
        stamps_index.normalise(clip.stamp.captions[clip.language])
        for clip in index.clips
        if index.split[clip.stamp.stem] == 'train'
    )
    return {
        'characters': ''.join(sorted(set().union(*captions))),
        'languages': stamps_index.LANGUAGES,
        'categories': stamps_index.CATEGORIES,
        'styles': stamps_index.STYLES,
        'flags': stamps_index.FLAGS,
        'sample_rate': stamps_media.SAMPLE_RATE,
        'clips': dict(index.counts),
        'characters_per_second': dict(index.characters_per_second),
        'stamps': dict(collections.Counter(index.split.values())),
        'groups': len(set(index.groups.values())),
    }


def _numbers(index: stamps_index.Index) -> dict[str, dict[str, int]]:
    """Returns stem -> its number among all stamps, and its group's among all groups."""
    keys = {key: number for number, key in enumerate(sorted(set(index.groups.values())))}
    return {
        stamp.stem: {'stamp': number, 'group': keys[index.groups[stamp.stem]]}
        for number, stamp in enumerate(index.stamps)
    }
