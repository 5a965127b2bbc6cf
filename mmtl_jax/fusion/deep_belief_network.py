"""The multimodal deep belief network (Srivastava & Salakhutdinov, ICML workshop 2012; Ngiam et al., ICML 2011)."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmtl_jax.core.types import Array, Features, Fused
from mmtl_jax.fusion.shared_space import SharedSpace
from mmtl_jax.nn import fill_masked


class DeepBeliefNetwork(SharedSpace):
    """A stack of restricted Boltzmann machines per modality, and one on top of all stacks.

    The first of each stack has Gaussian visible units, the others binary ones. The result is the probabilities of the
    joint machine's hidden units, one layer after the other, and the tasks fine-tune it like any network. The units of
    an absent modality are no part of the row's joint machine (as in Salakhutdinov et al., ICML 2007, for missing
    ratings). The machines are trained at once rather than one by one, each on the probabilities of the one below.

    Objectives:
      contrastive_divergence: the mean over the machines of which the row has a part; see `RBM`.

    Attributes:
      depth: machines per modality.
      num_steps: k of CD-k, steps of Gibbs sampling.
    """

    depth: int = 2
    num_steps: int = 1

    @nn.compact
    def __call__(self, features: Mapping[str, Features], *, train: bool) -> Fused:
        """Returns the joint hidden layer as one token `[B, 1, width]`, with the objective."""
        vectors, present = self.standardised(features)
        tops, losses, parts = [], [], []
        for index, (modality, layer) in enumerate(vectors.items()):
            here = present[:, index]
            for level in range(self.depth):
                machine = RBM(self.width, self.num_steps, gaussian=level == 0, name=f'{modality}_{level}')
                layer, loss = machine(layer, jnp.broadcast_to(here[:, None], layer.shape), train=train)
                losses.append(loss)
                parts.append(here)
            tops.append((layer, jnp.broadcast_to(here[:, None], layer.shape)))
        layers, masks = (jnp.concatenate(part, axis=-1) for part in zip(*tops, strict=True))
        machine = RBM(self.width, self.num_steps, gaussian=self.depth == 0, name='joint')
        joint, loss = machine(layers, masks, train=train)
        losses, parts = jnp.stack([*losses, loss], axis=1), jnp.stack([*parts, jnp.any(present, axis=1)], axis=1)
        total = jnp.sum(jnp.where(parts, losses, 0), axis=1) / jnp.maximum(jnp.sum(parts, axis=1), 1)
        return self.fused(joint, present, {'contrastive_divergence': total}, train=train)


class RBM(nn.Module):
    r"""A restricted Boltzmann machine with binary hidden units, for rows that lack some of the visible ones.

    E(v, h) = -b^T v - c^T h - v^T W h for binary visible units and |v - b|^2 / 2 - c^T h - v^T W h for Gaussian ones.
    The loss is that of contrastive divergence (Hinton, Neural Computation 2002): the free energy of the data minus that
    of v_k, which k steps of Gibbs sampling led to and which takes no gradient, so that the gradient by W is
    -(v_0 p(h | v_0)^T - v_k p(h | v_k)^T). This gradient is that of no function, and the difference says little; the
    value of the loss is therefore the squared error of v_k, which falls as the machine learns. Both are divided by the
    number of visible units. In evaluation each step takes probabilities for samples.

    Attributes:
      width: number of hidden units.
      num_steps: k.
      gaussian: whether the visible units are real numbers of variance 1, else probabilities of binary ones.
    """

    width: int
    num_steps: int
    gaussian: bool

    @nn.compact
    def __call__(self, visible: Array, mask: Array, *, train: bool) -> tuple[Array, Array]:
        """Returns p(h | v) `[B, width]`, and the loss `[B]`, for `visible` and `mask` `[B, V]`."""
        weights = self.param('weights', nn.initializers.lecun_normal(), (visible.shape[-1], self.width))
        visible_bias = self.param('visible_bias', nn.initializers.zeros, visible.shape[-1:])[None]
        hidden_bias = self.param('hidden_bias', nn.initializers.zeros, (self.width,))[None]
        visible = fill_masked(visible, mask)

        def free_energy(v: Array) -> Array:
            of_units = 0.5 * jnp.square(v - visible_bias) if self.gaussian else -visible_bias * v
            return jnp.sum(jnp.where(mask, of_units, 0), axis=-1) - jnp.sum(
                jax.nn.softplus(hidden_bias + v @ weights), axis=-1
            )

        def gibbs_step(v: Array) -> Array:
            hidden = jax.nn.sigmoid(hidden_bias + v @ weights)
            if train:
                hidden = jax.random.bernoulli(self.make_rng('dropout'), hidden).astype(v.dtype)
            drive = visible_bias + hidden @ weights.T
            return jnp.where(mask, drive if self.gaussian else jax.nn.sigmoid(drive), 0)

        data = jax.lax.stop_gradient(visible)
        model = data
        for _ in range(self.num_steps):
            model = gibbs_step(model)
        model = jax.lax.stop_gradient(model)
        difference = free_energy(data) - free_energy(model)
        error = jnp.sum(jnp.square(data - model), axis=-1)
        count = jnp.maximum(jnp.sum(mask, axis=-1), 1)
        loss = (error + difference - jax.lax.stop_gradient(difference)) / count
        return jax.nn.sigmoid(hidden_bias + visible @ weights), loss
