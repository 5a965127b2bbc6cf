"""Transforms: factories of functions on one example (a mapping of numpy arrays, numbers and texts).

A transform of one's own is a factory that returns `f(example) -> example` or, to draw random numbers,
`f(example, rng) -> example`; a config names it by its dotted path.
"""

from mmtl_jax.data.transforms.audio import frequency_shift, log_mel, normalise_frames, spec_augment, time_stretch
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
    'centre_crop',
    'characters',
    'colour_jitter',
    'frequency_shift',
    'hashed_ngrams',
    'log_mel',
    'multi_hot',
    'normalise_frames',
    'normalise_text',
    'random_affine',
    'random_crop',
    'random_flip',
    'random_resized_crop',
    'rename',
    'resize',
    'select',
    'spec_augment',
    'stack',
    'standardise',
    'text_identity',
    'time_stretch',
    'to_float',
    'to_rgb',
    'token_dropout',
    'tokenize',
    'word_piece',
    'words',
]
