"""The composition: which head reads what, where parameters stand, and what a missing modality may not touch."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmtl_jax import encoders, fusion, heads, sharing, tasks
from mmtl_jax.core.tree import all_finite, flatten_with_paths
from mmtl_jax.core.types import Batch, Features, Fused, Ragged
from mmtl_jax.model import MultiModalMultiTask, drop_modalities
from tests import quick

ROWS, WIDTH = 4, 6
READS = {'topic': 'fused', 'matching': ('text', 'speech'), 'transcript': 'speech', 'mood': 'fused'}
# Row 0 has everything, row 1 lacks the text, row 2 the speech, row 3 everything.
PRESENT = {'table': [1, 1, 1, 0], 'text': [1, 0, 1, 0], 'speech': [1, 1, 0, 0]}


class Echo(nn.Module):
    """A head that predicts what it reads, times a parameter."""

    @nn.compact
    def __call__(self, read, *, train: bool):
        """Returns the same structure."""
        scale = self.param('scale', nn.initializers.ones, ())
        return jax.tree.map(lambda leaf: leaf * scale if leaf.dtype == jnp.float32 else leaf, read)


def make_model(reads=READS, **members) -> MultiModalMultiTask:
    members = {
        'encoders': {
            'table': encoders.TabularMLP(width=5, depth=1),
            'text': encoders.BagOfEmbeddings(vocab_size=9, width=4),
            'speech': encoders.AudioCNN(width=WIDTH, depth=1, stack=2),
        },
        'fusion': fusion.Concat(width=WIDTH),
        'sharing': sharing.Split(tasks=tuple(task for task, read in reads.items() if read == 'fused'), width=WIDTH),
        'heads': {task: Echo() for task in reads},
    } | members
    return MultiModalMultiTask(reads=reads, **members)


def make_batch(fill: float = 0.0) -> Batch:
    """Returns a batch with `fill`, or an id out of range for it, in rows that lack a modality; masks there are True."""
    generator = np.random.default_rng(0)
    present = {modality: np.array(rows, bool) for modality, rows in PRESENT.items()}
    table = np.where(present['table'][:, None], generator.normal(size=(ROWS, 3)), fill).astype(np.float32)
    ids = np.where(present['text'][:, None], generator.integers(1, 9, (ROWS, 5)), 0 if fill == 0 else 99)
    frames = np.where(present['speech'][:, None, None], generator.normal(size=(ROWS, 6, 3)), fill).astype(np.float32)
    return Batch(
        inputs={
            'table': table,
            'text': Ragged(ids.astype(np.int32), np.ones(ids.shape, bool)),
            'speech': Ragged(frames, np.ones(frames.shape[:2], bool)),
        },
        present=present,
        targets={},
        labelled={},
        real=np.ones(ROWS, bool),
    )


@pytest.fixture(scope='module')
def model() -> MultiModalMultiTask:
    return make_model()


@pytest.fixture(scope='module')
def variables(model):
    return quick.parameters(model, make_batch(), train=False)


@pytest.fixture(scope='module')
def step(model):
    """Returns a function of variables and batch that gives the gradient of all predictions, and the predictions."""

    def objective(variables, batch):
        predictions = model.apply(variables, batch, train=False)
        leaves = jax.tree.leaves(predictions)
        return sum(jnp.sum(jnp.sin(leaf + 0.1)) for leaf in leaves if leaf.dtype == jnp.float32), predictions

    return quick.jit(jax.grad(objective, has_aux=True))


def test_shared_parameters_stand_apart_from_those_of_heads(variables):
    parameters = variables['params']
    assert set(parameters) == {'encoders', 'fusion', 'sharing', 'heads'}
    assert set(parameters['encoders']) == set(PRESENT)
    assert set(parameters['heads']) == set(READS)


def test_each_head_reads_what_its_task_names(model, variables, step):
    batch, parameters = make_batch(), variables['params']

    @quick.jit
    def compose():
        encoded = {}
        for modality, encoder in model.encoders.items():
            features = encoder.apply({'params': parameters['encoders'][modality]}, batch.inputs[modality], train=False)
            present = batch.present[modality][:, None]
            encoded[modality] = Features(features.tokens * present[..., None], features.mask & present)
        fused = model.fusion.apply({'params': parameters['fusion']}, encoded, train=False)
        return encoded, model.sharing.apply({'params': parameters['sharing']}, fused, train=False)

    encoded, shared = compose()
    expected = {
        'topic': shared['topic'],
        'mood': shared['mood'],
        'transcript': encoded['speech'],
        'matching': {'text': encoded['text'], 'speech': encoded['speech']},
    }
    # Another program sums in another order.
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), step(variables, batch)[1], expected)


def test_a_missing_modality_has_no_real_token(variables, step):
    matching = step(variables, make_batch())[1]['matching']
    for modality in ('text', 'speech'):
        present = np.array(PRESENT[modality], bool)
        np.testing.assert_array_equal(matching[modality].mask.any(axis=1), present)
        assert not matching[modality].tokens[~present].any()


@pytest.mark.parametrize('fill', [np.nan, np.inf])
def test_what_stands_in_place_of_a_missing_modality_changes_nothing_to_the_bit(variables, step, fill):
    clean, spoilt = step(variables, make_batch()), step(variables, make_batch(fill))
    assert all_finite(clean)
    jax.tree.map(np.testing.assert_array_equal, clean, spoilt)


def test_the_order_of_modalities_and_tasks_does_not_matter(model, variables, step):
    def reverse(mapping):
        return dict(reversed(mapping.items()))

    backwards = make_model(reverse(READS), encoders=reverse(model.encoders), sharing=model.sharing)
    batch = make_batch()
    batch = batch.replace(inputs=reverse(batch.inputs), present=reverse(batch.present))
    # The batch of a closure keeps its order; that of an argument jit would sort.
    predictions = quick.jit(lambda: backwards.apply(variables, batch, train=False))()
    # Another program sums in another order.
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), predictions, step(variables, batch)[1])


def test_the_way_has_three_parts(model, variables, step):
    @quick.jit
    def in_parts():
        z = model.apply(variables, make_batch(), train=False, method='features')
        features = model.apply(variables, z, train=False, method='share')
        return z, features, model.apply(variables, features, train=False, method='answer')

    z, features, predictions = in_parts()
    assert set(z) == {'fused', 'text', 'speech'}
    assert set(features) == set(READS)
    # Another program sums in another order.
    close = functools.partial(np.testing.assert_allclose, atol=1e-5)
    jax.tree.map(close, predictions, step(variables, make_batch())[1])


def test_a_model_that_reads_single_modalities_neither_fuses_nor_shares():
    model = make_model({'transcript': 'speech'})
    parameters = quick.parameters(model, make_batch(), train=False)['params']
    assert set(parameters) == {'encoders', 'heads'}


class Rebuilding(nn.Module):
    """A fusion with two objectives: a loss of each row, and one that only counts."""

    @nn.compact
    def __call__(self, features, *, train: bool) -> Fused:
        """Returns the sum of the modalities' widest entries."""
        fused = fusion.Sum(width=WIDTH)(features, train=train)
        loss = jnp.mean(jnp.square(fused.tokens), axis=(1, 2))
        return Fused(fused.tokens, fused.mask, objectives={'size': loss, 'count': jnp.ones_like(loss)})


