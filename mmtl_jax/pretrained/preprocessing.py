"""What makes of a picture the pixels that published weights were trained on: resizing, cropping, mean and deviation."""

import dataclasses
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import numpy as np
from PIL import Image

from mmtl_jax.core.files import read_json
from mmtl_jax.core.types import PyTree
from mmtl_jax.encoders.resnet import IMAGENET_DEVIATION, IMAGENET_MEAN
from mmtl_jax.pretrained.weights import weights_file

CLIP_PIXELS = {
    'image_mean': (0.48145466, 0.4578275, 0.40821073),
    'image_std': (0.26862954, 0.26130258, 0.27577711),
    'resample': Image.Resampling.BICUBIC,
}
HALVES = {'image_mean': (0.5, 0.5, 0.5), 'image_std': (0.5, 0.5, 0.5), 'resample': Image.Resampling.BICUBIC}
SHORTER_AND_CROP = {**CLIP_PIXELS, 'size': {'shortest_edge': 224}, 'crop_size': 224, 'do_center_crop': True}
# Image processor of `transformers` -> what it takes where the file says nothing.
PROCESSORS: Mapping[str, Mapping[str, Any]] = {
    'CLIP': SHORTER_AND_CROP,
    'Bit': SHORTER_AND_CROP,
    'ViT': {**HALVES, 'size': 224, 'resample': Image.Resampling.BILINEAR},
    'DeiT': {**HALVES, 'size': 256, 'crop_size': 224, 'do_center_crop': True},
    'ConvNext': {**HALVES, 'size': {'shortest_edge': 384}, 'crop_pct': 224 / 256},
}
# The type of a model -> its processor, for files that do not say what they are for.
OF_MODELS = {'vit': 'ViT', 'resnet': 'ConvNext', 'clip': 'CLIP', 'clip_vision_model': 'CLIP', 'deit': 'DeiT'}
# A number as the size of these is that of the shorter side; of others, of both.
SHORTER = ('CLIP', 'Bit', 'ConvNext')
IMAGES = 'image_processor'
# How timm fits a picture around the square that it cuts out.
TIMM_MODES = ('center', 'squash')
FILTERS = {name.lower(): resample for name, resample in Image.Resampling.__members__.items()}
# Larger pictures are not cropped by `ConvNext`.
LARGE = 384


@dataclasses.dataclass(frozen=True)
class ImagePreprocessing:
    """What belongs to the weights of an image tower.

    Attributes:
      steps: specs of transforms, as a config's `steps` take them, that make a uint8 picture `[side, side, 3]`.
      side: of that picture, in pixels.
      mean: of each channel in [0, 1], which the encoder subtracts (its field `mean`).
      deviation: of each channel, by which it divides (its field `deviation`).
    """

    steps: tuple[dict[str, Any], ...]
    side: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]


def read_preprocessing(path: str | Path, key: str = 'image', *, encoder: nn.Module | None = None) -> ImagePreprocessing:
    """Returns steps and scale as `preprocessor_config.json` beside weights, or timm's `config.json`, asks for them.

    The steps give the same bytes as the processors of `transformers` that work with PIL; those with torchvision, its
    default where it is installed, resample a little differently.

    Args:
      path: file or folder of weights.
      key: of the example, where the picture is.
      encoder: the module that the pictures are for; one that was made for others is an error.

    Raises:
      ValueError: no such file, a processor or an option that is not known, or an encoder that does not fit.
    """
    file, settings = _settings(path)
    if file is None:
        raise ValueError(
            f'there is no preprocessor_config.json beside the weights of {path}; get it, or write the steps yourself.'
        )
    kind = _kind(file, settings)
    values = {name: value for name, value in settings.items() if value is not None}
    values = {'do_resize': True, 'do_rescale': True, 'rescale_factor': 1 / 255, **PROCESSORS[kind], **values}
    if not (values['do_rescale'] and math.isclose(values['rescale_factor'], 1 / 255, rel_tol=1e-4)):
        raise ValueError(
            f'{file} does not divide bytes by 255, as the data of this library is; write the steps yourself.'
        )
    if not values['do_resize'] or values.get('do_pad'):
        raise ValueError(f'{file} makes pictures of several sizes; encoders take one: write the steps yourself.')
    steps, side = _steps(file, kind, values, key)
    result = ImagePreprocessing(({'name': 'to_rgb', 'key': key}, *steps), side, **_pixels(values))
    if encoder is not None:
        _check(file, result, encoder)
    return result


def pixel_fields(path: str | Path) -> dict[str, tuple[float, ...]]:
    """Returns what the file of preprocessing beside weights tells of an encoder's `mean` and `deviation`."""
    file, settings = settings_beside(path, IMAGES)
    if file is None:
        of_timm = _timm_settings(path)[1]
        settings = {'image_mean': of_timm.get('mean'), 'image_std': of_timm.get('std')}
    return _pixels({name: value for name, value in settings.items() if value is not None})


def _pixels(settings: Mapping[str, Any]) -> dict[str, tuple[float, ...]]:
    if settings.get('do_normalize') is False:
        return {'mean': (0.0,), 'deviation': (1.0,)}
    names = {'mean': 'image_mean', 'deviation': 'image_std'}
    return {field: tuple(np.ravel(settings[name]).tolist()) for field, name in names.items() if name in settings}


def _settings(path: str | Path) -> tuple[Path | None, Mapping[str, Any]]:
    """Returns the file that tells the preprocessing of images, and what it says in the words of `transformers`."""
    file, settings = settings_beside(path, IMAGES)
    if file is not None:
        return file, settings
    file, settings = _timm_settings(path)
    return file, settings if file is None else _of_timm(file, settings)


