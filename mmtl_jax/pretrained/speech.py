"""What belongs to speech towers: their configurations, and what prepares a recording for them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmtl_jax.pretrained.preprocessing import settings_beside
from mmtl_jax.pretrained.weights import read_config

SAMPLE_RATE = 16000
EXTRACTORS = {'wav2vec2': 'Wav2Vec2FeatureExtractor', 'whisper': 'WhisperFeatureExtractor'}
# What the spectrogram of `transforms.whisper_log_mel` is made with, in the words of the original.
WHISPER_FRAMES = {'hop_length': 160, 'n_fft': 400, 'dither': 0.0}


def configured(
    path: str | Path,
    config: Mapping[str, Any],
    kind: str,
    *,
    keys: Mapping[str, str],
    absent: Mapping[str, Any],
    only: Mapping[str, Any],
) -> dict[str, Any]:
    """Returns the fields of an encoder that an original configuration tells.

    Args:
      path: where it is from, for messages.
      config: the original configuration.
      kind: the `model_type` that is expected.
      keys: field of the encoder -> key of the configuration.
      absent: field -> what the original library takes where the key is absent.
      only: key -> the only value of it that the encoder knows, which is also that of an absent key.

    Raises:
      ValueError: another architecture or variant, or a key that is absent and has no default.
    """
    if config.get('model_type') != kind:
        raise ValueError(f'{path} is a model of type {config.get("model_type")!r}; pretrained.{kind} reads {kind}.')
    for name, value in only.items():
        if config.get(name, value) != value:
            raise ValueError(f'{path} is a {kind} with {name}={config[name]!r}; pretrained.{kind} reads {value!r}.')
    lost = [name for field, name in keys.items() if name not in config and field not in absent]
    if lost:
        raise ValueError(f'the configuration of {path} lacks {lost[0]!r}; get its config.json again.')
    values = {field: config.get(name, absent.get(field)) for field, name in keys.items()}
    return {field: tuple(value) if isinstance(value, list) else value for field, value in values.items()}


def speech_preprocessing(
    path: str | Path, key: str, *, sample_rate: int, resample: bool = False
) -> tuple[dict[str, Any], ...]:
    """Returns the transforms that make of a recording what published weights expect, as a config's `steps` take them.

    Args:
      path: file or folder of weights, with `preprocessor_config.json` or `processor_config.json` beside them.
      key: of the example, where the recording is and its frames or samples go.
      sample_rate: of the recordings, in samples per second.
      resample: whether recordings of another rate than the weights' are resampled; otherwise they are an error.

    Raises:
      ValueError: no such file, another sampling rate, or what the transforms do not do.
    """
    file, config = settings_beside(path, 'feature_extractor')
    if file is None:
        raise ValueError(
            f'there is no preprocessor_config.json beside the weights of {path}; get it, or write the steps yourself.'
        )
    # The first files to be published do not say what they are for.
    kind = config.get('feature_extractor_type') or EXTRACTORS.get(read_config(path).get('model_type'))
    expected = config.get('sampling_rate', SAMPLE_RATE)
    steps: tuple[dict[str, Any], ...] = ()
    if sample_rate != expected:
        if not resample:
            raise ValueError(
                f'the weights of {path} are for {expected} samples per second, the recordings have {sample_rate}; '
                f'resample them (resample=True, or the transform resample).'
            )
        steps = ({'name': 'resample', 'key': key, 'source_rate': sample_rate, 'target_rate': expected},)
    if kind == EXTRACTORS['wav2vec2']:
        return (*steps, {'name': 'to_waveform', 'key': key, 'normalise': config.get('do_normalize', True)})
    if kind != EXTRACTORS['whisper']:
        raise ValueError(f'{file} is for a {kind}; speech is prepared for {" and ".join(EXTRACTORS.values())}.')
    for name, value in {**WHISPER_FRAMES, 'sampling_rate': SAMPLE_RATE}.items():
        if config.get(name, value) != value:
            raise ValueError(f'{file} has {name}={config[name]!r}; the transform whisper_log_mel has {value!r}.')
    options = {'num_mels': config.get('feature_size', 80), 'seconds': config.get('chunk_length', 30)}
    return (*steps, {'name': 'whisper_log_mel', 'key': key, **options})
