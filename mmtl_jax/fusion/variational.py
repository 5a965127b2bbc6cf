"""The multimodal variational autoencoder with a product of experts (MVAE; Wu & Goodman 2018, 1802.05335)."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmtl_jax.core.types import Array, Features, Fused
from mmtl_jax.fusion.shared_space import Decoder, SharedSpace, squared_errors


class Variational(SharedSpace):
    r"""q(z | x) proportional to N(0, I) prod_m q_m(z | x_m), with a Gaussian expert per present modality.

    The result is a sample of q in training, its mean in evaluation. The objectives are the parts of the sub-sampled
    training paradigm (equation 5, without its random subsets),

        -ELBO(x_1, ..., x_M) - sum_m ELBO(x_m),
        -ELBO(X) = sum over X of -log p(x_m | z) + kl_weight KL(q(z | X) | N(0, I)),

    with p normal of variance 1, its constant left out, in nats by the number of entries of x_1, ..., x_M together. What
    a row lacks takes no part; without any modality q is the prior and every objective 0.

    Objectives:
      reconstruction: the sum of the -log p(x_m | z).
      kl: the sum of the KL divergences.
      elbo: all of it.

    Attributes:
      kl_weight: the weight of the KL divergence in `elbo`; as tasks apart, `reconstruction` and `kl` are weighted by
        the balancer.
    """

    kl_weight: float = 1.0

    @nn.compact
    def __call__(self, features: Mapping[str, Features], *, train: bool) -> Fused:
        """Returns z as one token `[B, 1, width]`, with the objectives."""
        vectors, present = self.standardised(features)
        experts = [
            Decoder(self.width, 2 * self.width, self.dtype, name=f'encode_{modality}')(vector)
            for modality, vector in vectors.items()
        ]
        means, log_variances = jnp.split(jnp.stack(experts, axis=1).astype(jnp.float32), 2, axis=-1)
        # The posterior of all modalities, then that of each alone: [1 + M, B, M].
        alone = jnp.eye(present.shape[1], dtype=bool)[:, None] & present[None]
        subsets = jnp.concatenate([present[None], alone])
        mean, variance = product_of_gaussians(means[None], log_variances[None], subsets)
        code = mean
        if train:
            code = mean + jnp.sqrt(variance) * jax.random.normal(self.make_rng('dropout'), mean.shape)
        sizes = jnp.array([vector.shape[-1] for vector in vectors.values()], jnp.float32)
        errors = jnp.where(subsets, squared_errors(vectors, self.decode(code, vectors)), 0)
        reconstruction = 0.5 * jnp.sum(errors, axis=0) @ sizes / jnp.sum(sizes)
        kl = jnp.sum(kl_divergence(mean, variance), axis=0) / jnp.sum(sizes)
        objectives = {'reconstruction': reconstruction, 'kl': kl, 'elbo': reconstruction + self.kl_weight * kl}
        return self.fused(code[0], present, objectives, train=train)


def product_of_gaussians(means: Array, log_variances: Array, present: Array) -> tuple[Array, Array]:
    """Returns mean and variance of N(0, I) times the Gaussians of the present experts (section 2.2).

    With the precisions T_m, and 1 that of the prior: mean = sum_m T_m mu_m / T and variance = 1 / T, T = 1 + sum_m T_m.

    Args:
      means: `[..., M, D]`.
      log_variances: `[..., M, D]`, of diagonal covariances.
      present: `[..., M]` bool.
    """
    precisions = jnp.where(present[..., None], jnp.exp(-log_variances), 0)
    variance = 1 / (1 + jnp.sum(precisions, axis=-2))
    return variance * jnp.sum(precisions * means, axis=-2), variance


def kl_divergence(mean: Array, variance: Array) -> Array:
    """Returns KL(N(mean, variance) | N(0, I)) in nats, `[..., D]` -> `[...]`."""
    return 0.5 * jnp.sum(variance + jnp.square(mean) - 1 - jnp.log(variance), axis=-1)
