"""DSelect-k: a differentiable choice of k experts."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mmtl_jax.core.types import Array, Features, Fused
from mmtl_jax.nn import CheckedModule, masked_mean
from mmtl_jax.sharing.branch import Branch, mix


class DSelectK(CheckedModule):
    """A mixture of at most k of n experts for each task (Hazimeh et al. 2021, 2106.03760).

        z_t = sum_e q_e f_e(x),   q = sum_{i <= k} softmax(W_t x)_i r(Z_ti x + c_ti),
        r(s)_e = product over the bits b of e of S(s_b) or 1 - S(s_b),

    with x the mean of the real tokens, S the smooth step (see `smooth_step`) and m = ceil(log2 n) bits. Where |s_b| is
    at least gamma / 2 in every bit, r chooses one expert, to the bit.

    If n is no power of 2, some of the 2^m codes stand for no expert. The authors add a penalty against these; here code
    c stands for expert c mod n, so that r always sums to 1 and nothing has to be learned.

    The entropy of the k choices of a task, the sum over i of -sum_e r_e log r_e, comes with the task's features as the
    objective `entropy`, which makes the choices sharp: a task `tasks.auxiliary` learns the sum over the tasks, with the
    weight that the balancer gives it. The authors give it about 1e-6 of that of a task.

    Attributes:
      tasks: task names; the selector of a task is at `selector_<task>`.
      width: feature size D.
      num_experts: n.
      num_selected: k.
      gamma: width of the smooth step.
      depth: layers of each expert, of the tokens and of each map.
      dropout_rate: dropout after each layer.
      dtype: of the arithmetic and the result, such as `'bfloat16'`, but for the selectors; parameters stay float32.
      objectives: what tasks can learn of it beside their own losses.
    """

    tasks: tuple[str, ...]
    width: int
    num_experts: int = 4
    num_selected: int = 2
    gamma: float = 1.0
    depth: int = 1
    dropout_rate: float = 0.0
    dtype: jnp.dtype | None = None
    objectives = ('entropy',)

    @nn.compact
    def __call__(self, features: Features, *, train: bool) -> dict[str, Features]:
        """Returns each task's mixture, and with it the entropy of its choices.

        Raises:
          ValueError: less than two experts, or more chosen than there are.
        """
        if self.num_experts < max(2, self.num_selected):
            raise ValueError(
                'DSelectK: needs at least 2 experts, and no more of them selected than there are, got '
                f'num_experts={self.num_experts} and num_selected={self.num_selected}.'
            )
        experts = [
            Branch(self.width, self.depth, self.dropout_rate, self.dtype, name=f'expert_{index}')(features, train=train)
            for index in range(self.num_experts)
        ]
        outputs = {}
        for task in self.tasks:
            selector = Selector(self.num_experts, self.num_selected, self.gamma, name=f'selector_{task}')
            weights, entropy = selector(features)
            mixed = mix(weights, experts)
            outputs[task] = Fused(mixed.tokens, mixed.mask, mixed.maps, objectives={'entropy': entropy})
        return outputs


class Selector(nn.Module):
    """The weights of the experts for one task.

    Attributes:
      num_experts: n.
      num_selected: k.
      gamma: width of the smooth step.
    """

    num_experts: int
    num_selected: int
    gamma: float

    @nn.compact
    def __call__(self, features: Features) -> tuple[Array, Array]:
        """Returns the weights q `[B, n]` and the entropies of the choices `[B]`, 0 for a row without a real token."""
        x = masked_mean(features.tokens, features.mask)
        num_bits = math.ceil(math.log2(self.num_experts))
        # Small first scores, as in the authors' code: all bits start near 1/2, where the smooth step is steepest.
        init = nn.initializers.normal(self.gamma / 100)
        scores = nn.DenseGeneral((self.num_selected, num_bits), kernel_init=init, name='bits')(x)
        choices = single_choices(scores, self.num_experts, self.gamma)
        weights = jax.nn.softmax(nn.Dense(self.num_selected, use_bias=False, name='weights')(x))
        entropy = jnp.where(jnp.any(features.mask, axis=1), entropies(choices).sum(axis=-1), 0)
        return jnp.einsum('bi,bie->be', weights, choices), entropy


def smooth_step(x: Array, gamma: float) -> Array:
    """Returns 0 below -gamma / 2, 1 above gamma / 2, and -2 x^3 / gamma^3 + 3 x / (2 gamma) + 1/2 between."""
    inside = jnp.clip(x / gamma, -0.5, 0.5)
    return -2 * inside**3 + 1.5 * inside + 0.5


def single_choices(scores: Array, num_experts: int, gamma: float) -> Array:
    """Returns the distributions over the experts `[..., n]` that the scores `[..., m]` of the bits choose."""
    ones = smooth_step(scores, gamma)
    num_codes = 2 ** scores.shape[-1]
    bits = (np.arange(num_codes)[:, None] >> np.arange(scores.shape[-1])) & 1
    bits = bits.astype(bool).reshape((1,) * (scores.ndim - 1) + bits.shape)
    codes = jnp.prod(jnp.where(bits, ones[..., None, :], 1 - ones[..., None, :]), axis=-1)
    expert_of_code = np.arange(num_codes)[:, None] % num_experts == np.arange(num_experts)
    return codes @ expert_of_code.astype(codes.dtype)


def entropies(choices: Array) -> Array:
    """Returns -sum_e r_e log r_e over the last axis; an expert that is certainly out adds nothing, nor a gradient."""
    inside = jnp.where(choices > 0, choices, 1)
    return -jnp.sum(inside * jnp.log(inside), axis=-1)
