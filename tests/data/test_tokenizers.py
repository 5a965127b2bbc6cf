"""Vocabularies: fitting, encoding, decoding, and what becomes of the unknown."""

import json

import numpy as np
import pytest

from mmtl_jax.data import tokenizers

TEXTS = ['a red ring', 'a red bar', 'the blue ring', '', 'a wooden ring', 'wooden bars']


def test_characters():
    vocabulary = tokenizers.fit_vocabulary(TEXTS)
    assert vocabulary == sorted(set(''.join(TEXTS)))
    encode = tokenizers.make_encoder(vocabulary, 'characters')
    ids = encode('a red bar')
    assert ids.dtype == np.int32
    assert ids.min() >= 1
    assert tokenizers.decode([0, *ids, 0, -1], vocabulary) == 'a red bar'
    assert tokenizers.decode(encode('a zed'), vocabulary) == 'a ed'


def test_frequency_decides_what_is_kept():
    assert tokenizers.fit_vocabulary(TEXTS, kind='words', min_count=2) == ['a', 'red', 'ring', 'wooden']
    assert tokenizers.fit_vocabulary(TEXTS, kind='words', max_size=3, unknown=True) == ['<unk>', 'a', 'ring']


def test_unknown_words_become_their_entry_or_go():
    vocabulary = ['<unk>', 'a', 'ring']
    assert tokenizers.make_encoder(vocabulary, 'words')('a green ring').tolist() == [2, 1, 3]
    assert tokenizers.make_encoder(vocabulary[1:], 'words')('a green ring').tolist() == [1, 2]
    assert tokenizers.decode([2, 1, 3], vocabulary, kind='words') == 'a <unk> ring'


def test_word_pieces():
    vocabulary = tokenizers.fit_vocabulary(TEXTS * 3, kind='word_piece', max_size=45)
    assert vocabulary[0] == '<unk>'
    assert 'ring' in vocabulary
    # The library alone numbers letters by a hash map; fitting twice in one process would not show it, the order does.
    inner = [entry for entry in vocabulary[1:] if entry.startswith('##') and len(entry) == 3]
    assert vocabulary[1 : len(inner) + 1] == sorted(inner)
    encode = tokenizers.make_encoder(json.loads(json.dumps(vocabulary)), 'word_piece')
    for text in ('a red ring', 'the wooden bars'):
        assert tokenizers.decode(encode(text), vocabulary, kind='word_piece') == text
    assert encode('#').tolist() == [1]


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (lambda: tokenizers.fit_vocabulary(TEXTS, kind='letters'), "of kind .* got 'letters'"),
        (lambda: tokenizers.fit_vocabulary(['', '']), 'cannot fit a vocabulary of characters: all texts are empty'),
        (lambda: tokenizers.make_encoder('abc', 'characters'), "a list of different strings, got 'abc'"),
        (lambda: tokenizers.make_encoder([], 'words'), 'a list of different strings, got 0 entries'),
        (lambda: tokenizers.make_encoder(['a', 'a'], 'words'), 'a list of different strings, got 2 entries'),
        (lambda: tokenizers.make_encoder(['a'], 'word_piece'), "word pieces must hold '<unk>'"),
        (lambda: tokenizers.decode([3], ['a', 'b']), 'id 3 is not in a vocabulary of 2 entries'),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
