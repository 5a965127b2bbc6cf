"""Transforms of texts: a string becomes ids `[L]` int32, 0 stays free for padding and the CTC blank."""

import zlib
from collections.abc import Sequence

import numpy as np

from mmtl_jax.data import tokenizers
from mmtl_jax.data.transforms.base import Transform, check_rate, on_key


def normalise_text(key: str, out: str | None = None) -> Transform:
    """Folds case, keeps letters, digits and marks, and puts single spaces between words."""
    return on_key('normalise_text', tokenizers.normalise_text, key, out)


def characters(
    key: str, vocabulary: Sequence[str], out: str | None = None, *, max_length: int | None = None
) -> Transform:
    """Turns a text into the ids of its characters; a longer text is cut to `max_length`."""
    return _tokenize('characters', key, vocabulary, out, max_length)


def words(key: str, vocabulary: Sequence[str], out: str | None = None, *, max_length: int | None = None) -> Transform:
    """Turns a text into the ids of its words, split at white space; a longer text is cut to `max_length`."""
    return _tokenize('words', key, vocabulary, out, max_length)


def word_piece(
    key: str, vocabulary: Sequence[str], out: str | None = None, *, max_length: int | None = None
) -> Transform:
    """Turns a text into the ids of its word pieces; a longer text is cut to `max_length`."""
    return _tokenize('word_piece', key, vocabulary, out, max_length)


def tokenize(key: str, vocabulary: str, out: str | None = None, *, max_length: int | None = None) -> Transform:
    """Turns a text into the ids of a published tokenizer, special tokens included.

    Args:
      key: a text.
      vocabulary: the text of a `tokenizer.json`; in a config the name of a vocabulary of kind 'tokenizer'.
      out: the key that is written.
      max_length: ids that a text keeps, special tokens included.
    """
    if not isinstance(vocabulary, str):
        raise ValueError("tokenize: vocabulary must be the text of a tokenizer.json; fit it with kind 'tokenizer'.")
    return on_key('tokenize', tokenizers.published_encoder(vocabulary, max_length), key, out)


def hashed_ngrams(
    key: str,
    num_buckets: int,
    out: str | None = None,
    *,
    min_n: int = 1,
    max_n: int = 5,
    max_length: int | None = None,
) -> Transform:
    """Turns a text into the hashed ids of its character n-grams, word by word.

    Each word is written as ' word ', so an n-gram knows where words begin and end, and none crosses two words (like
    `analyzer='char_wb'` of scikit-learn). The id is `crc32(n-gram) % num_buckets + 1`, in 1..num_buckets; an n-gram
    that occurs twice is listed twice. After Bojanowski et al., arXiv 1607.04606.

    Args:
      key: a text.
      num_buckets: number of hash buckets; the embedding has `num_buckets + 1` rows.
      out: the key that is written.
      min_n: the shortest n-gram.
      max_n: the longest n-gram.
      max_length: keeps the first so many n-grams.
    """
    if not 1 <= min_n <= max_n or num_buckets < 1:
        raise ValueError(
            'hashed_ngrams: expected 1 <= min_n <= max_n and num_buckets >= 1, '
            f'got min_n={min_n}, max_n={max_n}, num_buckets={num_buckets}.'
        )

    def function(text: str) -> np.ndarray:
        ids = [
            zlib.crc32(ngram.encode()) % num_buckets + 1
            for word in text.split()
            for ngram in word_ngrams(word, min_n, max_n)
        ]
        return np.array(ids[:max_length], np.int32)

    return on_key('hashed_ngrams', function, key, out)


def word_ngrams(word: str, min_n: int, max_n: int) -> list[str]:
    """Returns the n-grams of ' word ', shortest first; the lone space is left out."""
    padded = f' {word} '
    ngrams = [padded[i : i + n] for n in range(min_n, max_n + 1) for i in range(len(padded) - n + 1)]
    return [ngram for ngram in ngrams if ngram != ' ']


def text_identity(key: str, out: str) -> Transform:
    """Numbers a text by what it says, in 0..2^31 - 1, so that retrieval counts equal texts of several rows once."""
    return on_key('text_identity', lambda text: np.int32(zlib.crc32(text.encode()) & 0x7FFFFFFF), key, out)


def token_dropout(key: str, rate: float = 0.1, *, replacement: int | None = None) -> Transform:
    """Leaves out each id with probability `rate` (at least one stays), or sets it to `replacement`."""
    check_rate('token_dropout: rate', rate)

    def function(ids: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        kept = rng.random(len(ids)) >= rate
        if replacement is not None:
            return np.where(kept, ids, np.int32(replacement)).astype(ids.dtype)
        if not kept.any():
            kept[rng.integers(len(ids))] = True
        return ids[kept]

    return on_key('token_dropout', function, key, random=True)


def _tokenize(kind: str, key: str, vocabulary: Sequence[str], out: str | None, max_length: int | None) -> Transform:
    """Returns the transform of a text into the ids of a vocabulary."""
    encode = tokenizers.make_encoder(vocabulary, kind)

    def function(text: str) -> np.ndarray:
        if not isinstance(text, str):
            raise ValueError(f'{kind}: expected a text under {key!r}, got {type(text).__name__}.')
        return encode(text)[:max_length]

    return on_key(kind, function, key, out)
