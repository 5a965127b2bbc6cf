"""What the stamps package holds, which recordings are kept, and a split without leaks."""

import collections
import dataclasses
import hashlib
import pathlib
import re
import statistics
import unicodedata
import zlib
from collections.abc import Iterable, Mapping, Sequence

from mmtl_jax.data.builders.stamps_media import probe, read_speech

LANGUAGES = ('be', 'bg', 'ca', 'da', 'el', 'es', 'fr', 'ro', 'ru')
CATEGORIES = (
    'animals',
    'clothes',
    'food',
    'household',
    'misc',
    'people',
    'plants',
    'seasonal',
    'space',
    'symbols',
    'town',
    'vehicles',
)
SMALL_FOLDERS = ('hobbies', 'sports', 'military', 'medical', 'naturalforces')
FLAGS = ('colorable', 'nomirror', 'noflip')
STYLES = ('raster', 'cartoon', 'svg')
SPLITS = ('train', 'validation', 'test')

SHORTEST, LONGEST = 0.2, 6.0
SPEED_TOLERANCE = 2.2

_RECORDING = re.compile(r'(.+)_desc(?:_(\w+))?\.(?:ogg|wav)')
_CAPTION = re.compile(r'(\w+)\.utf8=(.*)')


@dataclasses.dataclass(frozen=True)
class Stamp:
    """One picture with its captions and recordings.

    Attributes:
      stem: path below the package's folder, without extension.
      picture: the picture's file below that folder; the .png where there is an .svg too, because its pixels are
        the artist's and need no renderer.
      other_pictures: further picture files of the same stem.
      category: the top folder, small ones merged into 'misc'.
      style: 'cartoon' below a folder of that name, else 'svg' where the stem has a vector drawing, else 'raster'
        (photographs, and letters drawn as pixels).
      flags: for each of `FLAGS`, whether the stamp's .dat file sets it.
      english: the English caption as written.
      captions: language -> caption as written, the nine languages only.
      recordings: language -> file of someone who reads the caption, the nine languages only.
      all_recordings: such files in every language.
    """

    stem: str
    picture: str
    other_pictures: tuple[str, ...]
    category: str
    style: str
    flags: tuple[bool, ...]
    english: str
    captions: Mapping[str, str]
    recordings: Mapping[str, str]
    all_recordings: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Clip:
    """One example: a stamp in one language.

    Attributes:
      stamp: whose picture and caption it has.
      language: one of the nine.
      seconds: length of the recording.
      opening: its first samples, by which equal recordings are found without decoding all of them.
    """

    stamp: Stamp
    language: str
    seconds: float
    opening: bytes

    @property
    def id(self) -> str:
        """Returns 'language stem'."""
        return f'{self.language} {self.stamp.stem}'

    @property
    def characters_per_second(self) -> float:
        """Returns the reading speed, over the normalised caption."""
        return len(normalise(self.stamp.captions[self.language])) / max(self.seconds, 1e-9)


@dataclasses.dataclass(frozen=True)
class Index:
    """All that is known before a picture or a recording is decoded.

    Attributes:
      stamps: by stem.
      groups: stem -> key of its leak-free group.
      split: stem -> 'train', 'validation' or 'test'.
      clips: the examples.
      counts: how many clips were `found`, how many were dropped for each reason, how many were `kept`.
      characters_per_second: language -> median reading speed.
    """

    stamps: tuple[Stamp, ...]
    groups: Mapping[str, str]
    split: Mapping[str, str]
    clips: tuple[Clip, ...]
    counts: Mapping[str, int]
    characters_per_second: Mapping[str, float]


def read_index(root: pathlib.Path) -> Index:
    """Returns the index of the stamps below `root`; a few seconds."""
    stamps = read_stamps(root)
    groups = group_stamps(root, stamps)
    split = split_stamps(stamps, groups)
    fitting, counts, speeds = filter_clips(read_clips(root, stamps))
    clips = drop_repeats(root, fitting, split)
    counts = {**counts, 'repeated': len(fitting) - len(clips), 'kept': len(clips)}
    return Index(tuple(stamps), groups, split, tuple(clips), counts, speeds)


