"""One stamp's files, decoded: the picture as PNG bytes, a recording as 16 kHz samples."""

import io
import math
import pathlib

import numpy as np
import PIL.Image
import resvg_py
import scipy.signal
import soundfile

SAMPLE_RATE = 16_000
PROBED_FRAMES = 2048
WHITE = (255, 255, 255, 255)


def read_picture(path: pathlib.Path, longest_side: int) -> PIL.Image.Image:
    """Returns the picture as RGBA.

    Args:
      path: a .png or .svg file.
      longest_side: pixels; an .svg is drawn with exactly this longest side, a .png keeps its own size.

    Raises:
      ValueError: the file is no picture.
    """
    try:
        if path.suffix != '.svg':
            return PIL.Image.open(path).convert('RGBA')
        picture = _draw(path, width=longest_side)
        return picture if picture.height <= longest_side else _draw(path, height=longest_side)
    except (OSError, ValueError) as error:
        raise ValueError(f'cannot read the picture {path}: {error}.') from error


def _draw(path: pathlib.Path, **size: int) -> PIL.Image.Image:
    # 96 dpi gives sizes in pt and cm their CSS meaning; without system fonts, the few drawings
    # that hold text look the same on every machine.
    content = resvg_py.svg_to_bytes(svg_path=str(path), dpi=96, skip_system_fonts=True, **size)
    return PIL.Image.open(io.BytesIO(bytes(content))).convert('RGBA')


def encode_picture(path: pathlib.Path, longest_side: int) -> tuple[bytes, bytes]:
    """Returns the picture on white (RGB) and its alpha mask, both as PNG, scaled down to `longest_side` pixels.

    Smaller pictures keep their size. The mask is 255 where the picture is opaque, 0 where it is transparent.
    """
    picture = read_picture(path, longest_side)
    # White comes first, then the scaling: colours hidden under transparent pixels cannot bleed into the edges.
    image = PIL.Image.alpha_composite(PIL.Image.new('RGBA', picture.size, WHITE), picture).convert('RGB')
    mask = picture.getchannel('A')
    scale = longest_side / max(picture.size)
    if scale < 1:
        size = tuple(max(1, round(side * scale)) for side in picture.size)
        image, mask = (layer.resize(size, PIL.Image.Resampling.LANCZOS) for layer in (image, mask))
    return _png(image), _png(mask)


def _png(image: PIL.Image.Image) -> bytes:
    content = io.BytesIO()
    image.save(content, format='png')
    return content.getvalue()


def probe(path: pathlib.Path) -> tuple[float, bytes]:
    """Returns a recording's seconds, as `read_speech` would give them, and its first samples, in little time.

    Raises:
      ValueError: the file is no recording.
    """
    try:
        with soundfile.SoundFile(str(path)) as file:
            opening = file.read(PROBED_FRAMES, dtype='float32').tobytes()
            return math.ceil(file.frames * SAMPLE_RATE / file.samplerate) / SAMPLE_RATE, opening
    except soundfile.LibsndfileError as error:
        raise ValueError(f'cannot read the recording {path}: {error}.') from error


def read_speech(path: pathlib.Path) -> np.ndarray:
    """Returns a recording as mono int16 samples at 16 kHz, `[samples]`.

    Channels are averaged; other rates go through a polyphase low-pass filter.

    Raises:
      ValueError: the file is no recording.
    """
    try:
        samples, rate = soundfile.read(str(path), dtype='float32', always_2d=True)
    except soundfile.LibsndfileError as error:
        raise ValueError(f'cannot read the recording {path}: {error}.') from error
    samples = samples.mean(axis=1)
    if rate != SAMPLE_RATE:
        divisor = math.gcd(rate, SAMPLE_RATE)
        samples = scipy.signal.resample_poly(samples, SAMPLE_RATE // divisor, rate // divisor)
    return np.round(np.clip(samples, -1, 1) * np.iinfo(np.int16).max).astype(np.int16)
