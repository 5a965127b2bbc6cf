"""Transforms: factories of functions on one example (a mapping of numpy arrays, numbers and texts).

A transform of one's own is a factory that returns `f(example) -> example` or, to draw random numbers,
`f(example, rng) -> example`; a config names it by its dotted path.
"""

from mmtl_jax.data.transforms.audio import (
    frequency_shift,
    log_mel,
    normalise_frames,
    resample,
    spec_augment,
    time_stretch,
    to_waveform,
    whisper_log_mel,
)
from mmtl_jax.data.transforms.canvas import place_on_canvas
from mmtl_jax.data.transforms.corruptions_audio import audio_dropout, audio_masks, audio_snr
from mmtl_jax.data.transforms.corruptions_image import (
    image_blur,
    image_contrast,
    image_noise,
    image_occlusion,
    image_rotation,
)
from mmtl_jax.data.transforms.corruptions_table import table_dropout, table_noise
from mmtl_jax.data.transforms.corruptions_text import text_deletion, text_swap, text_typos
from mmtl_jax.data.transforms.depth import depth_of_solids, normals_from_depth, scale_depth
from mmtl_jax.data.transforms.image import (
    centre_crop,
    colour_jitter,
    random_affine,
    random_crop,
    random_flip,
    random_resized_crop,
    resize,
    to_float,
    to_rgb,
)
from mmtl_jax.data.transforms.labels_in_pictures import clean_boxes, map_labels, single_box
from mmtl_jax.data.transforms.mosaic import mosaic
from mmtl_jax.data.transforms.spatial import random_spatial, random_spatial_crop, resize_with_padding
from mmtl_jax.data.transforms.table import multi_hot, rename, select, stack, standardise
from mmtl_jax.data.transforms.text import (
    characters,
    hashed_ngrams,
    normalise_text,
    text_identity,
    token_dropout,
    tokenize,
    word_piece,
    words,
)

__all__ = [
    'audio_dropout',
    'audio_masks',
    'audio_snr',
    'centre_crop',
    'characters',
    'clean_boxes',
    'colour_jitter',
    'depth_of_solids',
    'frequency_shift',
    'hashed_ngrams',
    'image_blur',
    'image_contrast',
    'image_noise',
    'image_occlusion',
    'image_rotation',
    'log_mel',
    'map_labels',
    'mosaic',
    'multi_hot',
    'normalise_frames',
    'normalise_text',
    'normals_from_depth',
    'place_on_canvas',
    'random_affine',
    'random_crop',
    'random_flip',
    'random_resized_crop',
    'random_spatial',
    'random_spatial_crop',
    'rename',
    'resample',
    'resize',
    'resize_with_padding',
    'scale_depth',
    'select',
    'single_box',
    'spec_augment',
    'stack',
    'standardise',
    'table_dropout',
    'table_noise',
    'text_deletion',
    'text_identity',
    'text_swap',
    'text_typos',
    'time_stretch',
    'to_float',
    'to_rgb',
    'to_waveform',
    'token_dropout',
    'tokenize',
    'whisper_log_mel',
    'word_piece',
    'words',
]