def normalise(text: str) -> str:
    """Returns `text` in NFKC and case-folded, with one space in place of all that is no letter, number or mark."""
    text = unicodedata.normalize('NFKC', text).casefold()
    kept = (character if unicodedata.category(character)[0] in 'LNM' else ' ' for character in text)
    return ' '.join(''.join(kept).split())


def read_stamps(root: pathlib.Path) -> list[Stamp]:
    """Returns the stamps below `root` that have a picture and an English caption, by stem."""
    files = {path.relative_to(root).as_posix() for path in root.rglob('*') if path.is_file()}
    recordings = collections.defaultdict(list)
    for file in sorted(files):
        if match := _RECORDING.fullmatch(file):
            recordings[match[1]].append((match[2], file))
    stems = sorted({file[:-4] for file in files if file.endswith(('.png', '.svg'))})
    stamps = (_read_stamp(root, stem, files, recordings[stem]) for stem in stems if f'{stem}.txt' in files)
    return [stamp for stamp in stamps if stamp.english]


def _read_stamp(root: pathlib.Path, stem: str, files: set[str], recordings: list[tuple[str | None, str]]) -> Stamp:
    english, *others = (root / f'{stem}.txt').read_text('utf8').split('\n')
    captions = dict(match.groups() for line in others if (match := _CAPTION.fullmatch(line.strip())))
    words = (root / f'{stem}.dat').read_text('utf8').split() if f'{stem}.dat' in files else ()
    pictures = [f'{stem}{suffix}' for suffix in ('.png', '.svg') if f'{stem}{suffix}' in files]
    folders = stem.split('/')
    style = 'cartoon' if 'cartoon' in folders[:-1] else 'svg' if f'{stem}.svg' in files else 'raster'
    return Stamp(
        stem=stem,
        picture=pictures[0],
        other_pictures=tuple(pictures[1:]),
        category='misc' if folders[0] in SMALL_FOLDERS else folders[0],
        style=style,
        flags=tuple(flag in words for flag in FLAGS),
        english=english.strip(),
        captions={language: captions[language].strip() for language in LANGUAGES if language in captions},
        recordings={language: file for language, file in recordings if language in LANGUAGES},
        all_recordings=tuple(file for _, file in recordings),
    )


def read_clips(root: pathlib.Path, stamps: Iterable[Stamp]) -> list[Clip]:
    """Returns every recording in one of the nine languages whose stamp has a caption in that language."""
    return [
        Clip(stamp, language, *probe(root / file))
        for stamp in stamps
        for language, file in sorted(stamp.recordings.items())
        if normalise(stamp.captions.get(language, ''))
    ]


def filter_clips(clips: Sequence[Clip]) -> tuple[list[Clip], dict[str, int], dict[str, float]]:
    """Drops recordings that are too short, too long, or do not fit their caption.

    Readers shortened long captions. Such a recording shows by its speed: its characters per second lie outside
    [1 / 2.2, 2.2] times the median of its language, taken over all its recordings.

    Returns:
      The clips that stay; how many were found, and dropped for each reason (the first that holds); and the median
      characters per second of each language.
    """
    speeds = collections.defaultdict(list)
    for clip in clips:
        speeds[clip.language].append(clip.characters_per_second)
    medians = {language: statistics.median(values) for language, values in sorted(speeds.items())}

    def verdict(clip: Clip) -> str:
        if clip.seconds < SHORTEST:
            return 'too_short'
        if clip.seconds > LONGEST:
            return 'too_long'
        speed = clip.characters_per_second / medians[clip.language]
        if speed > SPEED_TOLERANCE:
            return 'too_fast'
        return 'kept' if speed >= 1 / SPEED_TOLERANCE else 'too_slow'

    verdicts = [verdict(clip) for clip in clips]
    counts = {name: verdicts.count(name) for name in ('too_short', 'too_long', 'too_fast', 'too_slow')}
    kept = [clip for clip, name in zip(clips, verdicts, strict=True) if name == 'kept']
    return kept, {'found': len(clips), **counts}, medians


