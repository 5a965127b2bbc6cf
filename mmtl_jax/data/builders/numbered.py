"""What generated data sets share: builders whose configuration is a handful of numbers."""

import dataclasses
from typing import Any

import tensorflow_datasets as tfds

SPLITS = ('train', 'validation', 'test')


class Numbered(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A builder that takes the fields of its `CONFIG` as arguments.

    The numbers are part of the configuration's name, so that data of different sizes never collide on the disk.
    Subclasses set `CONFIG`, a subclass of `tfds.core.BuilderConfig` whose own fields have defaults.
    """

    CONFIG: type[tfds.core.BuilderConfig]
    BUILDER_CONFIGS = []

    def __init__(self, *, data_dir=None, config=None, version=None, file_format='array_record', **numbers: Any):
        """Makes a builder for one set of numbers.

        Args:
          data_dir: the TFDS data folder.
          config: an instance of `CONFIG`; None makes one from `numbers`.
          version: the version of the data set.
          file_format: array_record, which needs no TensorFlow.
          **numbers: the fields of `CONFIG`, such as `num_train`.

        Raises:
          ValueError: a number that `CONFIG` does not have, or does not allow.
        """
        if config is None:
            inherited = {field.name for field in dataclasses.fields(tfds.core.BuilderConfig)}
            known = [field.name for field in dataclasses.fields(self.CONFIG) if field.name not in inherited]
            unknown = sorted(set(numbers) - set(known))
            if unknown:
                raise ValueError(f'{self.name} has no argument {unknown[0]!r}; it takes {known}.')
            values = {field: numbers.get(field, getattr(self.CONFIG, field)) for field in known}
            name = '-'.join(f'{field}_{value}'.replace('num_', '') for field, value in values.items())
            config = self.CONFIG(name=name, **values)
        super().__init__(data_dir=data_dir, config=config, version=version, file_format=file_format)

    @classmethod
    def _create_builder_config(cls, builder_config: tfds.core.BuilderConfig, version: Any) -> tfds.core.BuilderConfig:
        """Returns the configuration as it is: there is no list of allowed ones, which TFDS would warn about."""
        del version
        return builder_config

    def split_sizes(self) -> dict[str, int]:
        """Returns the number of examples of each split that is not empty, from `num_train` and so on."""
        sizes = {name: getattr(self.builder_config, f'num_{name}') for name in SPLITS}
        return {name: size for name, size in sizes.items() if size}
