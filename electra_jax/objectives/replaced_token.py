"""Replaced-token detection: ELECTRA's objective (Clark et al., 2020, section 3.1).

    total = mean masked-LM loss over masked positions
          + 50 * mean binary loss over all real tokens

Both means are over the whole global batch. One pass of the generator serves both its
loss and the samples; no gradient flows from the discriminator into the generator but
through the embeddings they share.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from electra_jax.objectives import diagnosis, masking, metrics
from electra_jax.objectives.corruption import Corruption, split_keys
from electra_jax.objectives.objective import Prepared


@dataclasses.dataclass(frozen=True)
class ReplacedTokenDetection(Corruption):
    """ELECTRA: the main network tells replaced tokens from original ones."""

    name = "electra"
    head = "detector"

    def loss_mask(self, prepared: Prepared) -> jax.Array:
        """The tokens whose detection is learnt, bool [B, L]: all real ones."""
        return prepared["documents"] > 0

    def counts(self, prepared: Prepared) -> metrics.Sums:
        return {
            "generator": prepared["masked"].weights_BN.sum(),
            "discriminator": self.loss_mask(prepared).sum().astype(jnp.float32),
        }

    def forward(
        self,
        params: dict,
        prepared: Prepared,
        key: jax.Array | None = None,
        step: jax.Array | int = 0,
        train: bool = False,
    ) -> dict[str, jax.Array]:
        """What both networks say: of `corrupt`, and the corrupted row's logits."""
        generator_key, discriminator_key = split_keys(key if train else None)
        out = self.corrupt(params, prepared, generator_key, jnp.asarray(step), train)
        logits_BL = self.apply(
            "discriminate", params, out["corrupted"], prepared, key=discriminator_key, train=train
        )
        return {**out, "discriminator_logits": logits_BL}

    def losses(
        self,
        params: dict,
        prepared: Prepared,
        key: jax.Array | None,
        step: jax.Array,
        train: bool,
    ) -> tuple[metrics.Sums, metrics.Sums]:
        out = self.forward(params, prepared, key, step, train)
        generator_loss, sums = self.generator_losses(out, prepared)
        logits_BL, replaced_BL = out["discriminator_logits"], out["replaced"]
        losses_BL = jax.nn.softplus(jnp.where(replaced_BL, -logits_BL, logits_BL))
        loss_mask_BL = self.loss_mask(prepared)
        sums |= metrics.detector_sums(losses_BL, logits_BL, replaced_BL, loss_mask_BL)
        losses = {
            "generator": generator_loss,
            "discriminator": sums["discriminator_loss"],
        }
        return losses, jax.lax.stop_gradient(sums)

    def score_tokens(self, params: dict, batch: Mapping[str, jax.Array]) -> jax.Array:
        """The log-probability that each token is the original one, in a single pass."""
        logits_BL = self.apply(
            "discriminate", params, batch["tokens"], batch, key=None, train=False
        )
        return jax.nn.log_sigmoid(-logits_BL)

    def summarise(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        return self.total({**self.generator_metrics(sums), **metrics.detector_metrics(sums)})

    def diagnose(self, values: Mapping[str, float]) -> diagnosis.Findings:
        return super().diagnose(values) | diagnosis.detector(values)


@dataclasses.dataclass(frozen=True)
class MaskedTokenDetection(ReplacedTokenDetection):
    """ELECTRA 15 %: the detection is learnt at masked positions only (section 3.4)."""

    name = "electra_masked"

    def loss_mask(self, prepared: Prepared) -> jax.Array:
        return masking.chosen(prepared["masked"], prepared["tokens"].shape[1])
