"""The tokenizer that belongs to pretrained weights."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import numpy as np
import tokenizers

from mmtl_jax.core.files import read_json
from mmtl_jax.data.tokenizers import published_encoder


def read_tokenizer(
    path: str | Path, *, vocab_size: int | None = None, max_length: int | None = None
) -> Callable[[str], np.ndarray]:
    """Returns the function from a text to its ids, `[L]` int32, special tokens such as [CLS] and [SEP] included.

    Padding and truncation that the file asks for are left out: padding is a batch's business, and the length is
    `max_length`.

    Args:
      path: a folder with `tokenizer.json`, or with `vocab.txt` for BERT's word pieces; or one of these files.
      vocab_size: rows of the model's embedding, `tower.encoder.vocab_size`; another number of entries is an error.
      max_length: ids that a text keeps, special tokens included.

    Raises:
      ValueError: there is no tokenizer, it is damaged, or it is of another vocabulary size.
    """
    return published_encoder(tokenizer_json(path, vocab_size=vocab_size), max_length)


def tokenizer_json(path: str | Path, *, vocab_size: int | None = None) -> str:
    """Returns a tokenizer as the text of a `tokenizer.json`, for the record of a run; arguments as above."""
    path = Path(path)
    candidates = [path / 'tokenizer.json', path / 'vocab.txt'] if path.is_dir() else [path]
    file = next((candidate for candidate in candidates if candidate.is_file()), None)
    if file is None:
        raise ValueError(f'there is no tokenizer at {path}; expected tokenizer.json or vocab.txt.')
    try:
        model = _word_pieces(file) if file.suffix == '.txt' else tokenizers.Tokenizer.from_file(str(file))
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
