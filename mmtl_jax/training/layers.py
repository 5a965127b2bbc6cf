"""The layers of an encoder, told from the paths of its parameters."""

import dataclasses
import re
from collections.abc import Sequence

# `encoders.LoRA` has the parameters of its encoder below one name, and their factors in the same places below another.
ADAPTED = re.compile(r'(?:base|lora)/')


@dataclasses.dataclass(frozen=True)
class Naming:
    """How a kind of encoder names its parameters; all expressions are for the whole first part of a path.

    Attributes:
      layers: has the numbers of a layer as groups; what shares them is one layer.
      above: what comes after the last layer. All the rest comes before the first.
      halfway: what comes before the layer in the middle, number `depth // 2`.
      sign: a part that tells this naming from the next one with the same layers.
    """

    layers: str
    above: str
    halfway: str = ''
    sign: str = ''


# The first whose layers an encoder has.
NAMINGS = (
    # BERT, ViT, ResNet, VGG16, EfficientNetLite0 and what is named like them.
    Naming(r'(?:layer_|block|stage(\d+)_(?:block|conv|norm))(\d+)', r'norm|head_\w+|\w*projection\w*'),
    Naming(r'TransformerBlock_(\d+)', r'LayerNorm_0'),
    Naming(r'ConformerBlock_(\d+)', ''),
    Naming(r'ResidualConv_(\d+)', r'LayerNorm_1', halfway=r'GlobalContext_0'),
    Naming(r'LSTM_(\d+)', r'(?:Dense|LayerNorm)_1', sign=r'Dense_1'),
    Naming(r'LSTM_(\d+)', r'(?:Dense|LayerNorm)_0'),
    Naming(r'BasicBlock_(\d+)', r'(?:Dense|LayerNorm)_0'),
    Naming(r'(?:Conv|GroupNorm)_(\d+)', r'(?:Dense|LayerNorm)_0'),
)


def decay_factors(paths: Sequence[str], encoder: str, decay: float) -> dict[str, float]:
    """Returns path -> `decay ** distance` for the parameters of an encoder.

    What lies above the last layer is at distance 0, the last layer at 1, each layer before it one further, and what
    lies before the first layer, embeddings or a stem, one further still. So counts the code of BEiT (Bao et al. 2021,
    2106.08254); that of ELECTRA (Clark et al. 2020, 2003.10555) has 2 at the last layer.

    Args:
      paths: of all parameters that are trained; only layers among them count.
      encoder: the path of an encoder, such as `encoders/caption`.
      decay: the factor from layer to layer, above 0 and at most 1.

    Raises:
      ValueError: the decay is out of range, there is no such encoder, or its layers cannot be told from its paths.
    """
    if not 0 < decay <= 1:
        raise ValueError(f'the layer_decay of {encoder!r} is a factor above 0 and at most 1, got {decay}.')
    parts = {path: _part(path, encoder) for path in paths if path.startswith(f'{encoder}/')}
    if not parts:
        groups = sorted({'/'.join(path.split('/')[:2]) for path in paths})
        raise ValueError(f'layer_decay {encoder!r} is the path of no parameter that is trained; there are {groups}.')
    names = set(parts.values())
    naming = next((naming for naming in NAMINGS if _fits(naming, names)), None)
    if naming is None:
        raise ValueError(
            f'layer_decay needs layers with numbers, such as layer_0, and {encoder!r} has {sorted(names)}; give '
            'rates by path for it.'
        )
    distances = _distances(naming, names)
    return {path: decay ** distances[name] for path, name in parts.items()}


def _part(path: str, encoder: str) -> str:
    return ADAPTED.sub('', path.removeprefix(f'{encoder}/'), count=1).split('/')[0]


def _fits(naming: Naming, names: set[str]) -> bool:
    return all(any(re.fullmatch(wanted, name) for name in names) for wanted in (naming.layers, naming.sign) if wanted)


def _distances(naming: Naming, names: set[str]) -> dict[str, int]:
    """Returns name of a part of an encoder -> its distance from the top."""
    numbers = {}
    for name in names:
        if found := re.fullmatch(naming.layers, name):
            numbers[name] = tuple(int(number) for number in found.groups() if number is not None)
    order = sorted(set(numbers.values()))
    depth = len(order)

    def distance(name: str) -> int:
        if name in numbers:
            return depth - order.index(numbers[name])
        if re.fullmatch(naming.above, name):
            return 0
        return depth - depth // 2 if re.fullmatch(naming.halfway, name) else depth + 1

    return {name: distance(name) for name in names}
