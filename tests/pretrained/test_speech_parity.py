"""Speech towers against `transformers`: random weights in, the same states, tokens, gradients and features out.

`pip install mmtl_jax[parity]`; without it these tests skip, and those of test_speech.py compare with plain numpy.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmtl_jax import pretrained
from mmtl_jax.core.types import Ragged
from mmtl_jax.data import transforms
from tests import quick
from tests.pretrained.tiny_speech import SAMPLES, WAV2VEC2, WHISPER, XLSR, log_mels, waveforms

torch = pytest.importorskip('torch', reason='pip install mmtl_jax[parity]')
transformers = pytest.importorskip('transformers', reason='pip install mmtl_jax[parity]')

# What the models have beside the encoder, small.
HEADS = {
    'wav2vec2': {'vocab_size': 5},
    'whisper': {
        **{'vocab_size': 9, 'decoder_layers': 1, 'decoder_attention_heads': 3, 'decoder_ffn_dim': 20},
        **{'max_target_positions': 5, 'pad_token_id': 0, 'bos_token_id': 0, 'eos_token_id': 0},
        **{'decoder_start_token_id': 1, 'begin_suppress_tokens': None},
    },
}
# No published form, but a configuration can say so.
MIXED = {**WAV2VEC2, 'do_stable_layer_norm': True, 'conv_bias': True}


def original(name: str, values: dict) -> 'torch.nn.Module':
    """Returns a model with random weights, the scales and biases too, in evaluation."""
    torch.manual_seed(0)
    kind = {'wav2vec2': transformers.Wav2Vec2Config, 'whisper': transformers.WhisperConfig}[values['model_type']]
    options = {key: value for key, value in values.items() if key != 'model_type'} | HEADS[values['model_type']]
    model = getattr(transformers, name)(kind(**options)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.4)
            # Scales around 1, so that states do not vanish.
            parameter.add_(1.0 if parameter.ndim == 1 else 0.0)
    return model


def forward_and_gradient(tower, inputs: Ragged):
    """Returns features, what is sown, and the gradient of the sum of the sines of the real tokens by the input."""

    def objective(values, mask, variables):
        features, sown = tower.encoder.apply(variables, Ragged(values, mask), train=False, mutable='intermediates')
        # sin(0) is 0: masked tokens, which are zero, do not count.
        return jnp.sum(jnp.sin(features.tokens)), (features, sown['intermediates'])

    gradient, (features, sown) = quick.jit(jax.grad(objective, has_aux=True))(
        jnp.asarray(inputs.values), jnp.asarray(inputs.mask), tower.variables
    )
    return features, sown, gradient


def assert_near(ours, theirs, what=''):
    theirs = theirs.detach().numpy() if isinstance(theirs, torch.Tensor) else theirs
    # Relative to the largest value: a sum of some hundred products cannot keep the digits of one that happens to be 0.
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5 * np.abs(theirs).max(), err_msg=what, strict=True)


def run_original(model, values, mask=None):
    """Returns outputs for waveforms `[B, L]`, the token mask `[B, N]`, and the gradient as above."""
    leaf = torch.tensor(values, requires_grad=True)
    attention = None if mask is None else torch.tensor(mask).long()
    # The original writes zeros into its argument's descendants in place, so not into a leaf.
    output = model(leaf * 1, attention_mask=attention, output_hidden_states=True)
    tokens = output.last_hidden_state
    real = torch.ones(tokens.shape[:2], dtype=torch.bool)
    if mask is not None:
        real = model._get_feature_vector_attention_mask(tokens.shape[1], attention)
    torch.sum(torch.sin(tokens[real])).backward()
    return output, real.numpy(), leaf.grad.numpy()


def compare(features, sown, gradient, theirs, row=slice(None), samples=slice(None)):
    """Compares the real tokens of a row, or of all, with what `run_original` returned."""
    output, real, their_gradient = theirs
    kept = np.asarray(features.mask)[row]
    np.testing.assert_array_equal(kept[..., : real.shape[-1]], real if isinstance(row, slice) else real[0])
    assert not kept[..., real.shape[-1] :].any()
    pairs = [('features', sown['conv_features'][0], output.extract_features)]
    assert len(sown['hidden_states']) == len(output.hidden_states)
    pairs += [
        (f'state {i}', *pair) for i, pair in enumerate(zip(sown['hidden_states'], output.hidden_states, strict=True))
    ]
    pairs.append(('tokens', features.tokens, output.last_hidden_state))
    for what, ours, expected in pairs:
        assert_near(np.asarray(ours)[row][kept], expected.detach().numpy()[real], what)
    expected = their_gradient if isinstance(row, slice) else their_gradient[0]
    assert np.abs(expected).max() > 1e-3
    assert_near(np.asarray(gradient)[row][samples], expected, 'gradient')


@pytest.mark.parametrize(
    'config',
    [WAV2VEC2, XLSR, pytest.param(MIXED, marks=pytest.mark.slow)],
    ids=['base', 'XLSR', 'group and pre-norm'],
)
def test_wav2vec2_gives_each_clip_what_the_original_gives_it_alone(tmp_path, config):
    model = original('Wav2Vec2Model', config)
    model.save_pretrained(tmp_path)
    features, sown, gradient = forward_and_gradient(pretrained.wav2vec2(tmp_path), waveforms())
    for row, samples in enumerate(SAMPLES):
        theirs = run_original(model, waveforms().values[row : row + 1, :samples])
        compare(features, sown, gradient, theirs, row, slice(samples))
        assert not np.asarray(gradient)[row, samples:].any()


def test_xlsr_gives_a_padded_batch_what_the_original_gives_it_with_its_attention_mask(tmp_path):
    model = original('Wav2Vec2Model', XLSR)
    model.save_pretrained(tmp_path)
    theirs = run_original(model, waveforms().values, waveforms().mask)
    compare(*forward_and_gradient(pretrained.wav2vec2(tmp_path), waveforms()), theirs)


def test_base_gives_a_batch_padded_with_zeros_what_the_original_gives_it_without_a_mask(tmp_path):
    model = original('Wav2Vec2Model', WAV2VEC2)
    model.save_pretrained(tmp_path)
    values = waveforms().values
    ours = forward_and_gradient(pretrained.wav2vec2(tmp_path), Ragged(values, np.ones(values.shape, bool)))
    compare(*ours, run_original(model, values))


def run_whisper(model, frames):
    """Returns the hidden states, the last one normalised, and the gradient by the frames `[T, mels]`."""
    leaf = torch.tensor(frames[None], requires_grad=True)
    output = model.encoder(leaf.transpose(1, 2), output_hidden_states=True)
    torch.sum(torch.sin(output.last_hidden_state)).backward()
    return [state[0] for state in output.hidden_states], leaf.grad[0]


def test_whisper_gives_whole_clips_what_the_original_gives_them_and_short_ones_what_fewer_positions_would(tmp_path):
    model = original('WhisperModel', WHISPER)
    model.save_pretrained(tmp_path)
    shorter = original('WhisperModel', {**WHISPER, 'max_source_positions': 4})
    state = model.state_dict()
    state['encoder.embed_positions.weight'] = state['encoder.embed_positions.weight'][:4]
    shorter.load_state_dict(state)
    # The original takes as many frames as it has positions for, 12 and 8.
    counts = np.array([12, 8])
    inputs = Ragged(log_mels().values[[0, 0]], np.arange(12)[None] < counts[:, None])
    features, sown, gradient = forward_and_gradient(pretrained.whisper(tmp_path), inputs)
    np.testing.assert_array_equal(features.mask.sum(axis=1), counts // 2)
    for row, (count, theirs) in enumerate(zip(counts, (model, shorter), strict=True)):
        (*states, last), expected = run_whisper(theirs, inputs.values[row, :count])
        # The original hands out the last one normalised.
        for ours, state in zip(sown['hidden_states'][:-1], states, strict=True):
            assert_near(ours[row, : count // 2], state)
        assert_near(features.tokens[row, : count // 2], last)
        assert_near(gradient[row, :count], expected)


@pytest.mark.parametrize(
    ('name', 'config'),
    [
        ('Wav2Vec2Model', WAV2VEC2),
        ('Wav2Vec2ForCTC', XLSR),
        ('Wav2Vec2ForPreTraining', WAV2VEC2),
        ('Wav2Vec2ForSequenceClassification', WAV2VEC2),
        ('WhisperModel', WHISPER),
        ('WhisperForConditionalGeneration', WHISPER),
        ('WhisperForAudioClassification', WHISPER),
    ],
)
def test_an_exported_tower_is_loaded_by_the_original_library(tmp_path, name, config):
    model = original(name, config)
    model.save_pretrained(tmp_path / 'in')
    tower = pretrained.load(config['model_type'].capitalize().replace('vec', 'Vec'), tmp_path / 'in')
    assert not tower.report.problems()
    tower.export(tmp_path / 'out')
    again, report = type(model).from_pretrained(tmp_path / 'out', output_loading_info=True)
    assert not any(report.values()), report
    for key, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key


@pytest.mark.slow
@pytest.mark.parametrize(('kind', 'shape'), [('Wav2Vec2', (1, 24000)), ('Whisper', (1, 3000, 80))])
def test_the_sizes_of_base_and_tiny(tmp_path, kind, shape):
    torch.manual_seed(0)
    model = getattr(transformers, f'{kind}Model')(getattr(transformers, f'{kind}Config')()).eval()
    model.save_pretrained(tmp_path)
    tower = pretrained.load(kind, tmp_path)
    assert not tower.report.problems()
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    inputs = Ragged(values, np.ones(shape[:2], bool))
    tokens = jax.jit(lambda variables: tower.encoder.apply(variables, inputs, train=False).tokens)(tower.variables)
    with torch.no_grad():
        leaf = torch.tensor(values)
        output = model(leaf) if kind == 'Wav2Vec2' else model.encoder(leaf.transpose(1, 2))
    assert_near(tokens, output.last_hidden_state)


def sound(samples: int) -> np.ndarray:
    """Returns a tone that fades and a rising one in a little noise."""
    time = np.arange(samples) / 16000
    noise = np.random.default_rng(samples).normal(size=samples, scale=1e-3)
    tones = 0.3 * np.sin(2 * np.pi * 440 * time) * np.exp(-3 * time) + 0.1 * np.sin(2 * np.pi * 3000 * time**2)
    return (tones + noise).astype(np.float32)


@pytest.mark.parametrize('samples', [400, 50001])
def test_waveforms_are_those_of_the_original_feature_extractor(samples):
    extract = transformers.Wav2Vec2FeatureExtractor(do_normalize=True)
    expected = extract(sound(samples), sampling_rate=16000)['input_values'][0]
    ours = transforms.to_waveform('speech')({'speech': sound(samples)})['speech']
    # The same sums in the same order.
    np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize(('samples', 'num_mels'), [(100, 80), (16000, 128), (50001, 80), (480123, 80)])
def test_frames_are_those_of_the_original_feature_extractor(samples, num_mels):
    extract = transformers.WhisperFeatureExtractor(feature_size=num_mels)
    theirs = extract(sound(samples), sampling_rate=16000, return_attention_mask=True)
    ours = transforms.whisper_log_mel('speech', num_mels=num_mels)({'speech': sound(samples)})['speech']
    # Torch's spectrum is float32: 1e-7 of the largest amplitude is 1e-3 of one 80 dB below, here four times as near.
    np.testing.assert_allclose(ours, theirs['input_features'][0].T, atol=2e-4)
    # The original's own numpy, in float64.
    padded = np.pad(sound(samples)[:480000], (0, max(0, 480000 - samples)))
    expected = extract._np_extract_fbank_features(padded[None], 'cpu')[0].T
    np.testing.assert_allclose(ours, expected, atol=2e-5)
    short = transforms.whisper_log_mel('speech', num_mels=num_mels, seconds=None)({'speech': sound(samples)})['speech']
    if samples < 480000:
        assert len(short) == theirs['attention_mask'].sum()
        np.testing.assert_array_equal(short, ours[: len(short)])
