"""Fusion at the level of decisions: every modality answers by itself, and the answers are joined.

The fusion gives one token per modality. The model then shares and answers for each of them apart, with heads of their
own, and `Decided` joins the predictions of the modalities that the row has. What joins them works on the parameters of
the distribution that a head says it predicts, in its attribute `distribution`: the logits of a 'categorical' one
`[B, C]`, of a 'bernoulli' one per label `[B, K]`, or the means of a 'normal' one per number `[B, K]`.
"""

import math
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmtl_jax.core.types import Array, Features
from mmtl_jax.fusion.vectors import project_all
from mmtl_jax.nn import MLP, CheckedModule, fill_masked, masked_softmax

DISTRIBUTIONS = ('categorical', 'bernoulli', 'normal')
# What stacking makes of a unanimous vote before it has learned.
SURE = 0.99


class DecisionFusion(CheckedModule):
    """What the fusions of decisions share; one of them adds `decision(distribution) -> nn.Module`.

    That module is `(predictions [B, M, ...], present [B, M]) -> [B, ...]`; its parameters are each task's own.

    Attributes:
      width: feature size D of the tokens.
      pooling: 'attention' or 'mean', how the tokens of a modality become one.
      dropout_rate: dropout on the tokens.
      dtype: of the tokens; None takes the widest of inputs and parameters. Decisions are made in float32.
    """

    width: int
    pooling: str = 'attention'
    dropout_rate: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, features: Mapping[str, Features], *, train: bool) -> Features:
        """Returns W_m h_m as token m, `[B, M, width]`, in the order of the sorted names; absent ones are masked."""
        vectors, present = project_all(self, features, dtype=self.dtype)
        tokens = nn.Dropout(self.dropout_rate, deterministic=not train)(vectors)
        return Features(fill_masked(tokens, present), present)


class DecisionAverage(DecisionFusion):
    """p = sum_m a_m p_m / sum_m a_m: the mean of the probabilities, or of the numbers, over the present modalities."""

    def decision(self, distribution: str) -> nn.Module:
        """Returns what joins the predictions of the modalities."""
        return Mixture(distribution, learned=False, parent=None)


class DecisionWeighted(DecisionFusion):
    """p = sum_m w_m p_m with w the softmax of a learned vector over the present modalities, one vector per task."""

    def decision(self, distribution: str) -> nn.Module:
        """Returns what joins the predictions of the modalities."""
        return Mixture(distribution, learned=True, parent=None)


class ProductOfExperts(DecisionFusion):
    """p proportional to p_0^(1 - n) prod_m p_m over the n present modalities, with a learned prior expert p_0.

    This is Bayes' rule for modalities that are independent given the answer: a single modality answers as it stands,
    and without any the prior does. Products of experts are of Hinton (Neural Computation 2002).
    """

    def decision(self, distribution: str) -> nn.Module:
        """Returns what joins the predictions of the modalities."""
        return Product(distribution, parent=None)


class Stacking(DecisionFusion):
    """A meta-learner on the predictions of all modalities side by side, and on which of them there are.

    Stacked generalisation (Wolpert, Neural Networks 1992) on class probabilities (Ting & Witten, 1105.5466); an absent
    modality has zeros. There the base learners come first and the meta-learner sees predictions for rows that they were
    not fitted on; here all learn together, unless the gradient stops. So that the heads have something to learn from, a
    linear meta-learner begins as the mean vote, which has the chance `SURE` where all modalities agree.

    Attributes:
      width: feature size D of the tokens.
      pooling: 'attention' or 'mean', how the tokens of a modality become one.
      dropout_rate: dropout on the tokens.
      dtype: of the tokens.
      hidden: sizes of the meta-learner's hidden layers; none gives a linear one.
      stop_gradient: train the meta-learner alone, on heads that were trained before with another decision.
    """

    hidden: tuple[int, ...] = ()
    stop_gradient: bool = False

    def decision(self, distribution: str) -> nn.Module:
        """Returns what joins the predictions of the modalities."""
        return MetaLearner(distribution, tuple(self.hidden), self.stop_gradient, parent=None)


class Decided(nn.Module):
    """A head per modality and the decision: `{modality: Features}` -> the predictions of one head.

    The parameters of the heads stand at `<modality>`, those of the decision at `decision`.

    Attributes:
      head: what answers for each modality.
      decision: what joins the answers.
    """

    head: nn.Module
    decision: nn.Module

    @nn.compact
    def __call__(self, features: Mapping[str, Features], *, train: bool) -> Array:
        """Returns the joint predictions; those of absent modalities have no part in them."""
        predictions, present = [], []
        for modality in sorted(features):
            head = self.head.clone(parent=self, name=modality, _deep_clone=True)
            predictions.append(head(features[modality], train=train))
            present.append(jnp.any(features[modality].mask, axis=1))
        return self.decision(jnp.stack(predictions, axis=1).astype(jnp.float32), jnp.stack(present, axis=1))


