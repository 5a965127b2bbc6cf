"""What each fusion costs, beside Concat, and how the cost of fusions by attention grows with the number of tokens.

    python benchmarks/fusion.py [--fusions Concat Gated ...] [--modalities 2 3] [--rounds 20] [--clock cpu]
    python benchmarks/fusion.py --growth 256 1024 [--rows 1] [--rounds 5] [--clock cpu]

The first prints a row for each fusion that `mmtl_jax.fusion` exports and each number of modalities, with the defaults
of the fusion and width 64: milliseconds of a forward and backward pass, the least of the rounds, in which all programs
take turns; the same over `Concat`; seconds to trace and compile, and over `Concat`; millions of floating-point
operations, as XLA counts them; thousands of parameters; MiB of temporary memory. Each modality has as many tokens as
`--tokens` says, of width 64.

`--clock cpu` counts the time of all cores that the process had, which other work on the machine disturbs less.

The second prints, for two modalities that share the tokens equally, milliseconds, operations and MiB at each number of
tokens, and the exponent of the growth between the last two: 1 is linear, 2 is quadratic.
"""

import argparse
import dataclasses
import math
import time
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

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


Clock = Callable[[], float]
CLOCKS = {'wall': time.perf_counter, 'cpu': time.process_time}


@dataclasses.dataclass
class Measured:
    """A compiled forward and backward pass of a fusion.

    Attributes:
      call: takes one pass and waits for it.
      parameters: their number.
      seconds: to trace and compile.
      megaflops: millions of floating-point operations.
      mebibytes: of temporary memory.
      milliseconds: the least of the rounds so far.
    """

    call: Callable[[], None]
    parameters: int
    seconds: float
    megaflops: float
    mebibytes: float
    milliseconds: float = math.inf


def make_features(num_modalities: int, rows: int, tokens: int) -> dict[str, Features]:
    """Returns normal tokens of width 64, all of them real."""
    random = np.random.default_rng(0)
    return {
        f'modality_{index}': Features(
            jnp.asarray(random.normal(size=(rows, tokens, WIDTH)), jnp.float32), jnp.ones((rows, tokens), bool)
        )
        for index in range(num_modalities)
    }


def compile_fusion(module, features: Mapping[str, Features], clock: Clock) -> Measured:
    """Returns the compiled gradient of a sum over all that the fusion gives, by parameters and tokens."""
    keys = {'params': jax.random.key(0), 'dropout': jax.random.key(1)}
    random = np.random.default_rng(1)
    variables = jax.tree.map(
        lambda shape: jnp.asarray(random.normal(scale=0.1, size=shape.shape), shape.dtype),
        jax.eval_shape(lambda: module.init(keys, features, train=True)),
    )
    masks = {modality: each.mask for modality, each in features.items()}
    tokens = {modality: each.tokens for modality, each in features.items()}

    def loss(variables: PyTree, tokens: Mapping[str, jax.Array], masks: Mapping[str, jax.Array]) -> jax.Array:
        given = {modality: Features(tokens[modality], masks[modality]) for modality in tokens}
        fused = module.apply(variables, given, train=True, rngs={'dropout': jax.random.key(1)})
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(fused) if jnp.issubdtype(leaf.dtype, jnp.floating))

    began = clock()
    lowered = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(variables, tokens, masks)
    compiled = lowered.compile()
    seconds = clock() - began

    def call() -> None:
        jax.block_until_ready(compiled(variables, tokens, masks))

    call()
    return Measured(
        call=call,
        parameters=sum(leaf.size for leaf in jax.tree.leaves(variables['params'])),
        seconds=seconds,
        megaflops=lowered.cost_analysis()['flops'] / 1e6,
        mebibytes=compiled.memory_analysis().temp_size_in_bytes / 2**20,
    )


def take_turns(measured: Mapping[str, Measured], rounds: int, clock: Clock) -> None:
    """Measures all programs in turns, so that a busy moment meets all of them."""
    for _ in range(rounds):
        for each in measured.values():
            began = clock()
            each.call()
            each.milliseconds = min(each.milliseconds, 1e3 * (clock() - began))


def print_costs(names: list[str], num_modalities: int, arguments: argparse.Namespace, clock: Clock) -> None:
    """Prints the table of one number of modalities."""
    features = make_features(num_modalities, arguments.rows, arguments.tokens)
    measured = {name: compile_fusion(getattr(fusion, name)(width=WIDTH), features, clock) for name in names}
    take_turns(measured, arguments.rounds, clock)
    concat = measured['Concat']
    print(f'\nM = {num_modalities}, {arguments.rows} rows, {arguments.tokens} tokens for each modality')
    print(
        '| fusion | ms | / Concat | compile s | / Concat | MFLOP | parameters, thousands | MiB |\n'
        '|---|---|---|---|---|---|---|---|'
    )
    for name, each in measured.items():
        print(
            f'| `{name}` | {each.milliseconds:.2f} | {each.milliseconds / concat.milliseconds:.1f} '
            f'| {each.seconds:.1f} | {each.seconds / concat.seconds:.1f} '
            f'| {each.megaflops:.1f} | {each.parameters / 1e3:.0f} | {each.mebibytes:.1f} |'
        )


def print_growth(sizes: list[int], arguments: argparse.Namespace, clock: Clock) -> None:
    """Prints time and memory for each number of tokens."""
    measured = {
        (name, size): compile_fusion(module, make_features(2, arguments.rows, size // 2), clock)
        for name, module in GROWING.items()
        for size in sizes
    }
    take_turns(measured, arguments.rounds, clock)
    ratio = math.log(sizes[-1] / sizes[-2])
    columns = {
        'ms': lambda each: each.milliseconds,
        'MFLOP': lambda each: each.megaflops,
        'MiB': lambda each: each.mebibytes,
    }
    for title, value in columns.items():
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
    parser.add_argument('--clock', choices=CLOCKS, default='wall', help='of the process, or of its cores together')
    arguments = parser.parse_args()
    clock = CLOCKS[arguments.clock]
    print(f'{jax.device_count()} x {jax.devices()[0].device_kind}, jax {jax.__version__}')
    if arguments.growth:
        print_growth(sorted(arguments.growth), arguments, clock)
        return
    names = ['Concat', *(name for name in arguments.fusions if name != 'Concat')]
    for num_modalities in arguments.modalities:
        print_costs(names, num_modalities, arguments, clock)


if __name__ == '__main__':
    main()
