"""Published weights in files: safetensors, folders as model hubs lay them out, PyTorch's pickles."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from mmtl_jax.core.files import read_json, write_bytes_atomic
from mmtl_jax.pretrained.locate import locate
from mmtl_jax.pretrained.torch_pickle import read_torch_pickle

SAFETENSORS = 'model.safetensors'
# In the order in which a folder is searched: the safe format first.
WEIGHT_FILES = (SAFETENSORS, 'model.safetensors.index.json', 'pytorch_model.bin', 'pytorch_model.bin.index.json')
PICKLES = ('.bin', '.pth', '.pt')
INDEX = '.index.json'


def weights_file(path: str | Path) -> Path:
    """Returns the file that holds the weights of `path`, a file or a folder as a model hub lays it out.

    Args:
      path: on this machine, or what `locate` understands.

    Raises:
      ValueError: there is neither.
    """
    path = locate(path)
    if path.is_file():
        return path
    if not path.is_dir():
        raise ValueError(
            f'there is no file or folder {path}; give a .safetensors file or a folder with {SAFETENSORS} that is on '
            f'this machine.'
        )
    for name in WEIGHT_FILES:
        if (path / name).is_file():
            return path / name
    raise ValueError(f'the folder {path} holds no weights; expected one of {", ".join(WEIGHT_FILES)}.')


def read_weights(path: str | Path) -> dict[str, np.ndarray]:
    """Returns name -> array, as they stand in a file or a folder.

    Args:
      path: what `locate` understands, and there a `.safetensors` file; a `.bin`, `.pth` or `.pt` file of tensors that
        `torch.save` wrote, which is read without running anything in it; an `.index.json` that lists the files of a
        large model; or a folder with one of `WEIGHT_FILES`.

    Raises:
      ValueError: nothing is there, the format is another, or a file is cut off, damaged or holds more than tensors.
    """
    file = weights_file(path)
    if file.name.endswith(INDEX):
        return _read_shards(file)
    if file.suffix == '.safetensors':
        try:
            return safetensors.numpy.load_file(file)
        except (safetensors.SafetensorError, KeyError) as error:
            raise ValueError(f'{file} is cut off, damaged or no safetensors file ({error}); get it again.') from error
    if file.suffix in PICKLES:
        return read_torch_pickle(file)
    raise ValueError(f'{file} is not of a known format; expected .safetensors, {", ".join(PICKLES)} or a folder.')


def _read_shards(index: Path) -> dict[str, np.ndarray]:
    """Returns the arrays of a model that is spread over several files beside its index."""
    places, weights = _places(index), {}
    for file in shard_files(index):
        weights |= read_weights(file)
    lost = sorted(set(places) - set(weights))
    if lost:
        raise ValueError(f'{index} promises {lost[0]!r} and {len(lost) - 1} more, which no file holds; get it again.')
    return weights


def shard_files(index: Path) -> list[Path]:
    """Returns the files that an `.index.json` lists, sorted.

    Raises:
      ValueError: the index is damaged, or a file is not beside it.
    """
    files = [index.parent / name for name in sorted(set(_places(index).values()))]
    for file in files:
        if not file.is_file():
            raise ValueError(f'{index} names the file {file.name}, which is not beside it; get the missing part.')
    return files


def _places(index: Path) -> Mapping[str, str]:
    """Returns name -> name of the file that holds the array."""
    places = read_json(index)
    places = places.get('weight_map') if isinstance(places, Mapping) else None
    if not isinstance(places, Mapping) or any(Path(str(name)).name != name for name in places.values()):
        raise ValueError(f'{index} has no weight_map from names to files beside it; get it again.')
    return places


def write_weights(path: str | Path, weights: Mapping[str, np.ndarray]) -> None:
    """Writes name -> array to the safetensors file `path`, whole or not at all.

    Raises:
      ValueError: the name of the file does not end in `.safetensors`.
    """
    if Path(path).suffix != '.safetensors':
        raise ValueError(f'weights are written to a .safetensors file, got {path}.')
    arrays = {name: np.asarray(array, order='C') for name, array in weights.items()}
    # Readers of PyTorch's models ask for the format.
    write_bytes_atomic(path, safetensors.numpy.save(arrays, metadata={'format': 'pt'}))


def read_config(path: str | Path) -> dict[str, Any]:
    """Returns `config.json` of a folder, or from beside a file of weights.

    Raises:
      ValueError: there is none, or it is damaged.
    """
    folder = weights_file(path).parent
    if not (folder / 'config.json').is_file():
        raise ValueError(f'there is no config.json in {folder}, which tells the architecture; give it as config=.')
    config = read_json(folder / 'config.json')
    if not isinstance(config, dict):
        raise ValueError(f'{folder / "config.json"} holds a {type(config).__name__} instead of keys and values.')
    return config