def _timm_settings(path: str | Path) -> tuple[Path | None, Mapping[str, Any]]:
    """Returns timm's configuration beside weights and what it tells of preprocessing; None and {} without."""
    file = weights_file(path).parent / 'config.json'
    settings = read_json(file).get('pretrained_cfg') if file.is_file() else None
    return (file, settings) if isinstance(settings, Mapping) else (None, {})


def _of_timm(file: Path, settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns what timm's configuration says in the words of `transformers`; absent keys are timm's defaults."""
    side, mode = settings.get('input_size', (3, 224, 224))[-1], settings.get('crop_mode', 'center')
    resample = settings.get('interpolation', 'bicubic')
    for key, value, known in (('crop_mode', mode, TIMM_MODES), ('interpolation', resample, FILTERS)):
        if value not in known:
            raise ValueError(f'{file} has {key}={value!r}; known are {", ".join(known)}: write the steps yourself.')
    scaled = math.floor(side / settings.get('crop_pct', 0.875))
    return {
        'image_processor_type': 'BitImageProcessor',
        'size': {'shortest_edge': scaled} if mode == 'center' else {'height': scaled, 'width': scaled},
        'crop_size': side,
        'resample': FILTERS[resample],
        'image_mean': settings.get('mean', IMAGENET_MEAN),
        'image_std': settings.get('std', IMAGENET_DEVIATION),
    }


def settings_beside(path: str | Path, part: str) -> tuple[Path | None, Mapping[str, Any]]:
    """Returns the file beside weights that tells the preprocessing, and what it says; None and {} without one.

    Args:
      path: file or folder of weights.
      part: of a `processor_config.json`, which later versions of `transformers` write: 'image_processor' or
        'feature_extractor'.

    Raises:
      ValueError: the file is damaged.
    """
    folder = weights_file(path).parent
    for name, inner in (('preprocessor_config.json', None), ('processor_config.json', part)):
        if (folder / name).is_file():
            settings = read_json(folder / name)
            settings = settings.get(inner) if inner and isinstance(settings, Mapping) else settings
            if isinstance(settings, Mapping):
                return folder / name, settings
            raise ValueError(f'{folder / name} tells no preprocessing, no {part}; get it again.')
    return None, {}


def _kind(file: Path, settings: Mapping[str, Any]) -> str:
    """Returns the key of `PROCESSORS`."""
    name = settings.get('image_processor_type') or settings.get('feature_extractor_type')
    if name is None and (file.parent / 'config.json').is_file():
        model = read_json(file.parent / 'config.json').get('model_type')
        name = OF_MODELS.get(model, f'model of type {model!r}')
    kind = re.sub(r'(ImageProcessor|FeatureExtractor)(Fast|Pil)?$', '', str(name))
    if kind not in PROCESSORS:
        raise ValueError(
            f'{file} is for a {name}; the processors that are known are those of {", ".join(PROCESSORS)}: write the '
            f'steps yourself.'
        )
    return kind


def _steps(file: Path, kind: str, values: Mapping[str, Any], key: str) -> tuple[tuple[dict[str, Any], ...], int]:
    """Returns the steps that resize and crop, and the side of what comes out."""
    size = values['size']
    if isinstance(size, int):
        size = {'shortest_edge': size} if kind in SHORTER else {'height': size, 'width': size}
    resample = Image.Resampling(values['resample']).name.lower()
    side = size.get('shortest_edge') or _square(file, 'size', size)
    edge = 'shorter' if 'shortest_edge' in size else 'both'
    crop = _square(file, 'crop_size', values.get('crop_size', {})) if values.get('do_center_crop') else None
    if kind == 'ConvNext':
        edge, crop, side = ('both', None, side) if side >= LARGE else ('shorter', side, int(side / values['crop_pct']))
    if crop is None and edge == 'shorter':
        raise ValueError(f'{file} makes pictures of several sizes; encoders take one: write the steps yourself.')
    if crop is not None and crop > side:
        raise ValueError(f'{file} cuts {crop} pixels out of {side}; get it again, or write the steps yourself.')
    scaled = {'name': 'resize', 'key': key, 'size': side, 'edge': edge, 'resample': resample}
    if crop is None:
        return (scaled,), side
    return (scaled, {'name': 'centre_crop', 'key': key, 'size': crop}), crop


def _square(file: Path, name: str, size: int | Mapping[str, int]) -> int:
    """Returns the side of a square.

    Raises:
      ValueError: it is none.
    """
    if isinstance(size, int):
        return size
    sides = [size.get('height'), size.get('width')]
    if None in sides or sides[0] != sides[1]:
        raise ValueError(f'{file} has {name}={dict(size)}, which is no square; write the steps yourself.')
    return sides[0]


def _check(file: Path, made: ImagePreprocessing, encoder: nn.Module) -> None:
    """Raises a `ValueError` unless pictures and encoder belong together."""
    name = type(encoder).__name__
    expected = getattr(encoder, 'image_size', made.side)
    if expected != made.side:
        raise ValueError(
            f'{file} makes pictures of {made.side} pixels, but the positions of {name} are for {expected}; give the '
            f'file that belongs to the weights.'
        )
    for field in ('mean', 'deviation'):
        theirs, ours = getattr(made, field), getattr(encoder, field, None)
        if ours is not None and not _equal(theirs, ours):
            raise ValueError(
                f'{file} has the {field} {theirs}, but {name} has {ours}; give {field}= when the weights are read.'
            )


def _equal(first: PyTree, second: PyTree) -> bool:
    """Returns whether two values, or one of each channel, are the same."""
    return bool(np.allclose(np.broadcast_to(first, 3), np.broadcast_to(second, 3), rtol=1e-6))
