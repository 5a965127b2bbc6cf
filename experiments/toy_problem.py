"""The two objectives in the plane of CAGrad (2110.14048) and Nash-MTL (2202.01017), and their Pareto front.

The losses of a point (x, y) are, with q(u) = (u^2 + (y + 8)^2 / 10) / 10 - 20,

    y > 0:  l_1 = tanh(y / 2) (log max(|(-x - 7) / 2 + tanh y|, 5e-6) + 6)
            l_2 = tanh(y / 2) (log max(|(-x + 7) / 2 - tanh y|, 5e-6) + 6)
    y < 0:  l_1 = tanh(-y / 2) q(x - 7),    l_2 = tanh(-y / 2) q(x + 7)

and the first is then multiplied by a scale, 1 in CAGrad and 0.1 in Nash-MTL. In the upper half each loss has a narrow,
curved valley, x = 2 tanh(y) - 7 and x = 7 - 2 tanh(y), beside which its gradient has hardly a bound: a method that
follows the larger gradient crosses it back and forth and gets on slowly. The Pareto front lies in the lower half,
between x = 7 and x = -7, whatever the scale.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from mmtl_jax.core.types import Array

# The five of Nash-MTL; the first and the third are CAGrad's.
STARTS = ((-8.5, 7.5), (0.0, 0.0), (9.0, 9.0), (-7.5, -0.5), (9.0, -1.0))
# Half the side of the square around the origin that is drawn, and searched for the front.
REACH = 11.0
# Each loss is above this times its scale. FAMO's authors give it to their method.
LOWER_BOUND = -21.0
# Below it the argument of the logarithm is cut off.
NARROWEST = 5e-6
GRID = 221
NEWTON_STEPS = 12


def losses(point: Array, scale: float | Array = 1.0) -> Array:
    """Returns the losses `[2]` of a point `[2]`, the first of them times `scale`."""
    x, y = point
    valleys = jnp.stack([(-x - 7) / 2 + jnp.tanh(y), (-x + 7) / 2 - jnp.tanh(y)])
    upper = jnp.log(jnp.maximum(jnp.abs(valleys), NARROWEST)) + 6
    lower = (jnp.stack([x - 7, x + 7]) ** 2 + (y + 8) ** 2 / 10) / 10 - 20
    values = jnp.maximum(jnp.tanh(y / 2), 0) * upper + jnp.maximum(jnp.tanh(-y / 2), 0) * lower
    return values * scales_of(scale)


def scales_of(scale: float | Array) -> Array:
    """Returns what each loss is multiplied by, `[2]`."""
    return jnp.stack([jnp.asarray(scale, jnp.float32), jnp.ones((), jnp.float32)])


@jax.jit
def losses_at(points: Array, scale: float = 1.0) -> Array:
    """Returns the losses `[..., 2]` of points `[..., 2]`."""
    return jax.vmap(lambda point: losses(point, scale))(points.reshape(-1, 2)).reshape(points.shape)


def losses_on_grid(size: int = GRID) -> tuple[np.ndarray, np.ndarray]:
    """Returns the ticks `[size]` of both axes, and the losses at scale 1, `[size, size, 2]`, by y, then x."""
    ticks = np.linspace(-REACH, REACH, size, dtype=np.float32)
    return ticks, np.asarray(losses_at(np.stack(np.meshgrid(ticks, ticks), axis=-1)))


@dataclasses.dataclass(frozen=True)
class Front:
    """The Pareto front at scale 1, from the best point for the first loss to the best one for the second.

    Attributes:
      points: `[N, 2]`, in the plane.
      losses: `[N, 2]`, there.
    """

    points: np.ndarray
    losses: np.ndarray

    def locate(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns how far from the front the losses of points `[..., 2]` are, and where on it the nearest place is.

        Each loss is measured in units of its range on the front, so neither answer depends on the scale of a loss. The
        place is a share of the front's length, 0 at the best for the first loss and 1 at the best for the second. A
        point that is not finite is infinitely far.
        """
        low, high = self.losses.min(axis=0), self.losses.max(axis=0)
        corners = (self.losses - low) / (high - low)
        values = (np.asarray(losses_at(points)) - low) / (high - low)
        sides = np.diff(corners, axis=0)
        lengths = np.linalg.norm(sides, axis=-1)
        from_corner = values[..., None, :] - corners[:-1]
        along = np.clip(np.sum(from_corner * sides, axis=-1) / lengths**2, 0, 1)
        distances = np.linalg.norm(from_corner - along[..., None] * sides, axis=-1)
        distances = np.where(np.isfinite(distances), distances, np.inf)
        nearest = np.argmin(distances, axis=-1)[..., None]
        places = (np.cumsum(lengths) - lengths + along * lengths) / lengths.sum()
        return tuple(np.take_along_axis(found, nearest, axis=-1)[..., 0] for found in (distances, places))


def pareto_front(size: int = 101) -> Front:
    """Returns the Pareto front at scale 1: the global minima of `size` weighted means of the losses.

    Each is the best point of a grid, refined by Newton's method. Such a minimum is always on the front; the whole of a
    front is found like this only if it is convex, as this one is.
    """
    ticks, values = losses_on_grid()
    weights = np.linspace(1, 0, size, dtype=np.float32)
    best = [np.unravel_index(np.argmin(values @ [weight, 1 - weight]), values.shape[:2]) for weight in weights]
    starts = np.array([[ticks[column], ticks[row]] for row, column in best])

    def refine(point: Array, weight: Array) -> Array:
        def mean(point: Array) -> Array:
            return losses(point) @ jnp.stack([weight, 1 - weight])

        def newton(_: int, point: Array) -> Array:
            return point - jnp.linalg.solve(jax.hessian(mean)(point), jax.grad(mean)(point))

        return jax.lax.fori_loop(0, NEWTON_STEPS, newton, point)

    points = np.asarray(jax.jit(jax.vmap(refine))(starts, weights))
    return Front(points, np.asarray(losses_at(points)))
