"""From a config to the pieces of a run: the only module that sees a `ConfigDict`."""

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

import ml_collections
import optax

from mmtl_jax import balancing, encoders, fusion, sharing, tasks
from mmtl_jax.core.build import build, construct, resolve
from mmtl_jax.core.types import PyTree
from mmtl_jax.model import FUSED, MultiModalMultiTask, is_fused
from mmtl_jax.nn import in_dtype, is_float_type
from mmtl_jax.pretrained.from_spec import StartingEncoder, encoder_from_spec
from mmtl_jax.pretrained.tokenizer import check_tokenizer
from mmtl_jax.tasks import Task
from mmtl_jax.training.classes import as_field, name_of, with_classes, with_ranges
from mmtl_jax.training.conflicts import GRADIENTS
from mmtl_jax.training.gradient import Jacobian
from mmtl_jax.training.inputs import Inputs
from mmtl_jax.training.loop import Settings
from mmtl_jax.training.modulation import MODALITIES, OGMGE, compared_tasks
from mmtl_jax.training.optimizer import make_optimizer, make_schedule
from mmtl_jax.training.selection import higher_is_better

AUXILIARY = 'auxiliary'
SECTIONS = (
    'seed', 'data', 'encoders', 'fusion', 'sharing', 'tasks', 'balancing', 'optimizer', 'training', 'results'
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Devices:
    """What a run uses of the machine.

    Attributes:
      num_devices: size of the mesh, None = all.
      compilation_cache: directory of compiled programs, so that a second start is quick; None = none.
    """

    num_devices: int | None = None
    compilation_cache: str | None = '~/.cache/mmtl_jax'


@dataclasses.dataclass(frozen=True)
class Results:
    """What is made of a finished run.

    Attributes:
      splits: evaluated with the best checkpoint at the end of the run.
      num_samples: predictions shown in the report.
      images: keys of the examples that a report shows as pictures.
      texts: keys shown as text.
      waveforms: key -> sample rate in Hz, shown as spectrogram and sound.
      tables: keys shown as numbers.
      num_features: rows of the first split whose fused features are drawn as a map by t-SNE; 0 for none.
      num_attention: examples of it whose attention between modalities is drawn; 0 for none.
    """

    splits: tuple[str, ...] = ('validation',)
    num_samples: int = 12
    images: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    waveforms: Mapping[str, int] = dataclasses.field(default_factory=dict)
    tables: tuple[str, ...] = ()
    num_features: int = 500
    num_attention: int = 2


@dataclasses.dataclass(frozen=True)
class Experiment:
    """The pieces of a run, built and checked against each other; nothing has been trained yet.

    `pretrained` has, by collection, the values that a new run begins with instead of drawing them. `records` has, by
    modality, what a saved run needs to build a pretrained encoder again without its weights.
    """

    config: dict[str, Any]
    seed: int
    inputs: Inputs
    tasks: tuple[Task, ...]
    model: MultiModalMultiTask
    pretrained: dict[str, PyTree]
    records: dict[str, Any]
    balancer: balancing.Balancer
    jacobian: Jacobian
    ogm_ge: OGMGE | None
    schedule: optax.Schedule
    optimizer: optax.GradientTransformation
    average_decay: float | None
    settings: Settings
    devices: Devices
    results: Results

    @property
    def fitted(self) -> dict[str, Any]:
        """What a saved run needs instead of the training split and published weights, JSON-able."""
        return {**self.inputs.fitted, 'encoders': self.records}


def plain_config(config: ml_collections.ConfigDict | Mapping[str, Any]) -> dict[str, Any]:
    """Returns the config as nested dicts of plain values.

    Raises:
      ValueError: a section is unknown or missing.
    """
    values = config.to_dict() if isinstance(config, ml_collections.ConfigDict) else dict(config)
    for name in values:
        if name not in SECTIONS:
            close = difflib.get_close_matches(name, SECTIONS, n=1)
            hint = f'did you mean {close[0]!r}?' if close else f'there are {list(SECTIONS)}.'
            raise ValueError(f'the config has no section {name!r}; {hint}')
    missing = [name for name in SECTIONS if name not in values]
    if missing:
        raise ValueError(f'the config lacks the section {missing[0]!r}; it needs {list(SECTIONS)}.')
    return values


def from_config(
    config: ml_collections.ConfigDict | Mapping[str, Any], *, fitted: Mapping[str, Any] | None = None
) -> Experiment:
    """Returns the experiment that `config` describes.

    Args:
      config: the sections of `SECTIONS`; their values become keyword arguments here and go no further.
      fitted: what a saved run fitted on its training split; None to fit it now.

    Raises:
      ValueError: anything in the config that does not fit; the sentence says what, where, and what would.
    """
    values = _with_targets(plain_config(config))
    _check_names(values)
    # What reads no data comes first, so that a mistake in it does not wait for a data set to be prepared.
    _check_kinds(values)
    balancer, jacobian = _balancing(values['balancing'], list(values['tasks']))
    settings, devices, average_decay, dtype = _training(values['training'])
    results = _section(Results, 'results', values['results'])
    # It is built once more below, with what the encoders freeze.
    _optimizer(values['optimizer'], settings.num_steps)
    inputs = _section(Inputs, 'data', with_ranges(values['data'], values['tasks']), fitted=fitted, seed=values['seed'])
    task_list = tuple(_task(name, spec, values, inputs) for name, spec in values['tasks'].items())
    _check_reads(task_list, values['encoders'])
    starting = _encoders(values, inputs, fitted)
    model = in_dtype(_model(values, task_list, starting), dtype)
    higher_is_better(settings.best_metric, task_list)
    _check_splits(balancer, inputs.batch_size)
    frozen = tuple(f'encoders/{name}/{start.frozen}' for name, start in starting.items() if start.frozen)
    schedule, optimizer = _optimizer(values['optimizer'], settings.num_steps, frozen)
    return Experiment(
        config=values,
        seed=values['seed'],
        inputs=inputs,
        tasks=task_list,
        model=model,
        pretrained=_by_collection(starting),
        records={name: start.record for name, start in starting.items() if start.record},
        balancer=balancer,
        jacobian=jacobian,
        ogm_ge=_ogm_ge(values['balancing'], task_list, values['encoders']),
        schedule=schedule,
        optimizer=optimizer,
        average_decay=average_decay,
        settings=settings,
        devices=devices,
        results=results,
    )


def _section(target: Any, name: str, arguments: Mapping[str, Any], **more: Any) -> Any:
    arguments = {**arguments, **more}
    return construct(f'the config section {name!r}', target, arguments)


def _with_targets(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the config, in which the auxiliary tasks, which learn without labels, have their empty target.

    Raises:
      ValueError: there is no other task.
    """
    names = [task for task, spec in values['tasks'].items() if name_of(spec) == AUXILIARY]
    if names and len(names) == len(values['tasks']):
        raise ValueError(f'all tasks are auxiliary ({names}), which nothing reads off; add one with labels.')
    empty = {task: {} for task in names}

    def extended(section: Mapping[str, Any]) -> dict[str, Any]:
        return {**section, 'targets': {**empty, **section['targets']}} if 'targets' in section else dict(section)

    data = extended(values['data'])
    data['sources'] = [
        extended(source) if isinstance(source, Mapping) else source for source in data.get('sources', ())
    ]
    return {**values, 'data': data} if names else dict(values)


def _check_names(values: Mapping[str, Any]) -> None:
    """Raises a `ValueError` where modalities and tasks do not match between data and model."""
    for section, field, what in (('encoders', 'inputs', 'modality'), ('tasks', 'targets', 'task')):
        given, available = values[section], values['data'].get(field, {})
        if not given:
            raise ValueError(f'the config section {section!r} is empty; name at least one {what}.')
        lacking = [name for name in given if name not in available]
        if lacking:
            raise ValueError(
                f'{section}.{lacking[0]} has nothing to read: data.{field} has {sorted(available)}; add it there or '
                f'remove the {what}.'
            )
        idle = [name for name in available if name not in given]
        if idle:
            raise ValueError(
                f'data.{field} has the {what} {idle[0]!r}, which nothing in {section} takes (there are '
                f'{sorted(given)}); add it there or remove it from the data.'
            )
    if FUSED in values['encoders']:
        raise ValueError(f'a modality cannot be called {FUSED!r}; that name stands for the fusion of all.')
    split = next((name for name in values['tasks'] if '/' in name), None)
    if split is not None:
        raise ValueError(f"the task {split!r} has a '/' in its name, which divides task and metric; rename it.")
    for taken in (GRADIENTS, MODALITIES):
        if taken in values['tasks']:
            raise ValueError(f'a task cannot be called {taken!r}; that name stands for what is recorded of them all.')


def _check_kinds(values: Mapping[str, Any]) -> None:
    """Raises a `ValueError` where an encoder, the fusion, the sharing or a task has a name that stands for nothing."""
    specs = [(encoders, spec) for spec in values['encoders'].values()]
    specs += [(fusion, values['fusion']), (sharing, values['sharing'])]
    specs += [(tasks, spec) for spec in values['tasks'].values()]
    for namespace, spec in specs:
        if isinstance(name_of(spec), str):
            resolve(name_of(spec), namespace)


def _check_splits(balancer: balancing.Balancer, batch_size: int) -> None:
    if batch_size % balancer.splits:
        raise ValueError(
            f'data.batch_size is {batch_size}, but this balancer splits each batch into {balancer.splits} equal parts; '
            f'choose a multiple of {balancer.splits}.'
        )


def _check_reads(task_list: tuple[Task, ...], modalities: Mapping[str, Any]) -> None:
    for task in task_list:
        for name in (task.reads,) if isinstance(task.reads, str) else task.reads:
            if not is_fused(name) and name not in modalities:
                raise ValueError(
                    f'the task {task.name!r} reads {name!r}, but there is only {[FUSED, *modalities]}; change it.'
                )


def _training(section: Mapping[str, Any]) -> tuple[Settings, Devices, float | None, Any]:
    """Returns the settings of the loop, the devices, the decay of the average, and the type of the arithmetic."""
    training = dict(section)
    devices = Devices(**{key: training.pop(key) for key in ('num_devices', 'compilation_cache') if key in training})
    average_decay, dtype = training.pop('average_decay', None), training.pop('dtype', None)
    if dtype is not None and not is_float_type(dtype):
        raise ValueError(f"training.dtype must be a type of floats, such as 'bfloat16', or None, got {dtype!r}.")
    return _section(Settings, 'training', training), devices, average_decay, dtype


def _task(name: str, spec: Mapping[str, Any], values: Mapping[str, Any], inputs: Inputs) -> Task:
    """Builds a task; classes, their names and vocabularies that the data knows need not stand in the config."""
    spec = with_classes(name, spec, values['data'], inputs)
    if isinstance(spec.get('vocabulary'), str):
        spec['vocabulary'] = _vocabulary(spec['vocabulary'], inputs)
    return build(spec, tasks, task=name)


def _encoders(
    values: Mapping[str, Any], inputs: Inputs, fitted: Mapping[str, Any] | None
) -> dict[str, StartingEncoder]:
    """Builds the encoders, with what each begins with."""
    records, starting = (fitted or {}).get('encoders', {}), {}
    for name, spec in values['encoders'].items():
        starting[name] = encoder_from_spec(_sized(spec, inputs), records.get(name))
        key = as_field(values['data']['inputs'][name]).get('key')
        check_tokenizer(starting[name].module, key, values['data'].get('steps', ()), inputs.vocabularies)
    return starting


def _model(
    values: Mapping[str, Any], task_list: tuple[Task, ...], starting: Mapping[str, StartingEncoder]
) -> MultiModalMultiTask:
    """Builds the model around its encoders and the tasks' heads."""
    spec = values['fusion']
    spec = dict(spec) if isinstance(spec, Mapping) else {'name': spec}
    of_model = {name: spec.pop(name) for name in ('modality_dropout', 'maps') if name in spec}
    return MultiModalMultiTask(
        encoders={name: start.module for name, start in starting.items()},
        fusion=build(spec, fusion),
        sharing=build(values['sharing'], sharing, tasks=tuple(task.name for task in task_list if task.reads == FUSED)),
        heads={task.name: task.head for task in task_list},
        reads={task.name: task.reads for task in task_list},
        **of_model,
    )


def _by_collection(starting: Mapping[str, StartingEncoder]) -> dict[str, PyTree]:
    """Returns collection -> the published values where the model has them."""
    collections = {name for start in starting.values() for name in start.variables}
    return {
        collection: {
            'encoders': {
                name: start.variables[collection] for name, start in starting.items() if collection in start.variables
            }
        }
        for collection in sorted(collections)
    }


def _sized(spec: Mapping[str, Any] | str, inputs: Inputs) -> Mapping[str, Any] | str:
    """Returns an encoder's spec with `vocab_size`, where it names a vocabulary, as a number; 0 is padding."""
    if isinstance(spec, Mapping) and isinstance(spec.get('vocab_size'), str):
        return {**spec, 'vocab_size': len(_vocabulary(spec['vocab_size'], inputs)) + 1}
    return spec


def _vocabulary(name: str, inputs: Inputs) -> tuple[str, ...]:
    if name not in inputs.vocabularies:
        raise ValueError(f'no vocabulary {name!r}; data.vocabularies has {sorted(inputs.vocabularies)}.')
    return tuple(inputs.vocabularies[name])


def _balancing(spec: Mapping[str, Any] | str, names: list[str]) -> tuple[balancing.Balancer, Jacobian]:
    """Builds a balancer, and what is said of the gradients that it needs."""
    spec = dict(spec) if isinstance(spec, Mapping) else {'name': spec}
    options = {field.name: spec.pop(field.name) for field in dataclasses.fields(Jacobian) if field.name in spec}
    spec.pop('ogm_ge', None)
    return build(_in_task_order(spec, names), balancing), Jacobian(**options)


def _ogm_ge(spec: Mapping[str, Any] | str, task_list: tuple[Task, ...], modalities: Mapping[str, Any]) -> OGMGE | None:
    """Builds what balances the modalities, None where nothing does."""
    arguments = spec.get('ogm_ge') if isinstance(spec, Mapping) else None
    if arguments is None:
        return None
    options = construct('balancing.ogm_ge', OGMGE, arguments)
    compared_tasks(options, task_list, modalities)
    return options


def _in_task_order(spec: Mapping[str, Any], names: list[str]) -> dict[str, Any]:
    """Returns a balancer's spec, in which an argument by task becomes a sequence; wrappers hold specs of their own."""
    ordered = {}
    for key, value in spec.items():
        if not isinstance(value, Mapping):
            ordered[key] = value
        elif 'name' in value:
            ordered[key] = _in_task_order(value, names)
        elif set(value) == set(names):
            ordered[key] = tuple(value[name] for name in names)
        else:
            raise ValueError(
                f'balancing.{key} must give each task a value: it has {sorted(value)}, the tasks are {names}.'
            )
    return ordered


def _optimizer(
    section: Mapping[str, Any], num_steps: int, frozen: tuple[str, ...] = ()
) -> tuple[optax.Schedule, optax.GradientTransformation]:
    """Builds the schedule and the optimizer, which leaves the parameters `frozen` alone, and those that it says."""
    arguments = dict(section)
    if frozen and not isinstance(arguments.get('freeze', ()), str):
        arguments['freeze'] = (*arguments.get('freeze', ()), *frozen)
    shape = {key: arguments.pop(key) for key in ('learning_rate', 'schedule', 'warmup') if key in arguments}
    if 'learning_rate' not in shape or 'name' not in arguments:
        raise ValueError(f"the config section 'optimizer' needs 'name' and 'learning_rate', got {sorted(section)}.")
    schedule = make_schedule(num_steps=num_steps, **shape)
    return schedule, make_optimizer(schedule=schedule, **arguments)
