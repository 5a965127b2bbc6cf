"""Speech towers out of files: every name has its place, and what comes out computes what plain numpy computes."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmtl_jax import encoders, pretrained
from mmtl_jax.core.build import build
from mmtl_jax.core.types import Ragged
from mmtl_jax.data import transforms
from mmtl_jax.encoders.whisper import sinusoids
from tests import quick
from tests.pretrained.tiny_speech import (
    FRAMES,
    SAMPLES,
    WAV2VEC2,
    WHISPER,
    XLSR,
    Plain,
    log_mels,
    waveforms,
    weights,
    write_folder,
)

CASES = {
    'base': (pretrained.wav2vec2, WAV2VEC2),
    'XLSR': (pretrained.wav2vec2, XLSR),
    'Whisper': (pretrained.whisper, WHISPER),
}
OLD_NAMES = {'parametrizations.weight.original0': 'weight_g', 'parametrizations.weight.original1': 'weight_v'}


def run(tower, inputs):
    """Returns features and what is sown."""

    def forward(params, inputs):
        return tower.encoder.apply({'params': params}, inputs, train=False, mutable='intermediates')

    features, sown = quick.jit(forward)(tower.params, inputs)
    return features, sown['intermediates']


def assert_near(ours, expected):
    # float32 against float64: some 1e-7 for each of the dozens of sums on the way, relative to the largest value.
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def assert_row(row, kept, features, sown, states, tokens):
    for ours, expected in zip(sown['hidden_states'], states, strict=True):
        assert_near(ours[row][kept], expected)
        assert not ours[row][~kept].any()
    assert_near(features.tokens[row][kept], tokens)


@pytest.mark.parametrize('config', [WAV2VEC2, XLSR], ids=['base', 'XLSR'])
def test_a_padded_batch_of_waveforms_is_what_plain_numpy_makes_of_each_alone(tmp_path, config):
    arrays = weights(config)
    tower = pretrained.wav2vec2(write_folder(tmp_path, arrays, config))
    features, sown = run(tower, waveforms())
    np.testing.assert_array_equal(features.mask.sum(axis=1), [9, 6, 1])
    for row, samples in enumerate(SAMPLES):
        kept = np.asarray(features.mask)[row]
        conv_features, states, tokens = Plain(arrays).wav2vec2(waveforms().values[row, :samples], config)
        assert_near(sown['conv_features'][0][row][kept], conv_features)
        assert_row(row, kept, features, sown, states, tokens)


def test_padding_that_is_marked_as_real_counts_as_in_the_original(tmp_path):
    arrays = weights(WAV2VEC2)
    tower = pretrained.wav2vec2(write_folder(tmp_path, arrays, WAV2VEC2))
    values = waveforms().values
    features, _ = run(tower, Ragged(values, np.ones(values.shape, bool)))
    for row, alone in zip(features.tokens, values, strict=True):
        assert_near(row, Plain(arrays).wav2vec2(alone, WAV2VEC2)[-1])


def test_a_padded_batch_of_frames_is_what_plain_numpy_makes_of_each_alone(tmp_path):
    arrays = weights(WHISPER)
    tower = pretrained.whisper(write_folder(tmp_path, arrays, WHISPER))
    features, sown = run(tower, log_mels())
    np.testing.assert_array_equal(features.mask.sum(axis=1), [6, 4, 1])
    for row, frames in enumerate(FRAMES):
        kept = np.asarray(features.mask)[row]
        states, tokens = Plain(arrays).whisper(log_mels().values[row, :frames], WHISPER)
        assert_row(row, kept, features, sown, states, tokens)


def test_positions_of_an_untrained_whisper_are_sinusoids():
    phases = np.arange(4)[:, None] * 10_000.0 ** (-np.arange(4) / 3)
    expected = np.concatenate([np.sin(phases), np.cos(phases)], axis=1)
    np.testing.assert_allclose(sinusoids(jax.random.key(0), (4, 8)), expected, atol=1e-6)
    # An odd width has a cosine less.
    assert sinusoids(jax.random.key(0), (4, 7)).shape == (4, 7)


@pytest.mark.parametrize('names', [{}, OLD_NAMES], ids=['new names', 'old names'])
@pytest.mark.parametrize('headed', [False, True])
@pytest.mark.parametrize('case', CASES)
def test_round_trip_to_the_bit_with_every_name_accounted_for(tmp_path, case, headed, names):
    convert, config = CASES[case]
    prefix = {'wav2vec2': 'wav2vec2.', 'whisper': 'model.'}[config['model_type']] if headed else ''
    arrays = weights(config, prefix)
    for new, old in names.items():
        arrays = {name.replace(new, old): array for name, array in arrays.items()}
    tower = convert(write_folder(tmp_path / 'in', arrays, config))
    assert {*tower.report.loaded, *tower.report.unused} == set(arrays)
    assert len(tower.report.loaded) == len(jax.tree.leaves(tower.params))
    assert not tower.report.problems()
    tower.export(tmp_path / 'out')
    exported = pretrained.read_weights(tmp_path / 'out')
    assert set(exported) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(exported[name].view(np.int32), array.view(np.int32), err_msg=name)
    assert json.loads((tmp_path / 'out' / 'config.json').read_text()) == config


def test_old_and_new_names_of_the_normalised_kernel_give_the_same_parameters(tmp_path):
    arrays = weights(XLSR)
    tower = pretrained.wav2vec2(write_folder(tmp_path, arrays, XLSR))
    for new, old in OLD_NAMES.items():
        arrays = {name.replace(new, old): array for name, array in arrays.items()}
    again = pretrained.wav2vec2(write_folder(tmp_path, arrays, XLSR))
    jax.tree.map(np.testing.assert_array_equal, again.params, tower.params)


@pytest.mark.parametrize('case', CASES)
def test_the_configuration_decides_the_sizes_and_fields_are_added(tmp_path, case):
    convert, config = CASES[case]
    tower = pretrained.load(
        convert(write_folder(tmp_path, weights(config), config), dropout_rate=0.1).encoder.__class__.__name__,
        tmp_path,
        dropout_rate=0.1,
    )
    encoder = tower.encoder
    assert (encoder.width, encoder.depth, encoder.num_heads, encoder.mlp_width) == (12, 2, 3, 20)
    assert encoder.dropout_rate == 0.1
    # A field that is a list could not be hashed.
    assert hash(encoder) == hash(convert(tmp_path, dropout_rate=0.1).encoder)


@pytest.mark.parametrize('case', ['base', 'Whisper'])
def test_arithmetic_of_less_precision(tmp_path, case):
    convert, config = CASES[case]
    arrays = weights(config)
    tower = convert(write_folder(tmp_path, arrays, config), dtype=jnp.bfloat16)
    clips, forward = (log_mels(), Plain(arrays).whisper) if config is WHISPER else (waveforms(), Plain(arrays).wav2vec2)
    tokens = run(tower, clips)[0].tokens
    assert tokens.dtype == jnp.float32
    # bfloat16 keeps 8 bits of values that reach some 3 here.
    assert 1e-4 < np.abs(tokens[0] - forward(clips.values[0], config)[-1]).max() < 0.3


@pytest.mark.parametrize(
    ('case', 'change', 'message'),
    [
        ('base', {'model_type': 'hubert'}, "is a model of type 'hubert'; pretrained.wav2vec2 reads wav2vec2"),
        ('Whisper', {'model_type': 'wav2vec2'}, "is a model of type 'wav2vec2'; pretrained.whisper reads whisper"),
        ('base', {'hidden_size': None}, "lacks 'hidden_size'"),
        ('base', {'add_adapter': True}, 'is a wav2vec2 with add_adapter=True; pretrained.wav2vec2 reads False'),
        ('base', {'adapter_attn_dim': 16}, 'with adapter_attn_dim=16'),
        ('base', {'feat_extract_activation': 'relu'}, "with feat_extract_activation='relu'"),
        ('base', {'feat_extract_norm': 'batch'}, "conv_norm must be one of group, layer, got 'batch'"),
        ('base', {'conv_stride': [5]}, 'must be of one length, got 2, 2 and 1'),
        ('base', {'num_hidden_layers': 3}, r'does not fit Wav2Vec2: 16 missing \(encoder.layers.2'),
        ('XLSR', {'feat_extract_norm': 'group'}, r'2 unexpected \(feature_extractor.conv_layers.1.layer_norm.bias'),
        ('Whisper', {'max_source_positions': 7}, r'embed_positions.weight: \(6, 12\), expected \(7, 12\)'),
        ('Whisper', {'activation_function': 'silu'}, "activation must be one of gelu, .*, got 'silu'"),
    ],
)
def test_another_architecture_is_told(tmp_path, case, change, message):
    convert, config = CASES[case]
    changed = {name: value for name, value in {**config, **change}.items() if value is not None}
    with pytest.raises(ValueError, match=message):
        convert(write_folder(tmp_path, weights(config), changed))


def test_other_weights_are_told(tmp_path):
    with pytest.raises(ValueError, match=r'holds no wav2vec 2.0: there is no feature_extractor.conv_layers.0.conv'):
        pretrained.wav2vec2(write_folder(tmp_path, weights(WHISPER), WAV2VEC2))
    with pytest.raises(ValueError, match=r'holds no Whisper: there is no encoder.conv1.weight'):
        pretrained.whisper(write_folder(tmp_path, weights(WAV2VEC2), WHISPER))


@pytest.mark.parametrize(
    ('encoder', 'values', 'message'),
    [
        (encoders.Wav2Vec2(width=8), np.zeros((1, 500), np.int16), r'must be floats \[B, L\], got int16 \(1, 500\)'),
        (encoders.Wav2Vec2(width=8), np.zeros((1, 399), np.float32), '399 samples are shorter than the 400'),
        (encoders.Whisper(width=8, num_mels=5), np.zeros((1, 4, 6)), r'must be \[B, T, 5\], got \(1, 4, 6\)'),
        (encoders.Whisper(width=8, max_length=3), np.zeros((1, 7, 6)), '7 frames are more than the 6'),
    ],
)
def test_inputs_that_do_not_fit_are_told(encoder, values, message):
    with pytest.raises(ValueError, match=message):
        encoder.apply({}, Ragged(values, np.ones(values.shape[:2], bool)), train=False)


PREPROCESSING = {
    'wav2vec2': {'feature_extractor_type': 'Wav2Vec2FeatureExtractor', 'sampling_rate': 16000, 'do_normalize': False},
    # As the first files were published; config.json tells what they are for.
    'wav2vec2, old': {'sampling_rate': 16000, 'do_normalize': True},
    'whisper': {
        'feature_extractor_type': 'WhisperFeatureExtractor',
        'feature_size': 5,
        'chunk_length': 1,
        'sampling_rate': 16000,
        'n_fft': 400,
        'hop_length': 160,
    },
}


def write_preprocessing(folder, kind, **change):
    config = WHISPER if kind == 'whisper' else WAV2VEC2
    write_folder(folder, weights(config), config)
    (folder / 'preprocessor_config.json').write_text(json.dumps({**PREPROCESSING[kind], **change}))
    return folder


@pytest.mark.parametrize(
    ('kind', 'step', 'shape'),
    [
        ('wav2vec2', {'name': 'to_waveform', 'key': 'speech', 'normalise': False}, (16000,)),
        ('wav2vec2, old', {'name': 'to_waveform', 'key': 'speech', 'normalise': True}, (16000,)),
        ('whisper', {'name': 'whisper_log_mel', 'key': 'speech', 'num_mels': 5, 'seconds': 1}, (100, 5)),
    ],
)
def test_what_prepares_a_recording_is_read_beside_the_weights(tmp_path, kind, step, shape):
    folder = write_preprocessing(tmp_path / 'now', kind)
    later = write_preprocessing(tmp_path / 'later', kind)
    # As later versions of transformers write it.
    (later / 'preprocessor_config.json').unlink()
    (later / 'processor_config.json').write_text(json.dumps({'feature_extractor': PREPROCESSING[kind]}))
    assert pretrained.speech_preprocessing(later, 'speech', sample_rate=16000) == (step,)
    assert pretrained.speech_preprocessing(folder, 'speech', sample_rate=16000) == (step,)
    steps = pretrained.speech_preprocessing(folder, 'speech', sample_rate=8000, resample=True)
    example = {'speech': np.arange(8000, dtype=np.int16)}
    for spec in steps:
        example = build(spec, transforms)(example)
    assert example['speech'].shape == shape
    assert example['speech'].dtype == np.float32


@pytest.mark.parametrize(
    ('kind', 'change', 'options', 'message'),
    [
        (
            'whisper',
            {},
            {'sample_rate': 48000},
            'are for 16000 samples per second, the recordings have 48000; resample',
        ),
        ('whisper', {'hop_length': 100}, {}, 'has hop_length=100; the transform whisper_log_mel has 160'),
        ('whisper', {'dither': 0.1}, {}, 'has dither=0.1'),
        (
            'whisper',
            {'sampling_rate': 8000},
            {'sample_rate': 8000},
            'has sampling_rate=8000; the transform whisper_log_mel has 16000',
        ),
        (
            'wav2vec2',
            {'feature_extractor_type': 'ClapFeatureExtractor'},
            {},
            'is for a ClapFeatureExtractor; speech is',
        ),
    ],
)
def test_preprocessing_that_does_not_fit_is_told(tmp_path, kind, change, options, message):
    folder = write_preprocessing(tmp_path, kind, **change)
    with pytest.raises(ValueError, match=message):
        pretrained.speech_preprocessing(folder, 'speech', **{'sample_rate': 16000, **options})


def test_weights_without_a_file_of_preprocessing_are_told(tmp_path):
    folder = write_folder(tmp_path, weights(WHISPER), WHISPER)
    with pytest.raises(ValueError, match=r'there is no preprocessor_config\.json beside the weights of'):
        pretrained.speech_preprocessing(folder, 'speech', sample_rate=16000)
    (folder / 'processor_config.json').write_text('{}')
    with pytest.raises(ValueError, match='tells no preprocessing, no feature_extractor; get it again'):
        pretrained.speech_preprocessing(folder, 'speech', sample_rate=16000)
