"""Modality dropout: how often what is left, that something always is, and what does not fit."""

import collections

import numpy as np
import pytest

from mmtl_jax.data.modality_dropout import make_drop

MODALITIES = ('speech', 'image', 'caption')
DRAWS = 4000
# A share of 4000 draws is known to .008; this is four of these.
SHARE = 0.032


def shares_of_what_is_kept(spec, present=MODALITIES):
    drop, rng = make_drop(spec, MODALITIES), np.random.default_rng(0)
    kept = (tuple(sorted(set(present) - set(drop(sorted(present), rng)))) for _ in range(DRAWS))
    return {subset: count / DRAWS for subset, count in collections.Counter(kept).items()}


def test_each_on_its_own_and_one_always_stays():
    found = shares_of_what_is_kept({'image': 0.5, 'speech': 0.2})
    expected = {
        ('caption', 'image', 'speech'): 0.4, ('caption', 'speech'): 0.4,
        ('caption', 'image'): 0.1, ('caption',): 0.1,
    }  # fmt: skip
    assert found == pytest.approx(expected, abs=SHARE)
    alone = shares_of_what_is_kept(0.9, present=('image', 'caption'))
    assert set(alone) == {('image',), ('caption',), ('caption', 'image')}
    assert alone['image',] == pytest.approx(alone['caption',], abs=2 * SHARE)


def test_equal_subsets_are_those_of_what_the_row_has():
    found = shares_of_what_is_kept({'subsets': 'equal'})
    assert len(found) == 7
    assert list(found.values()) == pytest.approx([1 / 7] * 7, abs=SHARE)
    assert shares_of_what_is_kept({'subsets': 'equal'}, present=('image', 'speech')) == pytest.approx(
        {('image',): 1 / 3, ('speech',): 1 / 3, ('image', 'speech'): 1 / 3}, abs=SHARE
    )


def test_given_subsets_share_the_draws_by_weight():
    spec = {'subsets': {'image': 1, 'caption_image': 1, 'image_speech_caption': 2}}
    everything = ('caption', 'image', 'speech')
    assert shares_of_what_is_kept(spec) == pytest.approx(
        {('image',): 0.25, ('caption', 'image'): 0.25, everything: 0.5}, abs=SHARE
    )
    # Of a row without a caption only the image alone is left to choose.
    assert shares_of_what_is_kept(spec, present=('image', 'speech')) == {('image',): 1.0}
    assert shares_of_what_is_kept(spec, present=('speech',)) == {('speech',): 1.0}, 'where none fits the row stays'


def test_a_row_without_modalities_and_a_dropout_of_nothing():
    assert make_drop(0.0, MODALITIES) is None
    assert make_drop({'image': 0.0}, MODALITIES) is None
    for spec in (0.5, {'subsets': 'equal'}):
        assert make_drop(spec, MODALITIES)([], np.random.default_rng(0)) == []


@pytest.mark.parametrize(
    ('spec', 'sentence'),
    [
        ({'depth': 0.5}, "there is no modality 'depth'; choose from"),
        ({'image': 1.0}, "modality_dropout of 'image' must be at least 0 and below 1, got 1.0"),
        (-0.5, "modality_dropout of 'speech' must be at least 0 and below 1, got -0.5"),
        ({'subsets': 'all'}, "'subsets' is 'equal' or subset -> weight, got 'all'"),
        ({'subsets': {}}, "'subsets' is 'equal' or subset -> weight, got {}"),
        ({'subsets': 'equal', 'image': 0.5}, r"'subsets' stands alone, got \['image', 'subsets'\]"),
        ({'subsets': {'image_depth': 1.0}}, "'image_depth' is no subset of .*; join some of them by"),
        ({'subsets': {'image': 0.0}}, "the weight of 'image' must be a number above 0, got 0.0"),
    ],
)
def test_what_does_not_fit(spec, sentence):
    with pytest.raises(ValueError, match=sentence):
        make_drop(spec, MODALITIES)
