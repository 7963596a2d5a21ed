"""What the metrics of a training run tell about its networks.

Bounds come from runs that were measured (docs/pretraining.md, "Warnings").
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

Metrics = Mapping[str, float]
Findings = dict[str, "Finding"]

# Sums of learning rates over which sound runs may show a finding, too.
PLATEAU = 3.0
ATTENTION = 1.0
START = 0.1
SINGLE_WORDS = 0.98  # of the unigram entropy; a bag of words is below
WORSE_THAN_CHANCE = 1.05  # of the loss of a network that knows nothing
DEAD_ATTENTION = 3e-6  # of a network's gradient norm: what is left to queries and keys
NO_RECALL = 0.02

MORE_WARM_UP = "try a lower optimizer.learning_rate or more optimizer.warmup_steps"


class Finding(NamedTuple):
    """A finding, as `electra_jax.training.health` takes it.

    Attributes:
      text: what is wrong and what to try, to stand behind "for 500 steps ".
      patience: sum of the steps' learning rates over which a sound run may show it, too.
    """

    text: str
    patience: float


def language_model(metrics: Metrics, prefix: str, network: str, vocab_size: int) -> Findings:
    """Findings of a language model that reads masked rows.

    Args:
      metrics: those of `objectives.metrics.language_model_metrics`, and the unigram entropy if it
        is known.
      prefix: of their names.
      network: what to call the network.
      vocab_size: V.
    """
    findings: Findings = {}
    if (name := f"{prefix}_masked_loss") not in metrics:
        return findings  # a line of an earlier version
    loss = metrics[name]
    entropy = metrics.get(f"{name}_baseline")
    if loss > WORSE_THAN_CHANCE * math.log(vocab_size):
        findings[f"{prefix}_diverged"] = Finding(
            f"the {network} has predicted worse than by chance (loss at masked tokens {loss:.3g}, "
            f"by chance {math.log(vocab_size):.3g}): it has diverged; {MORE_WARM_UP}",
            START,
        )
    elif entropy is not None and loss > SINGLE_WORDS * entropy:
        findings[f"{prefix}_single_words"] = Finding(
            f"the {network} has been at the level of single-word frequencies (loss at masked "
            f"tokens {loss:.3g}, the text's unigram entropy {entropy:.3g}): it uses no context; "
            f"{MORE_WARM_UP}, smaller batches or the modern architecture",
            PLATEAU,
        )
    return findings


def detector(metrics: Metrics) -> Findings:
    """Findings of a discriminator."""
    loss = metrics["discriminator_loss"]
    if loss > WORSE_THAN_CHANCE * math.log(2):
        return {
            "discriminator_diverged": Finding(
                f"the discriminator has told originals worse than by chance (loss {loss:.3g}, by "
                f"chance {math.log(2):.3g}): it has diverged; {MORE_WARM_UP}",
                START,
            )
        }
    auc, recall = metrics["discriminator_auc"], metrics["discriminator_recall"]
    if recall < NO_RECALL and not math.isnan(auc):  # something was replaced
        return {
            "discriminator_all_original": Finding(
                f"the discriminator has called everything original (recall {recall:.2g}, AUC "
                f"{auc:.3f}): try a smaller generator (generator.width, generator.depth), a higher "
                f"objective.temperature, a lower optimizer.learning_rate or more "
                f"optimizer.warmup_steps",
                PLATEAU,
            )
        }
    return {}


def attention(metrics: Metrics) -> Findings:
    """Findings of networks whose queries and keys get no gradient any more."""
    findings: Findings = {}
    for name, queries_and_keys in metrics.items():
        kind, _, network = name.partition("/")
        if kind != "query_key_gradient_norm":
            continue
        whole = metrics[f"gradient_norm/{network}"]
        # A frozen network has no gradient at all.
        if whole > 0 and queries_and_keys < DEAD_ATTENTION * whole:
            findings[f"{network}_attention_dead"] = Finding(
                f"the gradients of the {network}'s queries and keys have vanished (norm "
                f"{queries_and_keys:.1e}, of the whole network {whole:.1e}): its attention has "
                f"died and will not recover; {MORE_WARM_UP}",
                ATTENTION,
            )
    return findings
