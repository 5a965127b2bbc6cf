"""One small generated data set, prepared once, for all tests of the input pipeline."""

import dataclasses

import pytest

from mmtl_jax import data
from tests.data import small


@dataclasses.dataclass(frozen=True)
class Prepared:
    """The training and validation rows, and what was made of the training split."""

    source: data.Source
    vocabularies: dict
    preprocess: data.Preprocess
    rows: data.PreparedSource
    validation: data.PreparedSource
    layout: data.Layout


@pytest.fixture(scope='session')
def data_dir(tmp_path_factory):
    return str(tmp_path_factory.mktemp('tensorflow_datasets'))


@pytest.fixture(scope='session')
def prepared(data_dir) -> Prepared:
    sources = {
        split: data.load_source('synthetic', split, data_dir=data_dir, builder_kwargs=small.NUMBERS)
        for split in ('train', 'validation')
    }
    vocabularies = data.fit_vocabularies(small.VOCABULARIES, sources['train'])
    preprocess = data.build_preprocess(
        inputs=small.INPUTS,
        targets=small.TARGETS,
        steps=small.STEPS,
        augment=small.AUGMENT,
        eval_steps=small.EVAL_STEPS,
        vocabularies=vocabularies,
    )
    rows, validation = (data.prepare(source, preprocess) for source in sources.values())
    layout = data.make_layout(rows, buckets=small.BUCKETS)
    return Prepared(sources['train'], vocabularies, preprocess, rows, validation, layout)
