"""From a config to the pieces of a run: what is filled in, what is checked, and that each wrong value is named."""

import numpy as np
import pytest

from configs import synthetic
from mmtl_jax import fusion
from mmtl_jax.balancing import Signals
from mmtl_jax.experiment import SECTIONS, from_config, plain_config
from mmtl_jax.training.modulation import OGMGE
from tests.configs import tiny


def tiny_values(**sections):
    """Returns the tiny config as plain values; each of `sections` is merged into its section."""
    values = tiny.get_config().to_dict()
    for name, section in sections.items():
        values[name] = {**values[name], **section} if isinstance(section, dict) else section
    return values


def sentences(split):
    """Returns the tiny examples with a caption each."""
    return [{**example, 'caption': 'red ring'} for example in tiny.examples(split)]


def test_the_pieces_are_what_the_config_says():
    experiment = from_config(tiny.get_config())
    assert [task.name for task in experiment.tasks] == ['kind', 'size']
    assert experiment.model.reads == {'kind': 'fused', 'size': 'table'}
    assert experiment.model.sharing.tasks == ('kind',), 'only tasks that read the fusion share it'
    assert (experiment.settings.num_steps, experiment.settings.eval_every) == (24, 8)
    assert (experiment.devices.num_devices, experiment.devices.compilation_cache) == (1, None)
    assert experiment.average_decay == 0.9
    assert experiment.results.splits == ('validation', 'test')


def test_the_arithmetic_of_every_part_that_names_no_type_of_its_own():
    values = tiny_values(training={'dtype': 'bfloat16'})
    values['encoders'] = {name: dict(spec) for name, spec in values['encoders'].items()}
    values['encoders']['text']['dtype'] = 'float32'
    model = from_config(values).model
    kept = model.encoders.pop('text').dtype
    parts = (model.fusion, model.sharing, *model.encoders.values(), *model.heads.values())
    assert (kept, {part.dtype for part in parts}) == ('float32', {'bfloat16'})


def test_a_config_dict_and_plain_values_are_the_same():
    assert plain_config(tiny.get_config()) == tiny_values()
    assert isinstance(from_config(tiny_values()).config['data'], dict)


def test_a_saved_experiment_never_reads_the_training_split():
    fitted = from_config(tiny_values()).inputs.fitted
    unreadable = {'sources': ({'name': 'tests.configs.tiny.examples', 'builder_kwargs': {'empty': 'train'}},)}
    experiment = from_config(tiny_values(data=unreadable), fitted=fitted)
    batches = [batch.inputs['text'].values.shape for batch in experiment.inputs.empty_batches()]
    assert batches == [(8, 4), (8, 8)]


def test_a_part_is_a_name_or_a_name_with_arguments():
    values = {**tiny_values(), 'fusion': 'tests.test_experiment.own_fusion', 'balancing': 'equal'}
    assert from_config(values).model.fusion == own_fusion()
    values['fusion'] = {'name': 'Sum', 'width': 8, 'modality_dropout': {'text': 0.5}, 'maps': 'table'}
    model = from_config(values).model
    assert model.fusion == fusion.Sum(width=8)
    assert (model.modality_dropout, model.maps) == ({'text': 0.5}, 'table')


def test_an_auxiliary_task_needs_no_target_in_the_config():
    values = tiny_values(tasks={'reconstruction': {'name': 'auxiliary'}}, fusion={'name': 'Autoencoder'})
    (source,) = values['data']['sources']
    values['data']['sources'] = [{**source, 'targets': values['data']['targets']}]
    experiment = from_config(values)
    assert experiment.model.reads == {'kind': 'fused', 'size': 'table', 'reconstruction': 'fused/reconstruction'}
    assert experiment.model.sharing.tasks == ('kind',)
    (batch, _) = experiment.inputs.empty_batches()
    np.testing.assert_array_equal(batch.targets['reconstruction'], np.zeros(8, np.float32))
    assert batch.labelled['reconstruction'].all()
    assert from_config(experiment.config).config == experiment.config, 'a second call changes nothing'
    values['tasks'] = {'reconstruction': 'auxiliary'}
    with pytest.raises(ValueError, match=r"all tasks are auxiliary \(\['reconstruction'\]\), which nothing reads off"):
        from_config(values)


