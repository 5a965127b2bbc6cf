"""The tokenizer that belongs to pretrained weights."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import numpy as np
import tokenizers

from mmtl_jax.core.files import read_json
from mmtl_jax.data.tokenizers import published_encoder
from mmtl_jax.pretrained.locate import locate

# In the order in which a folder is searched.
FILES = ('tokenizer.json', 'vocab.txt', 'vocab.json')
# What CLIP's authors take for a word before byte pairs are merged; end of word is marked by a suffix.
CLIP_WORDS = r"""<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""
CLIP_START, CLIP_END, END_OF_WORD = '<|startoftext|>', '<|endoftext|>', '</w>'


def read_tokenizer(
    path: str | Path, *, vocab_size: int | None = None, max_length: int | None = None
) -> Callable[[str], np.ndarray]:
    """Returns the function from a text to its ids, `[L]` int32, special tokens such as [CLS] and [SEP] included.

    Padding and truncation that the file asks for are left out: padding is a batch's business, and the length is
    `max_length`.

    Args:
      path: what `locate` understands, and there a folder with `tokenizer.json`, with `vocab.txt` for BERT's word
        pieces, or with `vocab.json` and `merges.txt` for CLIP's byte pairs; or one of these files.
      vocab_size: rows of the model's embedding, `tower.encoder.vocab_size`; another number of entries is an error.
      max_length: ids that a text keeps, special tokens included.

    Raises:
      ValueError: there is no tokenizer, it is damaged, or it is of another vocabulary size.
    """
    return published_encoder(tokenizer_json(path, vocab_size=vocab_size), max_length)


def tokenizer_json(path: str | Path, *, vocab_size: int | None = None) -> str:
    """Returns a tokenizer as the text of a `tokenizer.json`, for the record of a run; arguments as above."""
    path = locate(path)
    candidates = [path / name for name in FILES] if path.is_dir() else [path]
    file = next((candidate for candidate in candidates if candidate.is_file()), None)
    if file is None:
        raise ValueError(f'there is no tokenizer at {path}; expected {", ".join(FILES[:-1])} or {FILES[-1]}.')
    read = {'vocab.json': _byte_pairs, 'merges.txt': _byte_pairs}.get(file.name)
    read = read or (_word_pieces if file.suffix == '.txt' else lambda file: tokenizers.Tokenizer.from_file(str(file)))
    try:
        model = read(file)
    # The library raises bare exceptions.
    except Exception as error:
        raise ValueError(f'{file} is cut off, damaged or no tokenizer ({error}); get it again.') from error
    entries = model.get_vocab_size(with_added_tokens=True)
    if vocab_size is not None and entries != vocab_size:
        raise ValueError(
            f'{file} has {entries} entries, but the model embeds {vocab_size}; give the tokenizer that belongs to the '
            f'weights.'
        )
    return model.to_str()


def check_tokenizer(
    encoder: nn.Module, key: str, steps: Sequence[Mapping[str, Any]], vocabularies: Mapping[str, Any]
) -> None:
    """Checks that an encoder embeds as many entries as the tokenizer has that makes its input.

    Args:
      encoder: the module that reads `key`.
      key: of the example.
      steps: specs of transforms, of which `tokenize` counts.
      vocabularies: name -> vocabulary; a published tokenizer is the text of its `tokenizer.json`.

    Raises:
      ValueError: they do not belong together.
    """
    for step in steps:
        if not isinstance(step, Mapping) or step.get('name') != 'tokenize' or step.get('out', step.get('key')) != key:
            continue
        published = vocabularies.get(step.get('vocabulary'))
        entries = tokenizers.Tokenizer.from_str(published).get_vocab_size() if isinstance(published, str) else None
        embedded = getattr(encoder, 'vocab_size', entries)
        if entries not in (None, embedded):
            raise ValueError(
                f'the tokenizer {step["vocabulary"]!r} has {entries} entries, but {type(encoder).__name__}, '
                f'which reads {key!r}, embeds {embedded}; give the tokenizer that belongs to the weights.'
            )


def _word_pieces(file: Path) -> tokenizers.Tokenizer:
    """Returns BERT's tokenizer over the entries of `vocab.txt`, one a line."""
    options = file.parent / 'tokenizer_config.json'
    lower_case = read_json(options).get('do_lower_case', True) if options.is_file() else True
    entries = file.read_text(encoding='utf-8').split('\n')
    entries = entries[:-1] if entries[-1] == '' else entries
    ids = {entry: index for index, entry in enumerate(entries)}
    model = tokenizers.Tokenizer(tokenizers.models.WordPiece(ids, unk_token='[UNK]'))
    model.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=lower_case)
    model.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    model.post_processor = tokenizers.processors.BertProcessing(('[SEP]', ids['[SEP]']), ('[CLS]', ids['[CLS]']))
    model.add_special_tokens([token for token in ('[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]') if token in ids])
    return model


def _byte_pairs(file: Path) -> tokenizers.Tokenizer:
    """Returns CLIP's tokenizer over the entries of `vocab.json` and the pairs of `merges.txt`, one a line."""
    folder = file.parent
    ids = read_json(folder / 'vocab.json')
    if CLIP_START not in ids or CLIP_END not in ids:
        raise ValueError(f"without {CLIP_START} and {CLIP_END} it is not CLIP's, and needs a tokenizer.json")
    lines = (folder / 'merges.txt').read_text(encoding='utf-8').split('\n')
    merges = [tuple(line.split()) for line in lines if line.strip() and not line.startswith('#version')]
    pairs = tokenizers.models.BPE(ids, merges, end_of_word_suffix=END_OF_WORD, unk_token=CLIP_END)
    model = tokenizers.Tokenizer(pairs)
    clean = tokenizers.normalizers
    model.normalizer = clean.Sequence([clean.NFC(), clean.Replace(tokenizers.Regex(r'\s+'), ' '), clean.Lowercase()])
    words = tokenizers.pre_tokenizers
    model.pre_tokenizer = words.Sequence(
        [
            words.Split(tokenizers.Regex(CLIP_WORDS), behavior='removed', invert=True),
            words.ByteLevel(add_prefix_space=False),
        ]
    )
    model.post_processor = tokenizers.processors.RobertaProcessing(
        (CLIP_END, ids[CLIP_END]), (CLIP_START, ids[CLIP_START]), trim_offsets=False, add_prefix_space=False
    )
    model.add_special_tokens([CLIP_START, CLIP_END])
    return model
