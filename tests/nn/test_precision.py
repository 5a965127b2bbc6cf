"""The type of the arithmetic: set for a whole model, and widened where numbers leave it."""

import jax.numpy as jnp
import numpy as np
import pytest

from mmtl_jax import encoders, fusion, heads, sharing
from mmtl_jax.model import MultiModalMultiTask
from mmtl_jax.nn import at_least_float32, in_dtype

MODEL = MultiModalMultiTask(
    encoders={
        'table': encoders.TabularMLP(width=4, depth=1),
        'image': encoders.LoRA(encoders.ImageCNN(width=4), targets='kernel'),
        'text': encoders.BagOfEmbeddings(vocab_size=5, width=4, dtype='float32'),
    },
    fusion=fusion.Concat(width=4),
    sharing=sharing.MMoE(tasks=('kind',), width=4),
    heads={'kind': heads.Classification(num_classes=2)},
    reads={'kind': 'fused'},
)


def test_every_part_of_a_model_is_set_but_those_that_have_a_type_of_their_own():
    model = in_dtype(MODEL, 'bfloat16')
    assert model.fusion == fusion.Concat(width=4, dtype='bfloat16')
    assert model.sharing.dtype == model.heads['kind'].dtype == model.encoders['table'].dtype == 'bfloat16'
    assert model.encoders['image'].encoder.dtype == 'bfloat16'
    assert model.encoders['text'] == MODEL.encoders['text']
    assert model.reads == MODEL.reads
    assert MODEL.fusion.dtype is None


def test_none_changes_nothing():
    assert in_dtype(MODEL, None) == MODEL


def test_what_is_no_type_of_floats_is_refused_by_the_module_that_gets_it():
    with pytest.raises(ValueError, match=r"TabularMLP: dtype must be a type of floats, such as 'bfloat16', got 'int8'"):
        in_dtype(MODEL, 'int8')


@pytest.mark.parametrize(('given', 'wide'), [('bfloat16', 'float32'), ('float16', 'float32'), ('float32', 'float32')])
def test_few_bits_are_widened(given, wide):
    assert at_least_float32(jnp.ones(2, given)).dtype == np.dtype(wide)
