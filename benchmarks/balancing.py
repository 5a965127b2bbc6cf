"""What the weights alone cost: the jitted time of each method on a Gramian, for 3, 20 and 100 tasks.

    python benchmarks/balancing.py [--tasks 3 20 100] [--width 1000] [--repeats 50] [--x64]

Prints one line for each method that `mmtl_jax.balancing` exports, that needs the Gramian and has defaults: the least of
the times of repeated calls, in milliseconds, without compilation. The gradients are normal numbers.
"""

import argparse
import inspect
import time

import jax
import jax.numpy as jnp
import numpy as np

from mmtl_jax import balancing
from mmtl_jax.balancing import Balancer, Signals


def methods() -> dict[str, Balancer]:
    """Returns the exported methods that work on the Gramian of one batch, with their defaults."""
    found = {}
    for name in balancing.__all__:
        signature = (
            inspect.signature(getattr(balancing, name)) if inspect.isfunction(getattr(balancing, name)) else None
        )
        if signature is None or signature.return_annotation is not Balancer:
            continue
        if any(parameter.default is parameter.empty for parameter in signature.parameters.values()):
            continue
        balancer = getattr(balancing, name)()
        if balancer.needs == 'gramian' and balancer.splits == 1:
            found[name] = balancer
    return found


def milliseconds(balancer: Balancer, num_tasks: int, width: int, repeats: int) -> float:
    """Returns the least time of a compiled `update`."""
    rows = jnp.asarray(np.random.default_rng(0).normal(size=(num_tasks, width)), jnp.result_type(float))
    losses = jnp.linspace(0.5, 2.0, num_tasks)
    signals = Signals(losses, jnp.ones(num_tasks, bool), rows @ rows.T)
    update, state = jax.jit(balancer.update), balancer.init(num_tasks)
    jax.block_until_ready(update(signals, state))
    least = float('inf')
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(update(signals, state))
        least = min(least, time.perf_counter() - start)
    return 1e3 * least


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--tasks', type=int, nargs='+', default=[3, 20, 100], help='numbers of tasks')
    parser.add_argument('--width', type=int, default=1000, help='length of a gradient')
    parser.add_argument('--repeats', type=int, default=50, help='calls of which the fastest counts')
    parser.add_argument('--x64', action='store_true', help='in float64 instead of float32')
    arguments = parser.parse_args()
    jax.config.update('jax_enable_x64', arguments.x64)
    print(f'{"ms at T =":20}' + ''.join(f'{size:10}' for size in arguments.tasks))
    for name, balancer in methods().items():
        # Krum needs at least 4 tasks.
        sizes = [size if name != 'krum' else max(size, 4) for size in arguments.tasks]
        times = [milliseconds(balancer, size, arguments.width, arguments.repeats) for size in sizes]
        print(f'{name:20}' + ''.join(f'{each:10.3f}' for each in times))


if __name__ == '__main__':
    main()
