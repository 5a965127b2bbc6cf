"""Byzantine-robust means: what most tasks agree on."""

import jax
import jax.numpy as jnp

from mmtl_jax.balancing.base import Balancer, Rows, Signals, mask_inactive
from mmtl_jax.core.types import Array, PyTree


def krum(num_byzantine: int = 1, num_selected: int = 1) -> Balancer:
    r"""Returns (multi-)Krum, the mean of the gradients nearest to the others (Blanchard et al., 1703.02757, section 4).

    The score of a task is the sum of the distances from its gradient to the T - `num_byzantine` - 2 nearest other ones;
    the `num_selected` tasks with the lowest scores have the weight 1 / `num_selected`, the others 0. The distances come
    from the Gramian, |g_i - g_j|^2 = G_ii + G_jj - 2 G_ij. The task-own heads receive their own task's gradient.

    Factor 1 against TorchJD, whose distance this is; the paper sums the squares. LibMTL lacks the method.

    Degenerate cases: of equal scores, the task that comes first is selected. With fewer active tasks than
    `num_byzantine` + 3, each is scored by its nearest other one; with at most `num_selected`, all are selected.

    Args:
      num_byzantine: how many tasks may be arbitrarily wrong.
      num_selected: how many gradients are averaged; 1 is Krum, more is multi-Krum.

    Raises:
      ValueError: `num_byzantine` is negative or `num_selected` not positive; from `init`, there are fewer than
        `num_byzantine` + 3 or fewer than `num_selected` tasks.
    """
    if num_byzantine < 0 or num_selected < 1:
        raise ValueError(
            f'krum needs num_byzantine >= 0 and num_selected >= 1, got {num_byzantine} and {num_selected}.'
        )

    def init(num_tasks: int) -> tuple:
        needed = max(num_byzantine + 3, num_selected)
        if num_tasks < needed:
            raise ValueError(
                f'krum with num_byzantine={num_byzantine} and num_selected={num_selected} needs at least {needed} '
                f'tasks, got {num_tasks}.'
            )
        return ()

    def update(signals: Signals, state: tuple) -> tuple[Array, tuple]:
        gramian, active = signals.gramian, signals.active
        tasks, count = jnp.arange(len(active)), jnp.sum(active)
        squares = jnp.diagonal(gramian)
        distances = jnp.sqrt(jnp.maximum(squares[:, None] + squares[None, :] - 2 * gramian, 0))
        others = active[None, :] & (tasks[:, None] != tasks[None, :])
        nearest = jnp.sort(jnp.where(others, distances, jnp.inf), axis=1)
        counted = (tasks < jnp.maximum(count - num_byzantine - 2, 1))[None, :] & jnp.isfinite(nearest)
        scores = jnp.where(active, jnp.sum(jnp.where(counted, nearest, 0), axis=1), jnp.inf)
        place = jnp.argsort(jnp.argsort(scores))
        selected = jnp.minimum(num_selected, count)
        weights = jnp.where(place < selected, 1 / jnp.maximum(selected, 1), 0).astype(gramian.dtype)
        return mask_inactive(weights, active), state

    return Balancer(init=init, update=update, needs='gramian', heads='own')


def trimmed_mean(num_trimmed: int = 1) -> Balancer:
    r"""Returns the coordinate-wise trimmed mean (Yin et al., 1803.01498, definition 2).

    In every coordinate, the `num_trimmed` largest and smallest gradients are left out, and the direction is the mean of
    the others: no combination of the gradients, the result is `Rows`. The task-own heads receive their own task's
    gradient. Factor 1 against TorchJD; LibMTL lacks the method.

    Degenerate cases: of equal values, the tasks that come first count as smaller, which changes no mean. With n <= 2
    `num_trimmed` active tasks, as many are left out as leave one (n odd) or two: the median.

    Args:
      num_trimmed: how many are left out on either side.

    Raises:
      ValueError: `num_trimmed` is negative; from `init`, there are fewer than 2 `num_trimmed` + 1 tasks.
    """
    if num_trimmed < 0:
        raise ValueError(f'trimmed_mean needs num_trimmed >= 0, got {num_trimmed}.')

    def init(num_tasks: int, gradient: PyTree = None) -> tuple:
        if num_tasks < 2 * num_trimmed + 1:
            raise ValueError(
                f'trimmed_mean with num_trimmed={num_trimmed} needs at least {2 * num_trimmed + 1} tasks, '
                f'got {num_tasks}.'
            )
        return ()

    def update(signals: Signals, state: tuple) -> tuple[Rows, tuple]:
        rows = jax.tree.map(lambda leaf: _trim(leaf, signals.active, num_trimmed), signals.jacobian)
        return Rows.summed(rows, signals), state

    return Balancer(init=init, update=update, needs='jacobian', heads='own')


def _trim(gradients: Array, active: Array, num_trimmed: int) -> Array:
    """Returns the gradients `[T, ...]` over the number that is kept in their coordinate, and 0 where they are not."""
    num_tasks, count = len(active), jnp.sum(active)
    tasks = jnp.arange(num_tasks).reshape((-1,) + (1,) * (gradients.ndim - 1))

    def compare(place: Array, task: Array) -> tuple[Array, None]:
        """Counts `task` where it comes before. T^2 comparisons are faster than sorting along the first axis."""
        other = gradients[task][None]
        before = (other < gradients) | ((other == gradients) & (task < tasks))
        return place + (before & active[task]), None

    place, _ = jax.lax.scan(compare, jnp.zeros(gradients.shape, jnp.int32), jnp.arange(num_tasks))
    trimmed = jnp.clip((count - 1) // 2, 0, num_trimmed)
    kept = (place >= trimmed) & (place < count - trimmed)
    return mask_inactive(jnp.where(kept, gradients / jnp.maximum(count - 2 * trimmed, 1), 0), active)
