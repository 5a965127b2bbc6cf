"""The multimodal factorization model (MFM; Tsai et al. 2019, 1806.06176)."""

from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp

from mmtl_jax.core.types import Array, Features, Fused
from mmtl_jax.fusion.shared_space import JointEncoder, SharedSpace, reconstruction_error
from mmtl_jax.nn import fill_masked


class Factorized(SharedSpace):
    """x^_m = F_m(f_y, f_m): a factor f_y = G_y(z_y) of all modalities, and one of each modality, f_m = G_m(z_m).

    The tasks read f_y alone; what only a modality itself needs goes to its own f_m. z_y is inferred from all modalities
    that the row has, z_m from x_m.

    Objectives:
      reconstruction: the mean squared error over the modalities that the row has.
      mmd: the mean over z_y and the z_m of their MMD from the prior N(0, I), the Wasserstein autoencoder's penalty
        (equation 5); see `gaussian_mmd`. It belongs to the batch: every row has the same value.

    Attributes:
      private_width: size of the f_m and z_m; None is a quarter of `width`, at least 1.
    """

    private_width: int | None = None

    @nn.compact
    def __call__(self, features: Mapping[str, Features], *, train: bool) -> Fused:
        """Returns f_y as one token `[B, 1, width]`, with the objectives."""
        vectors, present = self.standardised(features)
        size = self.private_width or max(self.width // 4, 1)
        latent = JointEncoder(self.width, self.dtype, name='encoder')(vectors, present)
        latents = {
            modality: nn.Dense(size, dtype=self.dtype, name=f'encode_{modality}')(vector)
            for modality, vector in vectors.items()
        }
        factor = nn.gelu(nn.Dense(self.width, dtype=self.dtype, name='factor')(latent))
        factors = {m: nn.gelu(nn.Dense(size, dtype=self.dtype, name=f'factor_{m}')(z)) for m, z in latents.items()}
        outputs = self.decode(factor, vectors, more=factors)
        distances = [gaussian_mmd(latent, jnp.any(present, axis=1))]
        distances += [gaussian_mmd(z, present[:, index]) for index, z in enumerate(latents.values())]
        objectives = {
            'reconstruction': reconstruction_error(vectors, outputs, present),
            'mmd': jnp.broadcast_to(sum(distances) / len(distances), present.shape[:1]),
        }
        return self.fused(factor, present, objectives, train=train)


def gaussian_mmd(samples: Array, mask: Array) -> Array:
    r"""Returns the squared maximum mean discrepancy of the real samples from N(0, I), a scalar; 0 without any.

    With k(x, y) = exp(-|x - y|^2 / (2 s)) and s = D, the expectations over the prior are known; nothing is drawn:

        mean_ij k(x_i, x_j) - 2 mean_i (s / (s + 1))^(D/2) exp(-|x_i|^2 / (2 (s + 1))) + (s / (s + 2))^(D/2).

    Args:
      samples: `[B, D]`.
      mask: `[B]` bool.
    """
    samples = fill_masked(samples, mask).astype(jnp.float32)
    size = samples.shape[-1]
    squares = jnp.sum(jnp.square(samples), axis=-1)
    distances = jnp.maximum(squares[:, None] + squares[None] - 2 * samples @ samples.T, 0)
    pairs = jnp.where(mask[:, None] & mask[None], jnp.exp(-distances / (2 * size)), 0)
    to_prior = (size / (size + 1)) ** (size / 2) * jnp.exp(-squares / (2 * (size + 1)))
    count = jnp.maximum(jnp.sum(mask), 1)
    within = jnp.sum(pairs) / count**2
    between = jnp.sum(jnp.where(mask, to_prior, 0)) / count
    return jnp.where(jnp.any(mask), within - 2 * between + (size / (size + 2)) ** (size / 2), 0)
