"""Devices: a one-dimensional mesh over which the batch is split and the state is replicated."""

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXIS = 'data'


def make_mesh(num_devices: int | None = None, *, batch_size: int) -> Mesh:
    """Returns a mesh over `num_devices` devices, by default all of them.

    Raises:
      ValueError: more devices than there are, or a batch that they cannot share evenly.
    """
    devices = jax.devices()
    count = len(devices) if num_devices is None else num_devices
    if not 1 <= count <= len(devices):
        raise ValueError(f'num_devices is {count}, but this machine has {len(devices)}; choose 1 to {len(devices)}.')
    if batch_size % count:
        raise ValueError(f'batch_size {batch_size} does not divide by {count} devices; choose a multiple of {count}.')
    # Explicit axes, the default, make linen's Dropout and RNN fail on a split batch.
    return jax.make_mesh((count,), (AXIS,), axis_types=(AxisType.Auto,), devices=devices[:count])


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of the state: a copy on each device."""
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of a batch: its rows shared out over the devices."""
    return NamedSharding(mesh, PartitionSpec(AXIS))
