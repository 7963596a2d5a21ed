"""Metric sums of language models and detectors, and the metrics they give.

Sums add over microbatches, steps and hosts. Every accuracy stands beside that of a
baseline: the most frequent token, or "original". A language model's counts only
where the network has to guess: some of the chosen tokens are left for it to read, and to
copy one is no feat.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

AUC_BINS = 512
AUC_RANGE = 12.0  # logits beyond are counted in the outer bins

Sums = dict[str, jax.Array]


def language_model_sums(
    prefix: str,
    losses_BN: jax.Array,
    guesses_BN: jax.Array,
    targets_BN: jax.Array,
    weights_BN: jax.Array,
    vocab_size: int,
    inputs_BN: jax.Array | None = None,
) -> Sums:
    """Sums that `language_model_metrics` needs; slots of weight 0 do not count.

    Args:
      prefix: of the sums' names.
      losses_BN, guesses_BN, targets_BN, weights_BN: of the predicted positions.
      vocab_size: V.
      inputs_BN: what the network reads there; None if it never reads what it predicts.
    """
    guessing_BN = weights_BN if inputs_BN is None else weights_BN * (inputs_BN != targets_BN)
    sums = {
        f"{prefix}_loss": jnp.sum(losses_BN * weights_BN),
        f"{prefix}_count": jnp.sum(weights_BN),
        f"{prefix}_guessing": jnp.sum(guessing_BN),
        f"{prefix}_guessed": jnp.sum((guesses_BN == targets_BN) * guessing_BN),
        f"{prefix}_targets": jnp.zeros(vocab_size).at[targets_BN].add(guessing_BN),
    }
    if inputs_BN is not None:
        sums[f"{prefix}_masked_loss"] = jnp.sum(losses_BN * guessing_BN)
    return sums


def language_model_metrics(
    prefix: str, sums: Mapping[str, np.ndarray], unigram_entropy: float | None = None
) -> dict[str, float]:
    """Mean loss, and accuracy beside always saying the most frequent of the targets.

    The loss is over all chosen positions, as in the official code, whose accuracy is, too. The
    masked loss is that of the positions where the network has to guess, beside the unigram entropy
    of the text if that is known: what who knows only frequencies of tokens would pay.
    """
    count = max(float(sums[f"{prefix}_count"]), 1.0)
    guessing = max(float(sums[f"{prefix}_guessing"]), 1.0)
    masked = {}
    if (name := f"{prefix}_masked_loss") in sums:
        masked[name] = float(sums[name]) / guessing
        if unigram_entropy is not None:
            masked[f"{name}_baseline"] = unigram_entropy
    return {
        f"{prefix}_loss": float(sums[f"{prefix}_loss"]) / count,
        **masked,
        f"{prefix}_accuracy": float(sums[f"{prefix}_guessed"]) / guessing,
        f"{prefix}_accuracy_baseline": float(np.max(sums[f"{prefix}_targets"])) / guessing,
    }


def detector_sums(
    losses_BL: jax.Array, logits_BL: jax.Array, labels_BL: jax.Array, loss_mask_BL: jax.Array
) -> Sums:
    """Sums over the counted tokens that `detector_metrics` needs."""
    return {
        "discriminator_loss": jnp.sum(losses_BL * loss_mask_BL),
        "logit_bins": logit_histogram(logits_BL, labels_BL, loss_mask_BL),
    }


def detector_metrics(sums: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Loss, and accuracy (beside always saying "original"), precision, recall, AUC."""
    original, replaced = bins = np.asarray(sums["logit_bins"], np.float64)
    counted = max(bins.sum(), 1.0)
    positive = bins[:, AUC_BINS // 2 :].sum(axis=1)  # said to be replaced
    return {
        "discriminator_loss": float(sums["discriminator_loss"]) / counted,
        "discriminator_accuracy": (original.sum() - positive[0] + positive[1]) / counted,
        "discriminator_accuracy_baseline": original.sum() / counted,
        "discriminator_precision": positive[1] / max(positive.sum(), 1.0),
        "discriminator_recall": positive[1] / max(replaced.sum(), 1.0),
        "discriminator_auc": binned_auc(original, replaced),
    }


def logit_histogram(
    logits_BL: jax.Array, labels_BL: jax.Array, loss_mask_BL: jax.Array
) -> jax.Array:
    """Counts of tokens by label and logit, float32 [2, AUC_BINS]; zero is a bin's edge."""
    scaled_BL = (logits_BL / AUC_RANGE + 1.0) * (AUC_BINS // 2)
    bins_BL = jnp.clip(jnp.floor(scaled_BL), 0, AUC_BINS - 1).astype(jnp.int32)
    bins_BL += AUC_BINS * labels_BL
    return jnp.zeros(2 * AUC_BINS).at[bins_BL].add(loss_mask_BL).reshape(2, AUC_BINS)


def binned_auc(negative: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve from counts by rising score; ties in a bin count half.

    NaN where one of the two classes is empty.
    """
    pairs = negative.sum() * positive.sum()
    below = np.cumsum(negative) - negative / 2
    return float((positive * below).sum() / pairs) if pairs else float("nan")