def test_a_task_learns_an_objective_of_the_fusion():
    task = tasks.auxiliary('small', objective='size')
    model = make_model(
        {'topic': 'fused', 'small': task.reads}, fusion=Rebuilding(), heads={'topic': Echo(), 'small': task.head}
    )
    variables = quick.parameters(model, make_batch(), train=False)
    assert set(variables['params']['heads']) == {'topic'}

    @quick.jit
    def run():
        z = model.apply(variables, make_batch(), train=False, method='features')
        return z, model.apply(variables, z, train=False, method='predict')

    z, predictions = run()
    assert set(z) == {'fused', 'fused/size'}, 'an objective that no task learns goes no further'
    assert type(z['fused']) is Features
    np.testing.assert_array_equal(predictions['small'], z['fused/size'])
    np.testing.assert_allclose(z['fused/size'], np.mean(np.square(z['fused'].tokens), axis=(1, 2)), rtol=1e-6)


def test_an_objective_alone_needs_no_sharing():
    task = tasks.auxiliary('size')
    model = make_model({'size': task.reads}, fusion=Rebuilding(), heads={'size': task.head})
    assert set(quick.parameters(model, make_batch(), train=False)['params']) == {'encoders', 'fusion'}


@pytest.mark.parametrize(('module', 'there'), [(Rebuilding(), r"\['count', 'size'\]"), (fusion.Sum(WIDTH), r'\[\]')])
def test_an_objective_that_the_fusion_lacks_is_named(module, there):
    task = tasks.auxiliary('latent', objective='kl')
    model = make_model({'latent': task.reads}, fusion=module, heads={'latent': task.head})
    with pytest.raises(ValueError, match=f"task 'latent' learns the objective 'kl', but the fusion has {there}"):
        jax.eval_shape(lambda: model.init(jax.random.key(0), make_batch(), train=False))


