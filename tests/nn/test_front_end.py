"""The front end gives the frames of each clip alone, standardised over its time, however far the batch is padded."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmtl_jax.core.types import Ragged
from mmtl_jax.nn import LogMel
from mmtl_jax.nn.log_mel import log_mel
from tests import quick

# A window of 20 samples in frames of 32, a hop of 8.
OPTIONS = {'sample_rate': 800, 'num_mels': 4}
SAMPLES = [100, 39, 12, 0]
FRAMES = [9, 1, 1, 0]
MASK = np.arange(110)[None] < np.array(SAMPLES)[:, None]
CLIPS = np.where(MASK, np.random.default_rng(0).normal(size=MASK.shape), 0).astype(np.float32)
front_end = quick.jit(LogMel(**OPTIONS).apply)


@pytest.fixture(scope='module')
def frames() -> Ragged:
    return front_end({}, Ragged(CLIPS, MASK))


def test_frames_lie_inside_the_real_samples(frames):
    assert frames.values.shape == (4, 10, 4)
    np.testing.assert_array_equal(frames.mask.sum(axis=1), FRAMES)
    np.testing.assert_array_equal(frames.mask, np.arange(10)[None] < np.array(FRAMES)[:, None])


@pytest.mark.parametrize('row', [0, 1, 2])
def test_a_clip_is_transformed_as_if_alone(frames, row):
    alone = log_mel(CLIPS[row, : SAMPLES[row]], **OPTIONS)
    expected = (alone - alone.mean(0)) / np.maximum(alone.std(0), 0.1)
    # Two implementations of the Fourier transform in float32, in the logarithm.
    np.testing.assert_allclose(frames.values[row, : FRAMES[row]], expected, atol=1e-3)
    np.testing.assert_array_equal(frames.values[row, FRAMES[row] :], 0)


@pytest.mark.parametrize('fill', [np.nan, np.inf])
def test_masked_samples_change_nothing_to_the_bit(frames, fill):
    spoilt = front_end({}, Ragged(np.where(MASK, CLIPS, fill).astype(np.float32), MASK))
    jax.tree.map(np.testing.assert_array_equal, frames, spoilt)


def test_gradients_are_finite_where_a_band_is_silent():
    silence = np.where(np.arange(110)[None] < 60, CLIPS, 0).astype(np.float32)

    @quick.jit
    @jax.grad
    def gradient(values):
        return jnp.sum(LogMel(**OPTIONS).apply({}, Ragged(values, MASK)).values ** 2)

    assert np.isfinite(gradient(silence)).all()