def group_stamps(root: pathlib.Path, stamps: Sequence[Stamp]) -> dict[str, str]:
    """Returns stem -> key of its leak-free group, the smallest stem in it.

    Groups are the connected components of stamps that share a normalised English caption, a normalised caption in
    the same one of the nine languages, the bytes of a recording in any language, or the bytes of a picture.
    """
    parent = {stamp.stem: stamp.stem for stamp in stamps}

    def find(stem: str) -> str:
        while parent[stem] != stem:
            parent[stem] = parent[parent[stem]]
            stem = parent[stem]
        return stem

    first_with = {}
    for stamp in stamps:
        for trait in _traits(root, stamp):
            # The smaller stem becomes the root, so that a root is its group's key.
            one, other = sorted((find(first_with.setdefault(trait, stamp.stem)), find(stamp.stem)))
            parent[other] = one
    return {stamp.stem: find(stamp.stem) for stamp in stamps}


def _traits(root: pathlib.Path, stamp: Stamp) -> set[tuple[str, str]]:
    captions = {('english', normalise(stamp.english))}
    captions |= {(language, normalise(caption)) for language, caption in stamp.captions.items() if normalise(caption)}
    files = (stamp.picture, *stamp.other_pictures, *stamp.all_recordings)
    return captions | {('file', hashlib.sha256((root / file).read_bytes()).hexdigest()) for file in files}


def split_stamps(stamps: Sequence[Stamp], groups: Mapping[str, str]) -> dict[str, str]:
    """Returns stem -> split, all stamps of a group in the same one.

    Within each category (a group's is its key's) the groups are ordered by (crc32(key), key); ranks 0, 5, 10, ...
    are test, ranks 1, 11, 21, ... validation, the rest train: about 20, 10 and 70 %.
    """
    category = {stamp.stem: stamp.category for stamp in stamps}
    keys = collections.defaultdict(set)
    for key in groups.values():
        keys[category[key]].add(key)
    split = {}
    for members in keys.values():
        for rank, key in enumerate(sorted(members, key=lambda key: (zlib.crc32(key.encode()), key))):
            split[key] = 'test' if rank % 5 == 0 else 'validation' if rank % 10 == 1 else 'train'
    return {stem: split[key] for stem, key in groups.items()}


def drop_repeats(root: pathlib.Path, clips: Sequence[Clip], split: Mapping[str, str]) -> list[Clip]:
    """Drops clips whose samples, to the bit, belong to a clip of another split as well; the test split stays whole.

    `group_stamps` compares files. A few recordings lie in two files that differ in nothing but their container.
    """
    alike = collections.defaultdict(list)
    for clip in clips:
        alike[clip.seconds, clip.opening].append(clip)
    repeats = set()
    for candidates in alike.values():
        if len({split[clip.stamp.stem] for clip in candidates}) == 1:
            continue
        home = {}
        # The last split first, so that what is scored keeps its clips.
        for clip in sorted(candidates, key=lambda clip: -SPLITS.index(split[clip.stamp.stem])):
            samples = read_speech(root / clip.stamp.recordings[clip.language]).tobytes()
            if home.setdefault(samples, split[clip.stamp.stem]) != split[clip.stamp.stem]:
                repeats.add(clip.id)
    return [clip for clip in clips if clip.id not in repeats]


def check_value(lines: Iterable[str]) -> str:
    """Returns the first 16 hexadecimal digits of the sha256 of the sorted lines: a short proof of a set of names."""
    return hashlib.sha256('\n'.join(sorted(lines)).encode()).hexdigest()[:16]