def test_modalities_are_dropped_at_their_rates_and_one_is_left():
    rows, rates = 4000, {'table': 0.3, 'text': 0.5}
    has = {'table': np.arange(rows) % 4 > 0, 'text': np.arange(rows) % 3 > 0, 'speech': np.arange(rows) % 2 > 0}
    features = {name: Features(jnp.ones((rows, 1, 2)), jnp.asarray(mask[:, None])) for name, mask in has.items()}
    dropped = quick.jit(functools.partial(drop_modalities, dropout=rates))(features, key=jax.random.key(0))
    left = {name: np.asarray(dropped[name].mask[:, 0]) for name in has}
    assert not any((left[name] & ~has[name]).any() for name in has)
    np.testing.assert_array_equal(left['speech'], has['speech'])
    np.testing.assert_array_equal(sum(left.values()) > 0, sum(has.values()) > 0)
    # With speech there, nothing is kept for want of another: three standard deviations of a share of 1,333 rows.
    for name, rate in rates.items():
        assert abs(left[name][has['speech'] & has[name]].mean() - (1 - rate)) < 3 * np.sqrt(rate * (1 - rate) / 1333)
    # Of the two, both go in 15 % of the rows, which are shared out evenly.
    alone = has['table'] & has['text'] & ~has['speech']
    assert abs(left['table'][alone].mean() - (0.7 + 0.15 / 2)) < 3 * np.sqrt(0.18 / alone.sum())
    for name in has:
        assert not dropped[name].tokens[~left[name]].any()


@pytest.mark.parametrize(
    ('weights', 'whole_row'),
    [('equal', [1 / 3, 1 / 3, 1 / 3]), ({'text': 1, 'text_speech': 3}, [0.0, 0.25, 0.75])],
)
def test_dropout_over_subsets_keeps_one_of_what_the_row_has(weights, whole_row):
    rows = 4000
    has = {'speech': np.arange(rows) % 4 > 0, 'text': np.arange(rows) % 4 != 1}
    features = {name: Features(jnp.ones((rows, 1, 2)), jnp.asarray(mask)[:, None]) for name, mask in has.items()}
    drop = quick.jit(functools.partial(drop_modalities, dropout={'subsets': weights}))
    left = {name: np.asarray(kept.mask[:, 0]) for name, kept in drop(features, key=jax.random.key(0)).items()}
    assert not any((left[name] & ~has[name]).any() for name in has)
    np.testing.assert_array_equal(left['speech'] | left['text'], has['speech'] | has['text'])
    both = has['speech'] & has['text']
    shares = [
        np.mean(which[both])
        for which in (left['speech'] & ~left['text'], left['text'] & ~left['speech'], left['speech'] & left['text'])
    ]
    # Of 2,000 rows: three standard deviations of a share.
    assert shares == pytest.approx(whole_row, abs=3 * np.sqrt(0.25 / both.sum()))


