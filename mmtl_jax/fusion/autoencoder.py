"""The bimodal deep autoencoder (Ngiam et al., ICML 2011), for any number of modalities."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmtl_jax.core.types import Array, Features, Fused
from mmtl_jax.fusion.shared_space import JointEncoder, SharedSpace, reconstruction_error


class Autoencoder(SharedSpace):
    """z = f(x_1, ..., x_M) and x^_m = g_m(z): a code from which all modalities can be reconstructed, whatever it saw.

    Objectives:
      reconstruction: the mean squared error over the modalities that the row has. In training the code of a row sees
        all of them or only one, each choice with the same chance, and every one is to be reconstructed (section 3.3:
        a third of the examples has only audio, a third only video); in evaluation it sees all that the row has.
    """

    @nn.compact
    def __call__(self, features: Mapping[str, Features], *, train: bool) -> Fused:
        """Returns z as one token `[B, 1, width]`, with the objective."""
        vectors, present = self.standardised(features)
        encoder = JointEncoder(self.width, self.dtype, name='encoder')
        code = encoder(vectors, present)
        seen = encoder(vectors, all_or_one(present, self.make_rng('dropout'))) if train else code
        error = reconstruction_error(vectors, self.decode(seen, vectors), present)
        return self.fused(code, present, {'reconstruction': error}, train=train)


def all_or_one(present: Array, key: Array) -> Array:
    """Returns for each row all modalities that are `present` `[B, M]` or one of them, each with the same chance."""
    rows, modalities = present.shape
    lottery = jax.random.uniform(key, (rows, modalities + 1))
    lottery = jnp.where(jnp.concatenate([jnp.ones((rows, 1), bool), present], axis=1), lottery, -1.0)
    winner = jnp.argmax(lottery, axis=1)[:, None]
    return jnp.where(winner == 0, present, winner == jnp.arange(1, modalities + 1)[None])