def own_fusion():
    """Returns a fusion as one's own code would, without a field to set."""
    return fusion.Concat(width=8)


def test_values_by_task_are_put_in_the_order_of_the_tasks():
    weights = {'size': 3.0, 'kind': 2.0}
    values = {**tiny_values(), 'balancing': {'name': 'fixed', 'weights': weights}}
    balancer = from_config(values).balancer
    signals = Signals(losses=np.ones(2, np.float32), active=np.ones(2, bool))
    found, _ = balancer.update(signals, balancer.init(2))
    np.testing.assert_allclose(found[0] / found[1], 2 / 3, rtol=1e-6)
    # In a wrapper too, and what is said of the Jacobian is no argument of the method.
    nested = {
        'name': 'ema',
        'balancer': {'name': 'fixed', 'weights': weights},
        'level': 'features',
        'record_every': None,
    }
    experiment = from_config({**values, 'balancing': nested})
    found, _ = experiment.balancer.update(signals, experiment.balancer.init(2))
    np.testing.assert_allclose(found[0] / found[1], 2 / 3, rtol=1e-6)
    assert (experiment.jacobian.level, experiment.jacobian.record_every) == ('features', None)
    with pytest.raises(ValueError, match=r"balancing.weights must give each task a value: it has \['kind'\], the"):
        from_config({**values, 'balancing': {'name': 'fixed', 'weights': {'kind': 1.0}}})


def test_a_vocabulary_sizes_what_names_it():
    source = {'name': 'tests.test_experiment.sentences'}
    values = tiny_values(
        data={'vocabularies': {'words': {'kind': 'words', 'key': 'caption'}}, 'sources': (source,)},
        encoders={'text': {'name': 'BagOfEmbeddings', 'width': 8, 'vocab_size': 'words'}},
    )
    experiment = from_config(values)
    size = len(experiment.inputs.vocabularies['words'])
    assert {'red', 'ring'} <= set(experiment.inputs.vocabularies['words'])
    assert experiment.model.encoders['text'].vocab_size == size + 1, '0 is padding'
    values['encoders']['text']['vocab_size'] = 'wrods'
    with pytest.raises(ValueError, match=r"no vocabulary 'wrods'; data.vocabularies has \['words'\]"):
        from_config(values)


def test_the_names_of_classes_come_from_the_data(tmp_path):
    config = synthetic.get_config('smoke').unlock()
    config.data.sources[0]['data_dir'] = str(tmp_path)
    shape = next(task for task in from_config(config).tasks if task.name == 'shape')
    assert len(shape.class_names) == 6
    assert all(isinstance(name, str) for name in shape.class_names)


def test_the_range_of_labels_is_checked_where_the_task_knows_it():
    values = tiny_values()
    values['data']['targets'] = {'kind': 'kind', 'size': 'size'}
    values['tasks']['kind']['num_classes'] = 2
    with pytest.raises(ValueError, match=r"target 'kind' \(key 'kind'\) is 2, expected 0 to 1"):
        from_config(values).inputs.fitted


@pytest.mark.parametrize('name', SECTIONS)
def test_no_section_can_be_left_out(name):
    values = tiny_values()
    del values[name]
    with pytest.raises(ValueError, match=f'the config lacks the section {name!r}; it needs'):
        from_config(values)


@pytest.mark.parametrize(
    ('sections', 'sentence'),
    [
        ({'optimizer': {'learning_rte': 1.0}}, "adamw has no argument 'learning_rte'"),
        ({'optimizer': {'schedule': 'cosin'}}, "no schedule 'cosin'; choose one of"),
        ({'balancing': {'name': 'uncertianty'}}, "no balancing 'uncertianty'; did you mean 'uncertainty'"),
        ({'balancing': {'level': 'trunk'}}, "balancing.level is 'trunk'; it must be one of"),
        ({'balancing': {'jacobian': 'scan'}}, "balancing.jacobian is 'scan'; it must be one of"),
        ({'balancing': {'name': 'modo'}}, 'data.batch_size is 8, but this balancer splits each batch into 3'),
        ({'sharing': {'name': 'hard'}}, "no sharing 'hard'; did you mean 'Hard'"),
        ({'fusion': {'wdith': 8}}, "Concat has no argument 'wdith'; did you mean 'width'"),
        ({'tasks': {'kind': {'name': 'clasification'}}}, "no tasks 'clasification'; did you mean 'classification'"),
        ({'results': {'num_smaples': 8}}, "section 'results' has no argument 'num_smaples'; did you mean 'num_sam"),
        ({'training': {'best_metric': 'kinds/loss'}}, "training.best_metric is 'kinds/loss'; give 'primary' or"),
    ],
)
def test_a_wrong_value_is_named(sections, sentence):
    with pytest.raises(ValueError, match=sentence):
        from_config(tiny_values(**sections))


