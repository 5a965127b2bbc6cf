"""What each fusion costs, beside Concat, and how the cost of fusions by attention grows with the number of tokens.

    python benchmarks/fusion.py [--fusions Concat Gated ...] [--modalities 2 3] [--rows 32] [--tokens 16] [--rounds 20]
    python benchmarks/fusion.py --growth 128 512 2048 [--rows 1] [--rounds 5]

The first prints a row for each fusion that `mmtl_jax.fusion` exports and each number of modalities, with the defaults
of the fusion and width 64: milliseconds of a forward and backward pass, the least of the rounds, in which all programs
take turns; the same over `Concat`; seconds to trace and compile, and over `Concat`; thousands of parameters; MiB of
temporary memory. Each modality has as many tokens as `--tokens` says, of width 64.

The second prints, for two modalities that share the tokens equally, milliseconds and MiB at each number of tokens, and
the exponent of the growth between the last two: 1 is linear, 2 is quadratic.
"""

import argparse
import dataclasses
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from balancing_step import Program, compile_program

from mmtl_jax import fusion
from mmtl_jax.core.types import Features, PyTree

WIDTH = 64
GROWING = {
    'Perceiver': fusion.Perceiver(width=WIDTH),
    'Bottleneck': fusion.Bottleneck(width=WIDTH),
    'Bottleneck, self_attention': fusion.Bottleneck(width=WIDTH, self_attention=True),
    'CrossAttention': fusion.CrossAttention(width=WIDTH),
    'Early': fusion.Early(width=WIDTH),
}


@dataclasses.dataclass
class Measured:
    """A compiled forward and backward pass of a fusion, and its number of parameters."""

    program: Program
    parameters: int

    @property
    def milliseconds(self) -> float:
        """The least of the rounds."""
        return min(self.program.times)


def make_features(num_modalities: int, rows: int, tokens: int) -> dict[str, Features]:
    """Returns normal tokens of width 64, all of them real."""
    random = np.random.default_rng(0)
    return {
        f'modality_{index}': Features(
            jnp.asarray(random.normal(size=(rows, tokens, WIDTH)), jnp.float32), jnp.ones((rows, tokens), bool)
        )
        for index in range(num_modalities)
    }


def compile_fusion(module, features: Mapping[str, Features]) -> Measured:
    """Returns the compiled gradient of a sum over all that the fusion gives, by parameters and tokens."""
    variables = jax.jit(lambda keys: module.init(keys, features, train=True))(
        dict(zip(('params', 'dropout'), jax.random.split(jax.random.key(0)), strict=True))
    )

    def loss(arguments: PyTree, masks: Mapping[str, jax.Array]) -> jax.Array:
        variables, tokens = arguments
        given = {modality: Features(tokens[modality], masks[modality]) for modality in tokens}
        fused = module.apply(variables, given, train=True, rngs={'dropout': jax.random.key(1)})
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(fused) if jnp.issubdtype(leaf.dtype, jnp.floating))

    tokens = {modality: each.tokens for modality, each in features.items()}
    masks = {modality: each.mask for modality, each in features.items()}
    program = compile_program(jax.grad(loss), (variables, tokens), masks)
    return Measured(program, sum(leaf.size for leaf in jax.tree.leaves(variables['params'])))


def take_turns(measured: Mapping[str, Measured], rounds: int) -> None:
    """Measures all programs in turns, so that a busy moment meets all of them."""
    for _ in range(rounds):
        for each in measured.values():
            each.program.measure()


def print_costs(names: list[str], num_modalities: int, arguments: argparse.Namespace) -> None:
    """Prints the table of one number of modalities."""
    features = make_features(num_modalities, arguments.rows, arguments.tokens)
    measured = {name: compile_fusion(getattr(fusion, name)(width=WIDTH), features) for name in names}
    take_turns(measured, arguments.rounds)
    concat = measured['Concat']
    print(f'\nM = {num_modalities}, {arguments.rows} rows, {arguments.tokens} tokens for each modality')
    print(
        '| fusion | ms | / Concat | compile s | / Concat | parameters, thousands | MiB |\n|---|---|---|---|---|---|---|'
    )
    for name, each in measured.items():
        seconds = each.program.seconds
        print(
            f'| `{name}` | {each.milliseconds:.2f} | {each.milliseconds / concat.milliseconds:.1f} | {seconds:.1f} '
            f'| {seconds / concat.program.seconds:.1f} | {each.parameters / 1e3:.0f} '
            f'| {each.program.mebibytes or math.nan:.1f} |'
        )


def print_growth(sizes: list[int], arguments: argparse.Namespace) -> None:
    """Prints time and memory for each number of tokens."""
    measured = {
        (name, size): compile_fusion(module, make_features(2, arguments.rows, size // 2))
        for name, module in GROWING.items()
        for size in sizes
    }
    take_turns(measured, arguments.rounds)
    ratio = math.log(sizes[-1] / sizes[-2])
    for title, value in (('ms', lambda each: each.milliseconds), ('MiB', lambda each: each.program.mebibytes)):
        print(f'\n{title}, {arguments.rows} rows')
        print('| tokens | ' + ' | '.join(map(str, sizes)) + ' | exponent |\n|---|' + '---|' * (len(sizes) + 1))
        for name in GROWING:
            row = [value(measured[name, size]) for size in sizes]
            exponent = math.log(row[-1] / row[-2]) / ratio
            print(f'| `{name}` | ' + ' | '.join(f'{each:.1f}' for each in row) + f' | {exponent:.2f} |')


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--fusions', nargs='+', choices=fusion.__all__, default=fusion.__all__, help='which of them')
    parser.add_argument('--modalities', type=int, nargs='+', default=[2, 3], help='numbers of modalities')
    parser.add_argument('--rows', type=int, default=32, help='rows of a batch')
    parser.add_argument('--tokens', type=int, default=16, help='tokens of each modality')
    parser.add_argument('--rounds', type=int, default=20, help='passes of each program, of which the fastest counts')
    parser.add_argument('--growth', type=int, nargs='+', help='two numbers of tokens or more: print the growth')
    arguments = parser.parse_args()
    print(f'{jax.device_count()} x {jax.devices()[0].device_kind}, jax {jax.__version__}')
    if arguments.growth:
        print_growth(sorted(arguments.growth), arguments)
        return
    names = ['Concat', *(name for name in arguments.fusions if name != 'Concat')]
    for num_modalities in arguments.modalities:
        print_costs(names, num_modalities, arguments)


if __name__ == '__main__':
    main()
