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


MERGES = ['s t', 'a m', 'st am', 'stam p</w>', 't h', 'th e</w>', "' s</w>", '1 9</w>']
TEXTS = {
    'The  STAMP': ['the</w>', 'stamp</w>'],
    "stamp's 19": ['stamp</w>', "'s</w>", '1</w>', '9</w>'],
    'ºst': ['Â', 'º', 'st</w>'],
    '': [],
}


@pytest.fixture
def byte_pairs(tmp_path):
    """A folder with CLIP's two files, and its entries: bytes, bytes at the end of a word, merged pairs."""
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    entries = [
        *letters,
        *(f'{letter}</w>' for letter in letters),
        *(pair.replace(' ', '') for pair in MERGES),
        'st</w>',
    ]
    entries += ['<|startoftext|>', '<|endoftext|>']
    merges = '\n'.join(['#version: 0.2', *MERGES, 's t</w>'])
    (tmp_path / 'vocab.json').write_text(json.dumps({entry: i for i, entry in enumerate(entries)}))
    (tmp_path / 'merges.txt').write_text(f'{merges}\n', encoding='utf-8')
    return tmp_path, entries


def test_byte_pairs_of_clip(byte_pairs):
    folder, entries = byte_pairs
    for path in (folder, folder / 'vocab.json', folder / 'merges.txt'):
        encode = read_tokenizer(path, vocab_size=len(entries))
        for text, expected in TEXTS.items():
            found = [entries[index] for index in encode(text)]
            assert found == ['<|startoftext|>', *expected, '<|endoftext|>'], text
    encode = read_tokenizer(folder, max_length=3)
    assert [entries[index] for index in encode('the stamp')] == ['<|startoftext|>', 'the</w>', '<|endoftext|>']


def test_byte_pairs_are_those_of_the_original_library(byte_pairs):
    transformers = pytest.importorskip('transformers', reason='pip install mmtl_jax[parity]')
    folder, entries = byte_pairs
    original, encode = transformers.CLIPTokenizer.from_pretrained(folder), read_tokenizer(folder)
    original.save_pretrained(folder / 'again')
    again = read_tokenizer(folder / 'again', vocab_size=len(entries))
    assert not (folder / 'again' / 'vocab.json').exists()
    for text in (*TEXTS, "A\tSTAMP of 1963: it's ½ d — Österreich!", 'e\u0301 日本', 'a <|endoftext|> b'):
        assert encode(text).tolist() == again(text).tolist() == original(text)['input_ids'], text


def test_byte_pairs_that_are_not_whole_are_told(byte_pairs):
    folder, _ = byte_pairs
    (folder / 'merges.txt').unlink()
    with pytest.raises(ValueError, match=r'vocab\.json is cut off, damaged or no tokenizer \(.*merges\.txt'):
        read_tokenizer(folder)
    (folder / 'vocab.json').write_text('{"a": 0}')
    with pytest.raises(ValueError, match=r'without <\|startoftext\|> and <\|endoftext\|> it is not CLIP'):
        read_tokenizer(folder)


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
