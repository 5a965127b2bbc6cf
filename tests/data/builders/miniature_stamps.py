"""A stamps package of a few kilobytes, with every oddity of the real one."""

import pathlib
import shutil
import zlib

import numpy as np
import PIL.Image
import PIL.ImageDraw
import soundfile

RATE = 8000
CHARACTERS_PER_SECOND = 20

# Whatever may tie two stamps of different categories together.
SAME_ENGLISH = ('animals/rabbit', 'seasonal/easter/rabbit')
SAME_FRENCH = ('animals/orange_fish', 'food/orange')
SAME_RECORDING = ('animals/mouse', 'household/mouse')
SAME_PICTURE = ('food/tomato', 'plants/tomato')
# The first falls into train, the second into test.
SAME_SAMPLES = ('hobbies/music/drum', 'sports/ball')
TIED = (SAME_ENGLISH, SAME_FRENCH, SAME_RECORDING, SAME_PICTURE)

ODD_SPEECH = {'space/short': 0.1, 'space/long': 6.5, 'space/fast': 0.25, 'space/slow': 5.0}
PLAIN = tuple(f'{folder}/thing{number}' for folder in ('animals', 'food', 'town') for number in range(6))
STEMS = (*PLAIN, *sum(TIED, ()), *SAME_SAMPLES, *ODD_SPEECH, 'medical/syringe', 'clothes/cartoon/hat')


def write(root: pathlib.Path) -> pathlib.Path:
    """Writes the package below `root` and returns `root`."""
    for stem in STEMS:
        _write_stamp(root, stem)
    (root / 'animals' / 'nameless.png').write_bytes((root / 'animals' / 'thing0.png').read_bytes())
    (root / 'food' / 'README.txt').write_text('not a stamp')
    _tie(root)
    return root


def write_sprites(root: pathlib.Path) -> pathlib.Path:
    """Writes the package with discs below `root` and returns `root`: the squares of `write` fill their pictures."""
    write(root)
    for number, path in enumerate(sorted(root.rglob('*.png'))):
        # Equal pictures would share a split.
        disc = PIL.Image.new('RGBA', (24, 24))
        PIL.ImageDraw.Draw(disc).ellipse((3, 3, 20, 20), fill=(number, 5 * number % 256, 90, 255))
        disc.save(path)
    return root


def _write_stamp(root: pathlib.Path, stem: str) -> None:
    base = root / stem
    base.parent.mkdir(parents=True, exist_ok=True)
    words = stem.replace('/', ' ').replace('_', ' ')
    lines = [f'A {words}.', f'fr.utf8=Un {words} !', f'ru.utf8=Это «{words}»', f'de.utf8=Ein {words}.', 'da.utf8=']
    base.with_suffix('.txt').write_text('\n'.join(lines) + '\n', 'utf8')
    _write_picture(base, stem)
    for language, caption in (('fr', f'un {words}'), ('ru', f'это {words}'), ('de', f'ein {words}')):
        seconds = ODD_SPEECH.get(stem) if language == 'fr' else None
        write_tone(pathlib.Path(f'{base}_desc_{language}.ogg'), seconds or len(caption) / CHARACTERS_PER_SECOND)
    # No caption, then an empty caption in that language: neither is an example.
    write_tone(pathlib.Path(f'{base}_desc_es.wav'), 0.5)
    write_tone(pathlib.Path(f'{base}_desc_da.wav'), 0.5)
    if stem == 'animals/thing0':
        base.with_suffix('.dat').write_text('noflip\ncolorable\nscale 25%\n')


def _write_picture(base: pathlib.Path, stem: str) -> None:
    colour = f'#{zlib.crc32(stem.encode()) % 2**24:06x}'
    if stem in ('town/thing1', 'town/thing2'):
        base.with_suffix('.svg').write_text(
            '<svg xmlns="http://www.w3.org/2000/svg" width="1cm" height="2cm" viewBox="0 0 10 20">'
            f'<circle cx="5" cy="10" r="5" fill="{colour}"/></svg>'
        )
    if stem != 'town/thing1':
        side = 40 if stem == 'town/thing0' else 12
        picture = PIL.Image.new('RGBA', (side, side // 2), (0, 0, 0, 0))
        picture.paste(PIL.Image.new('RGBA', (side // 2, side // 2), colour), (side // 4, 0))
        picture.save(base.with_suffix('.png'))


def write_tone(path: pathlib.Path, seconds: float) -> None:
    """Writes a tone that no other file name gives, in stereo."""
    time = np.arange(round(seconds * RATE)) / RATE
    frequency = 200 + zlib.crc32(f'{path.parent.name} {path.name}'.encode()) % 150_000 / 100
    tone = 0.5 * np.sin(2 * np.pi * frequency * time).astype(np.float32)
    with soundfile.SoundFile(str(path), 'w', samplerate=RATE, channels=2) as file:
        file.write(np.stack([tone, 0.5 * tone], axis=1))


def _tie(root: pathlib.Path) -> None:
    one, other = SAME_ENGLISH
    _replace_line(root / f'{other}.txt', 'A ', 'A -- animals: RABBIT!')
    _replace_line(root / f'{one}.txt', 'A ', 'A animals rabbit.')
    for stem in SAME_FRENCH:
        _replace_line(root / f'{stem}.txt', 'fr.utf8=', 'fr.utf8=Une orange')
        write_tone(root / f'{stem}_desc_fr.ogg', len('une orange') / CHARACTERS_PER_SECOND)
    one, other = SAME_RECORDING
    shutil.copy(root / f'{one}_desc_de.ogg', root / f'{other}_desc.ogg')
    one, other = SAME_PICTURE
    shutil.copy(root / f'{one}.png', root / f'{other}.png')
    one, other = SAME_SAMPLES
    for stem in SAME_SAMPLES:
        (root / f'{stem}_desc_ru.ogg').unlink()
    write_tone(root / f'{one}_desc_ru.wav', 0.7)
    samples, rate = soundfile.read(str(root / f'{one}_desc_ru.wav'))
    with soundfile.SoundFile(str(root / f'{other}_desc_ru.wav'), 'w', samplerate=rate, channels=2) as file:
        file.title = 'the same samples in another file'
        file.write(samples)


def _replace_line(path: pathlib.Path, start: str, line: str) -> None:
    lines = [line if old.startswith(start) else old for old in path.read_text('utf8').splitlines()]
    path.write_text('\n'.join(lines) + '\n', 'utf8')
