"""Replaced-token detection: ELECTRA's objective (Clark et al., 2020, section 3.1).

    total = mean masked-LM loss over masked positions
          + 50 * mean binary loss over all real tokens

Both means are over the whole global batch. One pass of the generator serves both its
loss and the samples; no gradient flows from the discriminator into the generator but
through the embeddings they share.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from electra_jax.errors import UsageError
from electra_jax.models.electra import Electra
from electra_jax.objectives import masking, replacement

AUC_BINS = 512
AUC_RANGE = 12.0  # logits beyond are counted in the outer bins


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig:
    """What is learnt, and how hard."""

    name: str = "electra"
    mask_rate: float = 0.15
    generator_weight: float = 1.0
    discriminator_weight: float = 50.0
    temperature: float = 1.0  # of the sampling
    disallow_correct: bool = False  # never sample the original token

    def __post_init__(self):
        if self.name != "electra":
            raise UsageError(f"objective.name={self.name!r} is unknown; use electra")
        if not 0 < self.mask_rate < 1:
            raise UsageError(f"objective.mask_rate must be in (0, 1), not {self.mask_rate}")
        if self.temperature <= 0:
            raise UsageError(f"objective.temperature must be above 0, not {self.temperature}")


@dataclasses.dataclass(frozen=True)
class ReplacedTokenDetection:
    """ELECTRA, as the functions of the objective contract (see the package)."""

    config: ObjectiveConfig
    electra: Electra
    special: masking.SpecialTokens

    def prepare(self, batch: Mapping[str, jax.Array], key: jax.Array) -> dict[str, jax.Array]:
        """Adds what is random: the masked positions, the masked row, the sampling's uniforms."""
        choose, place, draw = jax.random.split(key, 3)
        tokens_BL = batch["tokens"]
        masked = masking.choose_positions(
            choose, tokens_BL, batch["documents"], self.config.mask_rate, self.special
        )
        return {
            **batch,
            "masked_tokens": masking.mask_tokens(place, tokens_BL, masked, self.special),
            "positions": masked.positions_BN,
            "weights": masked.weights_BN,
            "uniform": jax.random.uniform(draw, masked.positions_BN.shape),
        }

    def weights(self, step: jax.Array | int) -> dict[str, float]:
        del step
        return {
            "generator": self.config.generator_weight,
            "discriminator": self.config.discriminator_weight,
        }

    def counts(self, prepared: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        return {
            "generator": prepared["weights"].sum(),
            "discriminator": (prepared["documents"] > 0).sum().astype(jnp.float32),
        }

    def forward(
        self,
        params: dict,
        prepared: Mapping[str, jax.Array],
        key: jax.Array | None = None,
        train: bool = False,
    ) -> dict[str, jax.Array]:
        """Both networks' outputs: generator logits, samples, corrupted row, its logits."""
        variables = {"params": params}
        documents_BL, types_BL = prepared["documents"], prepared["types"]
        masked = masking.Masked(prepared["positions"], prepared["weights"])
        # Without dropout there is nothing to draw, and no key to give.
        rngs: list = [None, None]
        if train and key is not None:
            rngs = [{"dropout": k} for k in jax.random.split(key)]
        generator_logits_BNV: Any = self.electra.apply(
            variables,
            prepared["masked_tokens"],
            documents_BL,
            types_BL,
            masked.positions_BN,
            train,
            method="generate",
            rngs=rngs[0],
        )
        targets_BN = masking.take(prepared["tokens"], masked)
        samples_BN = replacement.sample(
            generator_logits_BNV,
            prepared["uniform"],
            temperature=self.config.temperature,
            forbidden_BN=targets_BN if self.config.disallow_correct else None,
        )
        corrupted_BL, replaced_BL = replacement.replace(prepared["tokens"], masked, samples_BN)
        discriminator_logits_BL: Any = self.electra.apply(
            variables,
            corrupted_BL,
            documents_BL,
            types_BL,
            train,
            method="discriminate",
            rngs=rngs[1],
        )
        return {
            "generator_logits": generator_logits_BNV,
            "targets": targets_BN,
            "samples": samples_BN,
            "corrupted": corrupted_BL,
            "replaced": replaced_BL,
            "discriminator_logits": discriminator_logits_BL,
        }

    def losses(
        self,
        params: dict,
        prepared: Mapping[str, jax.Array],
        key: jax.Array | None,
        step: jax.Array,
        train: bool,
    ) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        del step
        out = self.forward(params, prepared, key, train)
        weights_BN = prepared["weights"]
        real_BL = prepared["documents"] > 0

        logits_BNV, targets_BN = out["generator_logits"], out["targets"]
        target_logits_BN = jnp.take_along_axis(logits_BNV, targets_BN[..., None], axis=-1)[..., 0]
        generator_BN = jax.nn.logsumexp(logits_BNV, axis=-1) - target_logits_BN

        logits_BL, replaced_BL = out["discriminator_logits"], out["replaced"]
        sign_BL = jnp.where(replaced_BL, -1.0, 1.0)
        discriminator_BL = jax.nn.softplus(sign_BL * logits_BL)

        losses = {
            "generator": jnp.sum(generator_BN * weights_BN),
            "discriminator": jnp.sum(discriminator_BL * real_BL),
        }
        guessed_BN = jnp.argmax(logits_BNV, axis=-1) == targets_BN
        metrics = {
            "generator_loss": losses["generator"],
            "discriminator_loss": losses["discriminator"],
            "masked": jnp.sum(weights_BN),
            "guessed": jnp.sum(guessed_BN * weights_BN),
            "sampled": jnp.sum((out["samples"] == targets_BN) * weights_BN),
            "targets": jnp.zeros(logits_BNV.shape[-1]).at[targets_BN].add(weights_BN),
            "logit_bins": logit_histogram(logits_BL, replaced_BL, real_BL),
        }
        return losses, jax.lax.stop_gradient(metrics)

    def summarise(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Metrics from metric sums, each beside its trivial baseline.

        `generator_accuracy_baseline` always says the most frequent of the masked
        tokens, `discriminator_accuracy_baseline` always says "original".
        """
        masked = max(float(sums["masked"]), 1.0)
        bins = np.asarray(sums["logit_bins"], np.float64)
        original, replaced = bins
        real = max(bins.sum(), 1.0)
        positive = bins[:, AUC_BINS // 2 :].sum(axis=1)  # said to be replaced
        generator_loss = float(sums["generator_loss"]) / masked
        discriminator_loss = float(sums["discriminator_loss"]) / real
        weights = self.weights(0)
        return {
            "loss": weights["generator"] * generator_loss
            + weights["discriminator"] * discriminator_loss,
            "generator_loss": generator_loss,
            "generator_accuracy": float(sums["guessed"]) / masked,
            "generator_accuracy_baseline": float(np.max(sums["targets"])) / masked,
            "generator_sampled_accuracy": float(sums["sampled"]) / masked,
            "replaced_share": replaced.sum() / masked,
            "discriminator_loss": discriminator_loss,
            "discriminator_accuracy": (original.sum() - positive[0] + positive[1]) / real,
            "discriminator_accuracy_baseline": original.sum() / real,
            "discriminator_precision": positive[1] / max(positive.sum(), 1.0),
            "discriminator_recall": positive[1] / max(replaced.sum(), 1.0),
            "discriminator_auc": binned_auc(original, replaced),
        }


def logit_histogram(logits_BL: jax.Array, labels_BL: jax.Array, real_BL: jax.Array) -> jax.Array:
    """Counts of real tokens by label and logit, float32 [2, AUC_BINS]; zero is a bin's edge."""
    scaled_BL = (logits_BL / AUC_RANGE + 1.0) * (AUC_BINS // 2)
    bins_BL = jnp.clip(jnp.floor(scaled_BL), 0, AUC_BINS - 1).astype(jnp.int32)
    bins_BL += AUC_BINS * labels_BL
    return jnp.zeros(2 * AUC_BINS).at[bins_BL].add(real_BL).reshape(2, AUC_BINS)


def binned_auc(negative: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve from counts by rising score; ties in a bin count half.

    NaN where one of the two classes is empty.
    """
    pairs = negative.sum() * positive.sum()
    below = np.cumsum(negative) - negative / 2
    return float((positive * below).sum() / pairs) if pairs else float("nan")