def test_only_the_fusion_goes_without_a_modality_and_only_in_training(variables):
    model = make_model(modality_dropout={'text': 0.999})

    @functools.partial(quick.jit, static_argnames='train')
    def read(train):
        return model.apply(variables, make_batch(), train=train, method='features', rngs={'dropout': jax.random.key(0)})

    plain, dropped = read(train=False), read(train=True)
    jax.tree.map(np.testing.assert_array_equal, {**plain, 'fused': 0}, {**dropped, 'fused': 0})
    # Rows 0 and 2 have a text beside other things, so the fusion does without.
    changed = np.any(np.abs(plain['fused'].tokens - dropped['fused'].tokens) > 1e-5, axis=(1, 2))
    np.testing.assert_array_equal(changed, [True, False, True, False])


def make_dense_model(scheme: str, **members) -> MultiModalMultiTask:
    """Returns a model of a picture and a text, all of whose tasks read the fused features."""
    dense = {'topic': heads.Classification(3), 'region': heads.Segmentation(2, width=4), 'item': heads.Detection(2)}
    members = {
        'encoders': {
            'picture': encoders.ImageCNN(width=5, stage_widths=(4, 6)),
            'text': encoders.BagOfEmbeddings(vocab_size=9, width=4),
        },
        'fusion': fusion.Concat(width=WIDTH),
        'maps': 'picture',
    } | members
    return MultiModalMultiTask(
        sharing=getattr(sharing, scheme)(tasks=tuple(dense), width=WIDTH),
        heads=dense,
        reads=dict.fromkeys(dense, 'fused'),
        **members,
    )


def make_batch_with_pictures() -> Batch:
    """Returns a batch without a picture in row 3 and with something else in its place."""
    batch = make_batch()
    pictures = np.random.default_rng(0).uniform(size=(ROWS, 8, 8, 3)).astype(np.float32)
    present = {'picture': np.array(PRESENT['table'], bool), 'text': batch.present['text']}
    return batch.replace(inputs={'picture': pictures, 'text': batch.inputs['text']}, present=present)


@pytest.mark.parametrize('scheme', sharing.__all__)
def test_a_dense_task_can_read_the_maps_of_a_picture_behind_every_scheme(scheme):
    model, batch = make_dense_model(scheme), make_batch_with_pictures()
    rngs = {'params': jax.random.key(0), 'dropout': jax.random.key(0)}
    predictions, variables = jax.eval_shape(lambda: model.init_with_output(rngs, batch, train=True))
    assert predictions['region'].shape == (ROWS, 2, 2, 2)
    assert predictions['item']['distances'].shape == (ROWS, 2, 2, 4)
    of_maps = {path for path in flatten_with_paths(variables['params'].get('sharing', {})) if 'map_1' in path}
    assert scheme in ('Hard', 'MTAN') or of_maps, 'the scheme has parameters for each map'


def test_fused_features_have_the_maps_of_the_named_modality_and_without_it_none():
    model, batch = make_dense_model('MMoE'), make_batch_with_pictures()
    variables = quick.parameters(model, batch, train=False)

    @quick.jit
    def read():
        plain = model.apply(variables, batch, train=False, method='features')['fused']
        picture = model.encoders['picture'].apply(
            {'params': variables['params']['encoders']['picture']}, batch.inputs['picture'], train=False
        )
        shared = model.apply(variables, {'fused': plain}, train=False, method='share')
        return (
            plain,
            picture,
            shared,
            model.sharing.apply({'params': variables['params']['sharing']}, plain, train=False),
        )

    fused, picture, shared, expected = read()
    jax.tree.map(np.testing.assert_array_equal, shared, expected)
    assert [level.shape for level in fused.maps] == [(ROWS, 2, 2, 4), (ROWS, 1, 1, 6)]
    for level, own in zip(fused.maps, picture.maps, strict=True):
        # Another program sums in another order.
        np.testing.assert_allclose(level[:3], own[:3], atol=1e-5)
        assert not level[3].any(), 'the row has no picture'
    nameless = model.clone(maps=None)
    assert jax.eval_shape(lambda: nameless.apply(variables, batch, train=False, method='features'))['fused'].maps == ()


