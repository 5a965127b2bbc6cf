"""TFDS builders by name: made, prepared once, and one sentence on what to do where that cannot be done here."""

import contextlib
import importlib
import importlib.util
import inspect
import pathlib
import re
import sys
from collections.abc import Mapping
from typing import Any

import tensorflow_datasets as tfds
from tensorflow_datasets.core.utils import lazy_imports_utils

# Importing the module registers the builder with TFDS.
OWN_BUILDERS = {
    name: f'mmtl_jax.data.builders.{name}' for name in ('multi_mnist', 'stamp_scenes', 'stamps', 'synthetic')
}
# Where TFDS's builders reach for packages that TFDS does not depend on.
OPTIONAL_PACKAGE = re.compile(r'\blazy_imports\.(\w+)')
# Import name -> what to install, where they differ.
INSTALL = {'cv2': 'opencv-python', 'skimage': 'scikit-image', 'PIL_Image': 'pillow', 'bs4': 'beautifulsoup4'}


def make_builder(name: str, data_dir: str | None, builder_kwargs: Mapping[str, Any]) -> tfds.core.DatasetBuilder:
    """Returns the TFDS builder of a data set.

    Raises:
      ValueError: TFDS and this library know no such data set, or not even its description can be read here.
    """
    family = name.split('/')[0].split(':')[0]
    if family in OWN_BUILDERS:
        importlib.import_module(OWN_BUILDERS[family])
    try:
        # TFDS prints a banner beside its error, where TensorFlow is lacking.
        with contextlib.redirect_stdout(None):
            return tfds.builder(name, data_dir=data_dir, file_format='array_record', **builder_kwargs)
    except tfds.core.DatasetNotFoundError as error:
        raise ValueError(
            f'no data set {name!r}: expected one of {sorted(OWN_BUILDERS)}, a TFDS name '
            '(https://www.tensorflow.org/datasets/catalog), or the dotted path of a function that returns a source.'
        ) from error
    except ImportError as error:
        # Some, such as COCO's, use TensorFlow to describe themselves; what has been prepared describes itself.
        with contextlib.suppress(tfds.core.DatasetNotFoundError):
            return _from_files(name, data_dir, builder_kwargs)
        needed = [(error.name or 'tensorflow').split('.')[0]]
        raise ValueError(what_to_do(name, needed, data_dir)) from error


def _from_files(name: str, data_dir: str | None, builder_kwargs: Mapping[str, Any]) -> tfds.core.DatasetBuilder:
    """Returns the builder of what lies prepared in a folder, without the code that made it."""
    name, _, version = name.partition(':')
    family, _, config = name.partition('/')
    which = {key: value for key, value in (('config', config), ('version', version)) if value}
    return tfds.core.read_only_builder.builder_from_files(family, data_dir=data_dir, **which, **builder_kwargs)


def prepare_builder(name: str, data_dir: str | None, builder_kwargs: Mapping[str, Any]) -> None:
    """Prepares a data set, unless that was done before.

    Raises:
      ValueError: it cannot be prepared here; the sentence says what is needed, before anything is downloaded.
    """
    builder = make_builder(name, data_dir, builder_kwargs)
    if builder.is_prepared():
        return
    needed = missing_packages(type(builder))
    if needed:
        raise ValueError(what_to_do(name, needed, data_dir, by_hand(builder, data_dir)))
    try:
        builder.download_and_prepare(file_format='array_record')
    except ImportError as error:
        raise ValueError(what_to_do(name, [(error.name or 'tensorflow').split('.')[0]], data_dir)) from error
    except AssertionError as error:
        # TFDS asserts that files which only a person can obtain are in the manual folder.
        raise ValueError(f'preparing {name!r} needs files obtained by hand: {" ".join(str(error).split())}') from error
    except OSError as error:
        raise ValueError(f'{name!r} cannot be downloaded or written to {builder.data_dir}: {error}') from error


def missing_packages(builder: type) -> list[str]:
    """Returns the packages that the code of a TFDS builder reaches for and that are not installed here.

    TFDS imports them where they are first used, which may be after gigabytes have been downloaded.
    """
    module = sys.modules.get(builder.__module__)
    if module is None or not builder.__module__.startswith('tensorflow_datasets.'):
        return []
    needed = ['tensorflow'] if any(value is lazy_imports_utils.tensorflow for value in vars(module).values()) else []
    needed += sorted(set(OPTIONAL_PACKAGE.findall(inspect.getsource(module))))
    return [package for package in needed if not _is_installed(package)]


def by_hand(builder: tfds.core.DatasetBuilder, data_dir: str | None) -> str:
    """Returns what a person must download for a data set and where to put it, '' if nothing."""
    instructions = builder.MANUAL_DOWNLOAD_INSTRUCTIONS
    if not instructions:
        return ''
    folder = pathlib.Path(data_dir or '~/tensorflow_datasets') / 'downloads' / 'manual'
    return f' Before that, put into {folder} what only you can download: {" ".join(instructions.split())}'


def what_to_do(name: str, packages: list[str], data_dir: str | None, more: str = '') -> str:
    """Returns the sentence on a data set whose preparation needs packages that are not here."""
    words = ' and '.join(repr(package) for package in packages)
    install = ' '.join(INSTALL.get(package, package) for package in packages)
    folder = '' if data_dir is None else f"data_dir='{data_dir}', "
    return (
        f'preparing {name!r} needs the package{"s" * (len(packages) > 1)} {words}, which reading it afterwards does '
        f"not: pip install {install}, then python -c \"import tensorflow_datasets as tfds; tfds.builder('{name}', "
        f"{folder}file_format='array_record').download_and_prepare()\". Another machine may do it; its folder "
        f'{name.split("/")[0]!r} then belongs into {data_dir or "~/tensorflow_datasets"}.{more}'
    )


def _is_installed(package: str) -> bool:
    """Returns whether a package can be imported; TFDS calls parts of Pillow by names of its own."""
    return package.startswith('PIL_') or importlib.util.find_spec(package) is not None
