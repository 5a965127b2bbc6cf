"""Weights are known by what is in their files."""

import hashlib
from pathlib import Path

from mmtl_jax.pretrained.weights import INDEX, shard_files, weights_file


def content_hash(path: str | Path) -> str:
    """Returns the SHA-256 of the file of weights at `path`; for a model in several files, over those of all.

    It takes a second for each gigabyte or so.

    Args:
      path: file or folder of weights, as `read_weights` takes it.

    Raises:
      ValueError: there are none.
    """
    file = weights_file(path)
    if not file.name.endswith(INDEX):
        return _digest(file)
    return hashlib.sha256(''.join(_digest(part) for part in (file, *shard_files(file))).encode()).hexdigest()


def _digest(file: Path) -> str:
    with file.open('rb') as stream:
        return hashlib.file_digest(stream, 'sha256').hexdigest()