@pytest.mark.parametrize(
    ('members', 'message'),
    [
        ({'maps': 'image'}, r"maps names 'image', but there are encoders of \['picture', 'text'\]"),
        ({'maps': 'text'}, "maps names 'text', but BagOfEmbeddings gives no spatial maps; name the modality of a"),
        (
            {'maps': None},
            'Segmentation needs spatial maps, but these features have none: .* config names in fusion.maps',
        ),
    ],
)
def test_maps_that_are_not_there_are_told_in_one_sentence(members, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(
            lambda: make_dense_model('Hard', **members).init(jax.random.key(0), make_batch_with_pictures(), train=False)
        )


def test_a_fusion_of_decisions_hands_on_no_maps():
    model = make_model(
        {'topic': 'fused'}, heads={'topic': heads.Classification(2)}, maps='table', fusion=fusion.Stacking(WIDTH)
    )
    with pytest.raises(ValueError, match='Stacking answers for each modality apart and hands on no maps; leave maps'):
        jax.eval_shape(lambda: model.init(jax.random.key(0), make_batch(), train=False))


@pytest.mark.parametrize(
    ('reads', 'members', 'message'),
    [
        (
            {'topic': 'image'},
            {},
            r"task 'topic' reads 'image', but there are encoders of \['speech', 'table', 'text'\]",
        ),
        ({'match': ('text', 'image')}, {}, "task 'match' reads 'image', but there are encoders of"),
        # Several are read before fusion, so the fused features are not among them.
        ({'match': ('text', 'fused')}, {}, "task 'match' reads 'fused', but there are encoders of"),
        ({'topic': 'fused'}, {'sharing': sharing.Hard((), WIDTH)}, r"task 'topic' reads 'fused'; name it in the tasks"),
        ({'topic': 'fused'}, {'modality_dropout': {'image': 0.1}}, "modality_dropout names 'image', but there are"),
        (
            {'topic': 'fused'},
            {'modality_dropout': {'text': 1}},
            "modality_dropout of 'text' must be at least 0 and below",
        ),
        (
            {'topic': 'fused'},
            {'modality_dropout': {'subsets': {'image_text': 1}}},
            "modality_dropout: 'image_text' is no subset of",
        ),
        ({'topic': 'fused'}, {'heads': {'mood': Echo()}}, r"the same tasks, got \['mood'\] and {'topic': 'fused'}"),
    ],
)
def test_wrong_wiring_is_told_in_one_sentence(reads, members, message):
    with pytest.raises(ValueError, match=message):
        make_model(reads, **members).init(jax.random.key(0), make_batch(), train=False)


@pytest.mark.parametrize('part', ['inputs', 'present'])
def test_a_batch_without_a_modality_that_has_an_encoder_is_refused(model, variables, part):
    batch = make_batch()
    batch = batch.replace(**{part: {name: value for name, value in getattr(batch, part).items() if name != 'text'}})
    with pytest.raises(ValueError, match="the batch has no 'text', which has an encoder"):
        model.apply(variables, batch, train=False)


def test_inputs_without_an_encoder_are_left_alone(model, variables):
    batch = make_batch()
    more = batch.replace(inputs=batch.inputs | {'smell': None}, present=batch.present | {'smell': None})
    shapes = jax.eval_shape(lambda: model.apply(variables, more, train=False))
    assert set(shapes) == set(READS)
