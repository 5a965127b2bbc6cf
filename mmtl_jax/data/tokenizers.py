"""Vocabularies: plain lists, fitted on the training split, and the way from text to ids and back.

Entry `i` of a vocabulary has the id `i + 1`; id 0 is padding, and the blank of CTC. So an embedding or a CTC head over
a vocabulary has `len(vocabulary) + 1` rows. If the list holds '<unk>', text that is not in it becomes that entry,
otherwise it is left out.
"""

import collections
import functools
import unicodedata
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import tokenizers

UNKNOWN = '<unk>'
CONTINUATION = '##'
KINDS = ('characters', 'words', 'word_piece')


def normalise_text(text: str) -> str:
    """Returns `text` in Unicode form NFKC, case folded, letters, digits and marks only, single spaces between words."""
    folded = unicodedata.normalize('NFKC', text).casefold()
    kept = ''.join(c if unicodedata.category(c)[0] in 'LNM' else ' ' for c in folded)
    return ' '.join(kept.split())


def fit_vocabulary(
    texts: Iterable[str],
    *,
    kind: str = 'characters',
    max_size: int | None = None,
    min_count: int = 1,
    unknown: bool = False,
) -> list[str]:
    """Returns the vocabulary of `texts`, which should be the training split's alone.

    Args:
      texts: the texts, already normalised as they will be when they are tokenized.
      kind: 'characters', 'words' (separated by white space) or 'word_piece' (Schuster and Nakajima 2012, trained by
        the `tokenizers` library).
      max_size: keeps the most frequent entries only; word pieces need it and take 1,000 when it is None.
      min_count: leaves out what occurs less often.
      unknown: gives unknown text an entry of its own, '<unk>', at the first place; word pieces always have it.

    Raises:
      ValueError: an unknown kind, or no text at all.
    """
    if kind not in KINDS:
        raise ValueError(f'a vocabulary is of kind {list(KINDS)}, got {kind!r}.')
    texts = [text for text in texts if text]
    if not texts:
        raise ValueError(f'cannot fit a vocabulary of {kind}: all texts are empty.')
    if kind == 'word_piece':
        return _fit_word_pieces(texts, max_size or 1000, min_count)
    counts = collections.Counter(entry for text in texts for entry in (text if kind == 'characters' else text.split()))
    kept = sorted((entry for entry in counts if counts[entry] >= min_count), key=lambda e: (-counts[e], e))
    kept = kept if max_size is None else kept[: max_size - unknown]
    return [UNKNOWN] * unknown + sorted(kept)


def make_encoder(vocabulary: Sequence[str], kind: str) -> Callable[[str], np.ndarray]:
    """Returns the function from a text to its ids, `[L]` int32.

    Raises:
      ValueError: an unknown kind, or an empty or repeating vocabulary.
    """
    if kind not in KINDS:
        raise ValueError(f'a vocabulary is of kind {list(KINDS)}, got {kind!r}.')
    if isinstance(vocabulary, str) or not vocabulary or len(set(vocabulary)) != len(vocabulary):
        shown = repr(vocabulary) if isinstance(vocabulary, str) else f'{len(vocabulary)} entries'
        raise ValueError(f'a vocabulary is a list of different strings, got {shown}; make it with fit_vocabulary.')
    ids = {entry: index for index, entry in enumerate(vocabulary, 1)}
    if kind == 'word_piece':
        model = _word_piece_model(tuple(vocabulary))
        return lambda text: np.array(model.encode(text).ids, np.int32)
    unknown = ids.get(UNKNOWN)

    def encode(text: str) -> np.ndarray:
        entries = text if kind == 'characters' else text.split()
        found = (ids.get(entry, unknown) for entry in entries)
        return np.array([entry for entry in found if entry is not None], np.int32)

    return encode


def published_encoder(tokenizer: str, max_length: int | None = None) -> Callable[[str], np.ndarray]:
    """Returns the function from a text to its ids, `[L]` int32, under a published tokenizer.

    Special tokens such as [CLS] and [SEP] are added. Padding and truncation that the tokenizer asks for are left out.

    Args:
      tokenizer: the text of a `tokenizer.json`.
      max_length: ids that a text keeps, special tokens included.
    """
    model = tokenizers.Tokenizer.from_str(tokenizer)
    model.no_padding()
    if max_length is None:
        model.no_truncation()
    else:
        model.enable_truncation(max_length)
    return lambda text: np.array(model.encode(text).ids, np.int32)


def decode(ids: Iterable[int], vocabulary: Sequence[str], *, kind: str = 'characters') -> str:
    """Returns the text of `ids`; ids below 1 (padding, CTC blank) are left out.

    Raises:
      ValueError: an id above the vocabulary.
    """
    ids = [int(index) for index in ids if index > 0]
    if ids and max(ids) > len(vocabulary):
        raise ValueError(f'id {max(ids)} is not in a vocabulary of {len(vocabulary)} entries.')
    entries = [vocabulary[index - 1] for index in ids]
    if kind == 'characters':
        return ''.join(entries)
    return ' '.join(entries).replace(f' {CONTINUATION}', '')


def _fit_word_pieces(texts: Sequence[str], size: int, min_count: int) -> list[str]:
    """Returns '<unk>', the letters inside a word, and the other word pieces in the order in which training found them.

    The library numbers the letters inside a word in the order of a hash map, and breaks ties by these numbers; listed
    as special tokens they have a fixed order, so that the same texts always give the same vocabulary.
    """
    inner = sorted({CONTINUATION + letter for text in texts for word in text.split() for letter in word[1:]})
    model = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token=UNKNOWN))
    model.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    trainer = tokenizers.trainers.WordPieceTrainer(
        vocab_size=size,
        min_frequency=min_count,
        special_tokens=[UNKNOWN, *inner],
        continuing_subword_prefix=CONTINUATION,
        show_progress=False,
    )
    model.train_from_iterator(texts, trainer)
    pieces = model.get_vocab()
    return sorted(pieces, key=pieces.get)


@functools.lru_cache(maxsize=8)
def _word_piece_model(vocabulary: tuple[str, ...]) -> tokenizers.Tokenizer:
    """Returns a tokenizer over a fixed list of word pieces."""
    if UNKNOWN not in vocabulary:
        raise ValueError(f'a vocabulary of word pieces must hold {UNKNOWN!r}; make it with fit_vocabulary.')
    ids = {piece: index for index, piece in enumerate(vocabulary, 1)}
    word_piece = tokenizers.models.WordPiece(ids, unk_token=UNKNOWN, continuing_subword_prefix=CONTINUATION)
    model = tokenizers.Tokenizer(word_piece)
    model.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    return model