def unreadable(split):
    """Stands for a data set whose preparation takes long."""
    raise AssertionError(f'the {split} split was read')


@pytest.mark.parametrize(
    ('sections', 'sentence'),
    [
        ({'encoders': {'table': {'name': 'TabularMPL'}}}, "no encoders 'TabularMPL'; did you mean 'TabularMLP'"),
        ({'fusion': {'name': 'Summ'}}, "no fusion 'Summ'; did you mean 'Sum'"),
        ({'sharing': 'Hrad'}, "no sharing 'Hrad'; did you mean 'Hard'"),
        ({'tasks': {'size': {'name': 'regresion'}}}, "no tasks 'regresion'; did you mean 'regression'"),
        ({'balancing': {'name': 'cagrda'}}, "no balancing 'cagrda'; did you mean 'cagrad'"),
        ({'training': {'num_step': 2}}, "'training' has no argument 'num_step'; did you mean 'num_steps'"),
        ({'training': {'dtype': 'fast'}}, r"training.dtype must be a type of floats, such as 'bfloat16', or None, got"),
        ({'optimizer': {'name': 'adamx'}}, "no optimizer 'adamx' in optax"),
        ({'optimizer': {'wramup': 0.1}}, "adamw has no argument 'wramup'"),
        ({'results': {'split': ('test',)}}, "'results' has no argument 'split'; did you mean 'splits'"),
    ],
)
def test_a_mistake_that_has_nothing_to_do_with_the_data_is_named_before_they_are_read(sections, sentence):
    source = {'name': 'tests.test_experiment.unreadable'}
    with pytest.raises(ValueError, match=sentence):
        from_config(tiny_values(data={'sources': (source,)}, **sections))


def test_a_modality_cannot_be_called_what_stands_for_all():
    values = tiny_values()
    for section in (values['encoders'], values['data']['inputs']):
        section['fused'] = section.pop('text')
    with pytest.raises(ValueError, match="a modality cannot be called 'fused'"):
        from_config(values)


@pytest.mark.parametrize(
    ('name', 'sentence'),
    [('gradients', "a task cannot be called 'gradients'"), ('a/b', "the task 'a/b' has a '/' in its name")],
)
def test_a_task_cannot_be_called_what_its_metrics_would_be_mistaken_for(name, sentence):
    values = tiny_values()
    for section in (values['tasks'], values['data']['targets']):
        section[name] = section.pop('kind')
    with pytest.raises(ValueError, match=sentence):
        from_config(values)


def test_an_optimizer_needs_its_name_and_rate():
    values = {**tiny_values(), 'optimizer': {'name': 'adam'}}
    with pytest.raises(ValueError, match=r"'optimizer' needs 'name' and 'learning_rate', got \['name'\]"):
        from_config(values)


def test_modalities_are_balanced_where_the_config_says_so():
    balanced = {'name': 'equal', 'ogm_ge': {'alpha': 0.3, 'tasks': ('kind',)}}
    assert from_config(tiny_values(balancing=balanced)).ogm_ge == OGMGE(alpha=0.3, tasks=('kind',))
    assert from_config(tiny_values()).ogm_ge is None
    balanced['ogm_ge'] = {'alhpa': 0.3}
    with pytest.raises(ValueError, match=r"balancing.ogm_ge has no argument 'alhpa'; did you mean 'alpha'"):
        from_config(tiny_values(balancing=balanced))
    balanced['ogm_ge'] = {'tasks': ('size',)}
    with pytest.raises(ValueError, match=r"names 'size'; it goes by tasks that read the fused features.*\['kind'\]"):
        from_config(tiny_values(balancing=balanced))
