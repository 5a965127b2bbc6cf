"""Floor 2: sources, transforms and the input pipeline.

From a name to batches: `load_source` -> `build_preprocess` -> `prepare` -> `make_layout` -> `train_loader` or
`eval_loader` -> `prefetch_to_device`.
"""

from mmtl_jax.data.corrupt import CORRUPTIONS, CorruptInput, corrupt_input, corruption_names
from mmtl_jax.data.fitting import fit_vocabularies
from mmtl_jax.data.join import Joined, joined
from mmtl_jax.data.layout import Layout, empty_batch, make_layout
from mmtl_jax.data.numpy_files import array_folder
from mmtl_jax.data.pipeline import EvalLoader, TrainLoader, eval_loader, train_loader
from mmtl_jax.data.prefetch import DeviceIterator, prefetch_to_device, to_device
from mmtl_jax.data.prepared import PreparedSource, prepare
from mmtl_jax.data.preprocess import Field, Preprocess, build_preprocess
from mmtl_jax.data.sampling import Sampling
from mmtl_jax.data.side_table import SideTable, SourceWithTables, distinct_rows, fingerprint, write_side_table
from mmtl_jax.data.sources import SequenceSource, Source, load_source, read_values
from mmtl_jax.data.tokenizers import decode, fit_vocabulary, normalise_text

__all__ = [
    'CORRUPTIONS',
    'CorruptInput',
    'DeviceIterator',
    'EvalLoader',
    'Field',
    'Joined',
    'Layout',
    'PreparedSource',
    'Preprocess',
    'Sampling',
    'SequenceSource',
    'SideTable',
    'Source',
    'SourceWithTables',
    'TrainLoader',
    'array_folder',
    'build_preprocess',
    'corrupt_input',
    'corruption_names',
    'decode',
    'distinct_rows',
    'empty_batch',
    'eval_loader',
    'fingerprint',
    'fit_vocabularies',
    'fit_vocabulary',
    'joined',
    'load_source',
    'make_layout',
    'normalise_text',
    'prefetch_to_device',
    'prepare',
    'read_values',
    'to_device',
    'train_loader',
    'write_side_table',
]
