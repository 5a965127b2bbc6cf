"""Tokenizers beside weights."""

import json

import numpy as np
import pytest
import tokenizers

from mmtl_jax.pretrained import read_tokenizer

ENTRIES = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', 'a', 'ze', '##bra', 'stamp', '##s', '.', 'é']


@pytest.fixture
def folder(tmp_path):
    (tmp_path / 'vocab.txt').write_text('\n'.join(ENTRIES) + '\n', encoding='utf-8')
    return tmp_path


def tokens(encode, text: str) -> list[str]:
    ids = encode(text)
    assert ids.dtype == np.int32
    assert ids.ndim == 1
    return [ENTRIES[index] for index in ids]


def test_word_pieces_of_a_list(folder):
    encode = read_tokenizer(folder, vocab_size=len(ENTRIES))
    assert tokens(encode, 'A zebra.') == ['[CLS]', 'a', 'ze', '##bra', '.', '[SEP]']
    assert tokens(encode, 'stamps, é') == ['[CLS]', 'stamp', '##s', '[UNK]', '[UNK]', '[SEP]']
    assert tokens(encode, '') == ['[CLS]', '[SEP]']


def test_letters_keep_their_case_where_the_configuration_says_so(folder):
    (folder / 'tokenizer_config.json').write_text('{"do_lower_case": false}', encoding='utf-8')
    encode = read_tokenizer(folder / 'vocab.txt')
    assert tokens(encode, 'A a é') == ['[CLS]', '[UNK]', 'a', 'é', '[SEP]']


def test_a_file_of_the_library_loses_its_padding_and_truncation(folder):
    words = tokenizers.models.WordPiece({entry: i for i, entry in enumerate(ENTRIES)}, unk_token='[UNK]')
    model = tokenizers.Tokenizer(words)
    model.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    model.post_processor = tokenizers.processors.BertProcessing(('[SEP]', 3), ('[CLS]', 2))
    model.enable_padding(length=16)
    model.enable_truncation(4)
    model.save(str(folder / 'tokenizer.json'))
    text = 'a zebra stamp'
    assert tokens(read_tokenizer(folder), text) == ['[CLS]', 'a', 'ze', '##bra', 'stamp', '[SEP]']
    assert tokens(read_tokenizer(folder, max_length=5), text) == ['[CLS]', 'a', 'ze', '##bra', '[SEP]']


def test_a_tokenizer_of_another_vocabulary_size_is_told(folder):
    with pytest.raises(ValueError, match='has 11 entries, but the model embeds 12; give the tokenizer that belongs'):
        read_tokenizer(folder, vocab_size=12)


def test_what_is_not_there_or_damaged_is_told(folder, tmp_path):
    with pytest.raises(ValueError, match='there is no tokenizer at'):
        read_tokenizer(tmp_path / 'nowhere')
    (folder / 'tokenizer.json').write_text(json.dumps({'model': {}})[:-4], encoding='utf-8')
    with pytest.raises(ValueError, match='cut off, damaged or no tokenizer'):
        read_tokenizer(folder)
    (folder / 'tokenizer.json').unlink()
    (folder / 'vocab.txt').write_text('only\nwords\n', encoding='utf-8')
    with pytest.raises(ValueError, match='cut off, damaged or no tokenizer'):
        read_tokenizer(folder)
