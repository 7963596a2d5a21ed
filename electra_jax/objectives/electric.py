"""Electric: an energy-based cloze model (Clark, Luong, Le and Manning, EMNLP 2020).

The main network gives every token an energy E. Noise-contrastive estimation tells data
from noise: a token at a chosen position is a sample of the noise q, the others are data,

    logit of "noise" = E + log q(token | its context) + log(p / (1 - p)),

p the share of chosen positions, with no gradient through q: the distribution that is
sampled from, at the sampling's temperature. The noise is a two-tower cloze model, learnt
alongside: one tower reads what is to the left, one what is to the right. Where the
official code and the paper's text leave a choice, the code is followed.
"""

import dataclasses
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from electra_jax.models.vocabulary import read
from electra_jax.objectives import masking, metrics, replacement
from electra_jax.objectives.corruption import Corruption, split_keys
from electra_jax.objectives.objective import Prepared


@dataclasses.dataclass(frozen=True)
class Electric(Corruption):
    """Energies of tokens, learnt against the noise of a two-tower cloze model."""

    name = "electric"
    head = "detector"
    generators = ("two_tower", "unigram", "uniform")  # a transformer would see what it predicts
    generates_everywhere = True
    schedules_mask_rate = False  # the share of the noise is part of the model

    def mask(self, key: jax.Array, tokens_BL: jax.Array, masked: masking.Masked) -> jax.Array:
        # Neither tower sees the token that it predicts: nothing needs to be masked.
        del key, masked
        return tokens_BL

    def counts(self, prepared: Prepared) -> metrics.Sums:
        real = (prepared["documents"] > 0).sum().astype(jnp.float32)
        return {"generator": real, "discriminator": real}

    def losses(
        self,
        params: dict,
        prepared: Prepared,
        key: jax.Array | None,
        step: jax.Array,
        train: bool,
    ) -> tuple[metrics.Sums, metrics.Sums]:
        noise_key, main_key = split_keys(key if train else None)
        tokens_BL, real_BL = prepared["tokens"], prepared["documents"] > 0
        masked = prepared["masked"]
        every_BL = jnp.broadcast_to(jnp.arange(tokens_BL.shape[1]), tokens_BL.shape)
        noise = self.apply(
            "generate", params, tokens_BL, prepared, every_BL, key=noise_key, train=train
        )
        temperature = self.temperature(step)
        samples_BN = read(noise.take(masked.positions_BN), prepared["uniform"], temperature).sample
        noised_BL, _ = replacement.replace(tokens_BL, masked, samples_BN)
        energy_BL = self.apply(
            "discriminate", params, noised_BL, prepared, key=main_key, train=train
        )
        reading, sampled_from = read(noise), noise.cooled(temperature)
        normalizer_BL = (reading if sampled_from is noise else read(sampled_from)).normalizer
        log_noise_BL = jax.lax.stop_gradient(sampled_from.at(noised_BL) - normalizer_BL)
        rate = self.config.mask_rate
        logits_BL = energy_BL + log_noise_BL + math.log(rate / (1.0 - rate))
        is_noise_BL = masking.chosen(masked, tokens_BL.shape[1])
        losses_BL = jax.nn.softplus(jnp.where(is_noise_BL, -logits_BL, logits_BL))

        noise_losses_BL = reading.normalizer - noise.at(tokens_BL)
        sums = metrics.language_model_sums(
            "generator", noise_losses_BL, reading.guess, tokens_BL,
            real_BL.astype(jnp.float32), self.electra.model.vocab_size,
        )  # fmt: skip
        sums |= metrics.detector_sums(losses_BL, logits_BL, is_noise_BL, real_BL)
        losses = {
            "generator": jnp.sum(noise_losses_BL * real_BL),
            "discriminator": sums["discriminator_loss"],
        }
        return losses, jax.lax.stop_gradient(sums)

    def score_tokens(self, params: dict, batch: Mapping[str, jax.Array]) -> jax.Array:
        """Minus the energy of each token, in a single pass.

        A text's sum is its pseudo-log-likelihood, up to a constant of its length (the paper's
        section 2.5).
        """
        return -self.apply("discriminate", params, batch["tokens"], batch, key=None, train=False)

    def summarise(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        generator = metrics.language_model_metrics("generator", sums)
        return self.total({**generator, **metrics.detector_metrics(sums)})
