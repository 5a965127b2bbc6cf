"""Transforms of texts, numbers and of the example itself."""

import zlib

import numpy as np
import pytest
import tokenizers
from sklearn.feature_extraction.text import CountVectorizer

from mmtl_jax.core.build import build
from mmtl_jax.data import transforms
from mmtl_jax.data.transforms.base import is_random
from mmtl_jax.data.transforms.text import word_ngrams


def run(spec, example, seed=0):
    step = build(spec, transforms)
    return step(example, np.random.default_rng(seed)) if is_random(step) else step(example)


def test_characters_and_words_have_ids_from_1():
    spec = {'name': 'characters', 'key': 'text', 'vocabulary': ['a', 'b', ' '], 'out': 'ids'}
    result = run(spec, {'text': 'ab xa'})
    assert result['ids'].tolist() == [1, 2, 3, 1]
    assert result['text'] == 'ab xa'
    spec = {'name': 'words', 'key': 'text', 'vocabulary': ['<unk>', 'red', 'ring'], 'max_length': 2}
    assert run(spec, {'text': 'red tiny ring'})['text'].tolist() == [2, 1]
    assert run(spec, {'text': ''})['text'] is None
    with pytest.raises(ValueError, match="characters: expected a text under 'text', got ndarray"):
        run({'name': 'characters', 'key': 'text', 'vocabulary': ['a']}, {'text': np.arange(3)})


def test_ngrams_are_those_of_char_wb():
    text = 'the red ring'
    analyze = CountVectorizer(analyzer='char_wb', ngram_range=(1, 5)).build_analyzer()
    ours = [ngram for word in text.split() for ngram in word_ngrams(word, 1, 5)]
    assert sorted(ours) == sorted(ngram for ngram in analyze(text) if ngram != ' ')


def test_hashed_ngrams_are_stable_and_inside_the_buckets():
    ids = run({'name': 'hashed_ngrams', 'key': 'text', 'num_buckets': 50}, {'text': 'ab ab'})['text']
    assert ids.dtype == np.int32
    assert ids.min() >= 1
    assert ids.max() <= 50
    assert ids[: len(ids) // 2].tolist() == ids[len(ids) // 2 :].tolist()
    assert ids[0] == zlib.crc32(b'a') % 50 + 1
    with pytest.raises(ValueError, match=r'1 <= min_n <= max_n .* got min_n=3, max_n=2'):
        build({'name': 'hashed_ngrams', 'key': 'text', 'num_buckets': 5, 'min_n': 3, 'max_n': 2}, transforms)


def test_token_dropout_leaves_out_or_replaces():
    ids = np.arange(1, 101, dtype=np.int32)
    kept = run({'name': 'token_dropout', 'key': 'ids', 'rate': 0.3}, {'ids': ids})['ids']
    assert 50 < len(kept) < 90
    assert (np.diff(kept) > 0).all()
    replaced = run({'name': 'token_dropout', 'key': 'ids', 'rate': 0.3, 'replacement': 500}, {'ids': ids})['ids']
    assert len(replaced) == 100
    np.testing.assert_array_equal(ids[replaced != 500], replaced[replaced != 500])
    assert len(run({'name': 'token_dropout', 'key': 'ids', 'rate': 1.0}, {'ids': ids})['ids']) == 1
    with pytest.raises(ValueError, match='rate must be between 0 and 1, got 2'):
        build({'name': 'token_dropout', 'key': 'ids', 'rate': 2}, transforms)


def test_normalise_text():
    assert (
        run({'name': 'normalise_text', 'key': 't'}, {'t': '  Ein GROẞES\tHaus, (2ﬁ)! '})['t'] == 'ein grosses haus 2fi'
    )


def test_standardise_keeps_missing_cells():
    spec = {'name': 'standardise', 'key': 'table', 'statistics': {'mean': [1.0, 2.0], 'std': [2.0, 0.0]}}
    result = run(spec, {'table': np.array([5.0, 3.0])})['table']
    np.testing.assert_allclose(result, [2.0, 1.0])
    assert np.isnan(run(spec, {'table': np.array([np.nan, 3.0])})['table']).tolist() == [True, False]
    with pytest.raises(ValueError, match=r"statistics have shape \(2,\), 'table' has \(3,\)"):
        run(spec, {'table': np.zeros(3)})
    with pytest.raises(ValueError, match="statistics must hold 'mean' and 'std'"):
        build({'name': 'standardise', 'key': 'table', 'statistics': {'mean': [0.0]}}, transforms)


def test_stack_and_multi_hot_make_vectors():
    spec = {'name': 'stack', 'keys': ['a', 'b'], 'out': 'c'}
    assert run(spec, {'a': 1, 'b': True})['c'].tolist() == [1.0, 1.0]
    assert np.isnan(run(spec, {'a': 1})['c'][1])
    assert run(spec, {})['c'] is None
    spec = {'name': 'multi_hot', 'key': 'labels', 'num_classes': 4}
    assert run(spec, {'labels': [1, 3]})['labels'].tolist() == [0, 1, 0, 1]
    assert run(spec, {'labels': np.zeros(0, np.int64)})['labels'].tolist() == [0, 0, 0, 0]
    assert run(spec, {})['labels'] is None
    with pytest.raises(ValueError, match=r"multi_hot: 'labels' holds \[4\], expected 0 to 3"):
        run(spec, {'labels': [4]})


def test_select_and_rename():
    example = {'a': 1, 'b': 2}
    assert run({'name': 'select', 'keys': ['a', 'c']}, example) == {'a': 1}
    assert run({'name': 'rename', 'keys': {'a': 'x'}}, example) == {'x': 1, 'b': 2}


def test_a_published_tokenizer_adds_its_special_tokens_and_neither_pads_nor_cuts():
    ids = {'[PAD]': 0, '[UNK]': 1, '[CLS]': 2, '[SEP]': 3, 'a': 4, 'stamp': 5}
    model = tokenizers.Tokenizer(tokenizers.models.WordPiece(ids, unk_token='[UNK]'))
    model.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    model.post_processor = tokenizers.processors.BertProcessing(('[SEP]', 3), ('[CLS]', 2))
    model.enable_padding(length=16)
    model.enable_truncation(3)
    published = model.to_str()
    example = {'caption': 'a stamp zebra', 'none': None}
    whole = transforms.tokenize('caption', published, 'ids')(example)
    assert whole['ids'].tolist() == [2, 4, 5, 1, 3]
    assert whole['ids'].dtype == np.int32
    assert transforms.tokenize('caption', published, max_length=4)(example)['caption'].tolist() == [2, 4, 5, 3]
    assert transforms.tokenize('none', published)(example)['none'] is None
    with pytest.raises(ValueError, match=r"must be the text of a tokenizer\.json; fit it with kind 'tokenizer'"):
        transforms.tokenize('caption', ['a', 'stamp'])


def test_equal_texts_have_one_identity():
    numbers = [run({'name': 'text_identity', 'key': 'text', 'out': 'id'}, {'text': t})['id'] for t in ('a', 'b', 'a')]
    assert numbers[0] == numbers[2] != numbers[1]
    assert all(number.dtype == np.int32 and number >= 0 for number in numbers)
