"""The base of most objectives: masked positions, and a row that the generator corrupted."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from electra_jax.models.vocabulary import read
from electra_jax.objectives import diagnosis, masking, metrics, replacement
from electra_jax.objectives.objective import Objective, Prepared


@dataclasses.dataclass(frozen=True)
class Corruption(Objective):
    """The base of objectives that mask positions and fill them from the generator.

    A prepared batch holds the batch's arrays and `masked` (`masking.Masked`), `masked_tokens`
    (int32 [B, L], the generator's input) and `uniform` (float32 [B, N, 2], which the samples follow
    from).
    """

    generators: ClassVar[tuple[str, ...]] = ("transformer", "two_tower", "unigram", "uniform")
    schedules_mask_rate: ClassVar[bool] = True

    def prepare(self, batch: Mapping[str, jax.Array], key: jax.Array) -> dict[str, Any]:
        return self.prepare_with_rate(batch, key, self.config.mask_rate)

    def prepare_at(
        self, batch: Mapping[str, jax.Array], key: jax.Array, progress: jax.Array
    ) -> dict[str, Any]:
        start, final = self.config.mask_rate, self.config.final_mask_rate
        if not final:
            return self.prepare(batch, key)
        return self.prepare_with_rate(batch, key, start + (final - start) * progress)

    def prepare_with_rate(
        self, batch: Mapping[str, jax.Array], key: jax.Array, rate: jax.Array | float
    ) -> dict[str, Any]:
        """Prepares a batch of which this share of the tokens is masked."""
        choose, place, draw = jax.random.split(key, 3)
        tokens_BL = batch["tokens"]
        masked = masking.choose_positions(
            choose,
            tokens_BL,
            batch["documents"],
            rate,
            self.special,
            self.continuation_V if self.config.whole_word else None,
            masking.max_masked(self.config.largest_mask_rate, tokens_BL.shape[1]),
        )
        return {
            **batch,
            "masked": masked,
            "masked_tokens": self.mask(place, tokens_BL, masked),
            "uniform": jax.random.uniform(draw, (*masked.positions_BN.shape, 2)),
        }

    def mask(self, key: jax.Array, tokens_BL: jax.Array, masked: masking.Masked) -> jax.Array:
        """The generator's input."""
        return masking.mask_tokens(key, tokens_BL, masked, self.special)

    def apply(
        self,
        method: str,
        params: dict,
        tokens_BL: jax.Array,
        prepared: Prepared,
        *positions_BN: jax.Array,
        key: jax.Array | None,
        train: bool,
    ) -> Any:
        """A method of the networks on a row of tokens, which lies as the prepared one does."""
        return self.electra.apply(
            {"params": params},
            tokens_BL,
            prepared["documents"],
            prepared["types"],
            *positions_BN,
            train,
            method=method,
            rngs=None if key is None else {"dropout": key},
        )

    def temperature(self, step: jax.Array) -> jax.Array | float:
        """The temperature of sampling at a step: constant, or falling towards its final value."""
        start, final = self.config.temperature, self.config.final_temperature
        if not final:
            return start
        return final + (start - final) * jnp.exp(-step / self.config.temperature_steps)

    def corrupt(
        self,
        params: dict,
        prepared: Prepared,
        key: jax.Array | None,
        step: jax.Array,
        train: bool,
    ) -> dict[str, jax.Array]:
        """One pass of the generator: its losses and guesses, and the row with its samples."""
        masked = prepared["masked"]
        logits = self.apply(
            "generate", params, prepared["masked_tokens"], prepared, masked.positions_BN,
            key=key, train=train,
        )  # fmt: skip
        targets_BN = masking.take(prepared["tokens"], masked)
        reading = read(
            logits,
            prepared["uniform"],
            self.temperature(step),
            targets_BN if self.config.disallow_correct else None,
        )
        corrupted_BL, replaced_BL = replacement.replace(prepared["tokens"], masked, reading.sample)
        return {
            "generator_logits": logits,
            "generator_losses": reading.normalizer - logits.at(targets_BN),
            "guesses": reading.guess,
            "targets": targets_BN,
            "samples": reading.sample,
            "corrupted": corrupted_BL,
            "replaced": replaced_BL,
        }

    def generator_losses(
        self, out: Mapping[str, jax.Array], prepared: Prepared
    ) -> tuple[jax.Array, metrics.Sums]:
        """The generator's loss summed over masked positions, and its metric sums."""
        losses_BN, targets_BN = out["generator_losses"], out["targets"]
        masked = prepared["masked"]
        weights_BN = masked.weights_BN
        sums = metrics.language_model_sums(
            "generator",
            losses_BN,
            out["guesses"],
            targets_BN,
            weights_BN,
            self.electra.model.vocab_size,
            inputs_BN=masking.take(prepared["masked_tokens"], masked),
        )
        sums["sampled"] = jnp.sum((out["samples"] == targets_BN) * weights_BN)
        return jnp.sum(losses_BN * weights_BN), sums

    def generator_metrics(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """The generator's metrics, and the share of masked tokens that truly changed."""
        sampled = float(sums["sampled"]) / max(float(sums["generator_count"]), 1.0)
        return {
            **metrics.language_model_metrics("generator", sums, self.unigram_entropy),
            "generator_sampled_accuracy": sampled,
            "replaced_share": 1.0 - sampled,
        }

    def weights(self, step: jax.Array | int) -> dict[str, float]:
        del step
        return {
            "generator": self.config.generator_weight,
            "discriminator": self.config.discriminator_weight,
        }

    def total(self, values: Mapping[str, float]) -> dict[str, float]:
        """Metrics with the total loss before them."""
        weights = self.weights(0)
        loss = sum(weight * values[f"{name}_loss"] for name, weight in weights.items())
        return {"loss": loss, **values}

    def diagnose(self, values: Mapping[str, float]) -> diagnosis.Findings:
        findings = diagnosis.attention(values)
        # Generators of other kinds know nothing but frequencies, by design.
        if self.electra.generator_config.kind in ("transformer", "two_tower"):
            vocab_size = self.electra.model.vocab_size
            findings |= diagnosis.language_model(values, "generator", "generator", vocab_size)
        return findings


def split_keys(key: jax.Array | None) -> tuple[jax.Array | None, jax.Array | None]:
    """Dropout keys of the two networks; none without dropout."""
    if key is None:
        return None, None
    first, second = jax.random.split(key)
    return first, second
