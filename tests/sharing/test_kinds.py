"""Every scheme with every kind of encoder, every fusion and every head that reads fused features."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmtl_jax import encoders, fusion, heads, sharing
from mmtl_jax.core.tree import all_finite
from mmtl_jax.core.types import Features, Ragged
from tests import quick

ROWS, WIDTH = 3, 6
ENCODERS = {
    'image': encoders.ImageCNN(width=5, stage_widths=(4, 6)),
    'text': encoders.TextLSTM(vocab_size=9, width=4),
    'audio': encoders.AudioCNN(width=7, depth=1, stack=2),
    'table': encoders.TabularMLP(width=5, depth=1),
}


HEADS = {
    'Classification': heads.Classification(3),
    'MultiLabel': heads.MultiLabel(2),
    'Regression': heads.Regression(2),
    'CTC': heads.CTC(5),
}
# These read the maps of a picture.
DENSE = {
    'Segmentation': heads.Segmentation(2, width=4),
    'Detection': heads.Detection(2, width=4),
    'DenseRegression': heads.DenseRegression(width=4),
    'Keypoints': heads.Keypoints(2, width=4),
}


def inputs() -> dict[str, jax.Array | Ragged]:
    """Returns one input of each modality; row 1 has no text and no sound."""
    generator = np.random.default_rng(0)
    mask = np.arange(6)[None] < np.array([6, 0, 4])[:, None]
    return {
        'image': generator.uniform(size=(ROWS, 8, 8, 3)).astype(np.float32),
        'text': Ragged(generator.integers(1, 9, mask.shape).astype(np.int32), mask),
        'audio': Ragged(generator.normal(size=(*mask.shape, 3)).astype(np.float32), mask),
        'table': generator.normal(size=(ROWS, 3)).astype(np.float32),
    }


def encode() -> dict[str, Features]:
    """Returns what each encoder gives."""
    return {
        modality: encoder.init_with_output(jax.random.key(0), inputs()[modality], train=False)[0]
        for modality, encoder in ENCODERS.items()
    }


@functools.cache
def encoded_shapes() -> dict[str, Features]:
    """Returns the shapes of what each encoder gives."""
    return jax.eval_shape(encode)


@functools.cache
def fused_shapes() -> dict[str, Features]:
    """Returns the shapes of what fusions give, each of them once."""
    kinds = {}
    for name in fusion.__all__:
        module = getattr(fusion, name)(width=WIDTH)
        fused = jax.eval_shape(
            lambda read, module=module: module.init_with_output(jax.random.key(0), read, train=False)[0],
            encoded_shapes(),
        )
        features = Features(fused.tokens, fused.mask, fused.maps)
        kinds[str(features)] = features
    return kinds


class Model(nn.Module):
    """A scheme below the heads."""

    name_of_scheme: str
    tasks: tuple[str, ...] = tuple(HEADS)

    @nn.compact
    def __call__(self, features: Features, *, train: bool) -> dict[str, jax.Array]:
        """Returns the predictions of every head."""
        scheme = getattr(sharing, self.name_of_scheme)(tasks=self.tasks, width=WIDTH, name='sharing')
        shared = scheme(features, train=train)
        read_by = {**HEADS, **(DENSE if features.maps else {})}
        return {
            task: head.clone(parent=self, name=f'head_{task}')(shared[task], train=train)
            for task, head in read_by.items()
            if task in self.tasks
        }


def test_every_head_that_reads_fused_features_is_there():
    # Contrastive compares single modalities, before fusion.
    assert {*HEADS, *DENSE, 'Contrastive'} == set(heads.__all__)


@pytest.mark.parametrize('shapes', [encoded_shapes, pytest.param(fused_shapes, marks=pytest.mark.slow)])
@pytest.mark.parametrize('name', sharing.__all__)
def test_a_scheme_stands_between_every_encoder_or_fusion_and_every_head(name, shapes):
    for features in shapes().values():
        model = Model(name, tasks=(*HEADS, *(DENSE if features.maps else ())))
        predictions = jax.eval_shape(
            lambda read, model=model: model.init_with_output(jax.random.key(0), read, train=False)[0], features
        )
        assert predictions['Classification'].shape == (ROWS, 3)
        assert predictions['CTC']['logits'].shape == (*features.tokens.shape[:2], 5)
        if features.maps:
            assert predictions['Segmentation'].shape == (*features.maps[0].shape[:3], 2)


@pytest.fixture(scope='module')
def encoded() -> dict[str, Features]:
    return quick.jit(encode)()


@pytest.mark.slow
@pytest.mark.parametrize('name', sharing.__all__)
def test_a_step_on_every_kind_of_features_is_finite(name, encoded):
    model = Model(name, tasks=('CTC', 'Detection'))
    variables = {kind: quick.parameters(model, features, train=False) for kind, features in encoded.items()}

    def loss(variables):
        total = 0.0
        for kind, features in encoded.items():
            rngs = {'dropout': jax.random.key(0)}
            predictions = model.apply(variables[kind], features, train=True, rngs=rngs)
            floats = [leaf for leaf in jax.tree.leaves(predictions) if jnp.issubdtype(leaf.dtype, jnp.floating)]
            total += sum(jnp.sum(jnp.sin(leaf)) for leaf in floats)
        return total

    value, gradients = quick.jit(jax.value_and_grad(loss, allow_int=True))(variables)
    assert np.isfinite(value)
    assert all_finite(gradients)
    assert all(any(np.any(leaf) for leaf in jax.tree.leaves(gradients[kind]['params']['head_CTC'])) for kind in encoded)