class Mixture(nn.Module):
    """sum_m w_m p_m, with equal weights or learned ones, over the present modalities.

    Attributes:
      distribution: one of `DISTRIBUTIONS`.
      learned: whether the weights are.
    """

    distribution: str
    learned: bool

    @nn.compact
    def __call__(self, predictions: Array, present: Array) -> Array:
        """Returns `[B, ...]`, zero for a row without any modality: equal chances, or the number 0."""
        scores = jnp.zeros(present.shape)
        if self.learned:
            scores += self.param('weights', nn.initializers.zeros, present.shape[1:])[None]
        predictions = fill_masked(predictions, present)
        if self.distribution == 'normal':
            return jnp.einsum('bm,bmk->bk', masked_softmax(scores, present), predictions)
        # In log space, so that a class which all modalities rule out keeps a gradient; minus infinity would lose it.
        log_weights = jax.nn.log_softmax(jnp.where(present, scores, -1e30))[..., None]
        any_present = jnp.any(present, axis=1)

        def mixed(log_probabilities: Array) -> Array:
            return fill_masked(jax.nn.logsumexp(log_weights + log_probabilities, axis=1), any_present)

        if self.distribution == 'categorical':
            return mixed(jax.nn.log_softmax(predictions))
        return mixed(jax.nn.log_sigmoid(predictions)) - mixed(jax.nn.log_sigmoid(-predictions))


class Product(nn.Module):
    """p_0^(1 - n) prod_m p_m over the n present modalities.

    With the logits x_m of classes or labels, the joint ones are sum_m x_m - (n - 1) x_0. A normal expert has the
    learned precision T_0 + t_m, where T_0 is that of the prior, so that the joint one, T = T_0 + sum_m t_m, is
    positive; the mean is (sum_m (T_0 + t_m) mu_m - (n - 1) T_0 mu_0) / T.

    Attributes:
      distribution: one of `DISTRIBUTIONS`.
    """

    distribution: str

    @nn.compact
    def __call__(self, predictions: Array, present: Array) -> Array:
        """Returns `[B, ...]`, the prior for a row without any modality."""
        size = predictions.shape[2:]
        prior = self.param('prior', nn.initializers.zeros, size)[None]
        excess = jnp.sum(present, axis=1, keepdims=True) - 1.0
        predictions = fill_masked(predictions, present)
        if self.distribution != 'normal':
            return jnp.sum(predictions, axis=1) - excess * prior
        precision = jnp.exp(self.param('log_precision', nn.initializers.zeros, predictions.shape[1:]))[None]
        of_prior = jnp.exp(self.param('prior_log_precision', nn.initializers.zeros, size))[None]
        precision = fill_masked(jnp.broadcast_to(precision, predictions.shape), present)
        natural = jnp.sum((of_prior[:, None] + precision) * predictions, axis=1) - excess * of_prior * prior
        return natural / (of_prior + jnp.sum(precision, axis=1))


class MetaLearner(nn.Module):
    """Layers from the predictions of all modalities to one.

    Attributes:
      distribution: one of `DISTRIBUTIONS`.
      hidden: sizes of hidden layers.
      stop_gradient: whether the predictions are taken as they are.
    """

    distribution: str
    hidden: tuple[int, ...]
    stop_gradient: bool

    @nn.compact
    def __call__(self, predictions: Array, present: Array) -> Array:
        """Returns `[B, ...]`."""
        predictions = fill_masked(predictions, present)
        if self.stop_gradient:
            predictions = jax.lax.stop_gradient(predictions)
        if self.distribution == 'categorical':
            predictions = jax.nn.softmax(predictions)
        elif self.distribution == 'bernoulli':
            predictions = jax.nn.sigmoid(predictions)
        voices = fill_masked(predictions, present).reshape(len(present), -1)
        inputs = jnp.concatenate([voices, present.astype(voices.dtype)], axis=1)
        for size in self.hidden:
            inputs = MLP(size)(inputs, train=False)
        start = nn.linear.default_kernel_init if self.hidden else mean_vote(self.distribution, present.shape[1])
        return nn.Dense(predictions.shape[-1], kernel_init=start, name='meta')(inputs)


def mean_vote(distribution: str, num_modalities: int) -> nn.initializers.Initializer:
    """Returns the initialiser of a kernel `[M C + M, C]` that makes logits, or numbers, of the mean vote."""
    odds = math.log(SURE / (1 - SURE))

    def init(key: Array, shape: tuple[int, int], dtype: jnp.dtype = jnp.float32) -> Array:
        classes = shape[-1]
        by_vote, by_presence = {
            'categorical': (odds + math.log(max(classes - 1, 1)), 0.0),
            'bernoulli': (2 * odds, -odds),
            'normal': (1.0, 0.0),
        }[distribution]
        votes = jnp.tile(by_vote * jnp.eye(classes, dtype=dtype), (num_modalities, 1))
        return jnp.concatenate([votes, jnp.full((num_modalities, classes), by_presence, dtype)]) / num_modalities

    return init
