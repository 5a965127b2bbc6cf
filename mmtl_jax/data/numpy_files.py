"""A data set that is a folder of numpy files, as some papers hand out what they have prepared."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from mmtl_jax.core.files import array_of
from mmtl_jax.data.sources import SequenceSource
from mmtl_jax.data.transforms.base import Example


def array_folder(
    split: str, *, folder: str, keys: Mapping[str, str], pictures: Sequence[str] = ('image',), homepage: str = ''
) -> SequenceSource:
    """Returns the examples of `<folder>/<split>/<name>/<number>.npy`, one file for each value of an example.

    A config names it as a source by its dotted path, with the rest as `builder_kwargs`.

    Args:
      split: the name of the folder in `folder`.
      folder: where the data set is; `~` stands for the home directory.
      keys: key of the example -> name of the folder with its files.
      pictures: keys of pictures of floats in [0, 1], which become bytes, as the transforms of pictures take them.
      homepage: where the files can be had, for the error where they lack.

    Raises:
      ValueError: there is no such folder, or a value without a file.
    """
    root = pathlib.Path(folder).expanduser() / split
    first = next(iter(keys.values()))
    numbers = sorted(int(path.stem) for path in (root / first).glob('*.npy') if path.stem.isdigit())
    if not numbers:
        where = f' from {homepage}' if homepage else ''
        raise ValueError(
            f'{root / first} holds no files 0.npy, 1.npy and so on; put what you download{where} into {folder}, so '
            f'that there are {", ".join(f"{split}/{name}" for name in keys.values())}.'
        )
    for name in keys.values():
        lacking = next((number for number in numbers if not (root / name / f'{number}.npy').exists()), None)
        if lacking is not None:
            raise ValueError(f'{root / name} lacks {lacking}.npy, which {root / first} has; download them anew.')
    return SequenceSource(ArrayFolder(root, tuple(numbers), dict(keys), tuple(pictures)), root.parent.name, split)


@dataclasses.dataclass(frozen=True)
class ArrayFolder:
    """Random access to the examples; a file is read when it is asked for.

    Attributes:
      root: the folder of the split.
      numbers: of the examples.
      keys: key -> name of the folder.
      pictures: keys of pictures of floats.
    """

    root: pathlib.Path
    numbers: tuple[int, ...]
    keys: Mapping[str, str]
    pictures: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> Example:
        number = self.numbers[index]
        example = {key: array_of((self.root / name / f'{number}.npy').read_bytes()) for key, name in self.keys.items()}
        for key in self.pictures:
            example[key] = _to_bytes(example[key], self.root / self.keys[key] / f'{number}.npy')
        return {'id': f'{self.root.name}/{number}', **example}


def _to_bytes(picture: np.ndarray, path: pathlib.Path) -> np.ndarray:
    """Returns a picture of floats in [0, 1] as bytes."""
    if picture.dtype.kind != 'f' or picture.min() < 0 or picture.max() > 1:
        raise ValueError(
            f'{path} has values of {picture.dtype} from {picture.min()} to {picture.max()}, expected a picture of '
            'floats from 0 to 1; leave its key out of pictures if it needs no change.'
        )
    return np.round(picture * 255).astype(np.uint8)
