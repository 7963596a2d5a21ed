"""Masked language models: BERT's, and two between it and ELECTRA (Clark et al., 2020, 3.4).

The main network, the one that is kept, is here the language model itself.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from electra_jax.models.vocabulary import read
from electra_jax.objectives import diagnosis, masking, metrics
from electra_jax.objectives.corruption import Corruption, split_keys
from electra_jax.objectives.objective import Prepared


@dataclasses.dataclass(frozen=True)
class TokenPrediction(Corruption):
    """The base of objectives whose main network predicts tokens."""

    head = "masked_lm"

    def predicted(self, prepared: Prepared) -> masking.Masked:
        """The positions that the main network predicts."""
        return prepared["masked"]

    def predict(
        self,
        params: dict,
        inputs_BL: jax.Array,
        prepared: Prepared,
        key: jax.Array | None,
        train: bool,
    ) -> tuple[metrics.Sums, metrics.Sums]:
        """The losses and metric sums of the main network on its input."""
        masked = self.predicted(prepared)
        output = self.apply(
            "predict", params, inputs_BL, prepared, masked.positions_BN, key=key, train=train
        )
        targets_BN, inputs_BN = (masking.take(x, masked) for x in (prepared["tokens"], inputs_BL))
        scores_BN, guesses_BN = self.read_output(output, inputs_BN, targets_BN)
        sums = metrics.language_model_sums(
            "discriminator", -scores_BN, guesses_BN, targets_BN, masked.weights_BN,
            self.electra.model.vocab_size, inputs_BN,
        )  # fmt: skip
        return {"discriminator": sums["discriminator_loss"]}, jax.lax.stop_gradient(sums)

    def read_output(
        self, output: Any, inputs_BN: jax.Array, targets_BN: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """From what the head puts out: each target's log-probability, and the likeliest token.

        Both are [B, N], float32 and int32.
        """
        del inputs_BN
        reading = read(output)
        return output.at(targets_BN) - reading.normalizer, reading.guess

    def hide(
        self, params: dict, batch: Mapping[str, jax.Array], masked: masking.Masked
    ) -> jax.Array:
        """Rows in which some tokens cannot be read, with [MASK] in their place."""
        del params
        return masking.put(
            batch["tokens"], masked, jnp.full_like(masked.positions_BN, self.special.mask)
        )

    def score_tokens(self, params: dict, batch: Mapping[str, jax.Array]) -> jax.Array:
        """The log-probability of each token, hidden alone: a pass for every position.

        A text's sum is its pseudo-log-likelihood as Salazar et al. (2020) define it. The other
        pieces of a word stay in sight, which favours words of many pieces (Kauf and Ivanova,
        2023, hide those to the right, too).
        """
        tokens_BL = batch["tokens"]
        rows = tokens_BL.shape[0]

        def score(position: jax.Array, scores_BL: jax.Array) -> jax.Array:
            # Sliced, so that every device works on its own rows.
            one_B1 = jnp.full((rows, 1), position)
            masked = masking.Masked(one_B1, jnp.ones((rows, 1)))
            inputs_BL = self.hide(params, batch, masked)
            output = self.apply("predict", params, inputs_BL, batch, one_B1, key=None, train=False)
            scores_B1, _ = self.read_output(
                output, masking.take(inputs_BL, masked), masking.take(tokens_BL, masked)
            )
            return jax.lax.dynamic_update_slice_in_dim(scores_BL, scores_B1, position, axis=1)

        # One after another: the memory is that of one pass. Padding is left out.
        longest = jnp.max(jnp.sum(batch["documents"] > 0, axis=1))
        return jax.lax.fori_loop(0, longest, score, jnp.zeros(tokens_BL.shape))


@dataclasses.dataclass(frozen=True)
class MaskedLM(TokenPrediction):
    """BERT's: of the chosen tokens 80 % become [MASK], 10 % any token, 10 % stay."""

    name = "mlm"
    generators: ClassVar[tuple[str, ...]] = ("none",)

    def mask(self, key: jax.Array, tokens_BL: jax.Array, masked: masking.Masked) -> jax.Array:
        choose, draw = jax.random.split(key)
        shape = masked.positions_BN.shape
        choice_BN = jax.random.uniform(choose, shape)
        random_BN = jax.random.randint(draw, shape, 0, self.electra.model.vocab_size)
        kept_BN = jnp.where(choice_BN < 0.9, random_BN, masking.take(tokens_BL, masked))
        return masking.put(
            tokens_BL, masked, jnp.where(choice_BN < 0.8, self.special.mask, kept_BN)
        )

    def counts(self, prepared: Prepared) -> metrics.Sums:
        return {"discriminator": prepared["masked"].weights_BN.sum()}

    def weights(self, step: jax.Array | int) -> dict[str, float]:
        del step
        return {"discriminator": 1.0}

    def losses(
        self,
        params: dict,
        prepared: Prepared,
        key: jax.Array | None,
        step: jax.Array,
        train: bool,
    ) -> tuple[metrics.Sums, metrics.Sums]:
        del step
        return self.predict(
            params, prepared["masked_tokens"], prepared, key if train else None, train
        )

    def summarise(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        return self.total(
            metrics.language_model_metrics("discriminator", sums, self.unigram_entropy)
        )

    def diagnose(self, values: Mapping[str, float]) -> diagnosis.Findings:
        vocab_size = self.electra.model.vocab_size
        return super().diagnose(values) | diagnosis.language_model(
            values, "discriminator", "language model", vocab_size
        )


@dataclasses.dataclass(frozen=True)
class ReplaceMLM(TokenPrediction):
    """Masked positions hold the generator's samples instead of [MASK]; they are predicted."""

    name = "replace_mlm"

    def hide(
        self, params: dict, batch: Mapping[str, jax.Array], masked: masking.Masked
    ) -> jax.Array:
        """Rows in which the generator's likeliest tokens stand in place of some.

        The main network has never seen [MASK].
        """
        logits = self.apply(
            "generate", params, super().hide(params, batch, masked), batch, masked.positions_BN,
            key=None, train=False,
        )  # fmt: skip
        return masking.put(batch["tokens"], masked, read(logits).guess)

    def counts(self, prepared: Prepared) -> metrics.Sums:
        masked = prepared["masked"].weights_BN.sum()
        return {"generator": masked, "discriminator": masked}

    def weights(self, step: jax.Array | int) -> dict[str, float]:
        del step
        return {"generator": self.config.generator_weight, "discriminator": 1.0}

    def losses(
        self,
        params: dict,
        prepared: Prepared,
        key: jax.Array | None,
        step: jax.Array,
        train: bool,
    ) -> tuple[metrics.Sums, metrics.Sums]:
        generator_key, main_key = split_keys(key if train else None)
        out = self.corrupt(params, prepared, generator_key, step, train)
        generator_loss, sums = self.generator_losses(out, prepared)
        losses, main_sums = self.predict(params, out["corrupted"], prepared, main_key, train)
        return (
            {"generator": generator_loss, **losses},
            jax.lax.stop_gradient({**sums, **main_sums}),
        )

    def summarise(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        main = metrics.language_model_metrics("discriminator", sums)
        return self.total({**self.generator_metrics(sums), **main})


@dataclasses.dataclass(frozen=True)
class AllTokensMLM(ReplaceMLM):
    """Replace MLM that predicts every token, with a copy mechanism.

    p(token) = copy * [token is the input] + (1 - copy) * softmax, copy a sigmoid of its own.
    """

    name = "all_tokens_mlm"
    head = "copying_lm"

    def counts(self, prepared: Prepared) -> metrics.Sums:
        real = (prepared["documents"] > 0).sum().astype(jnp.float32)
        return {"generator": prepared["masked"].weights_BN.sum(), "discriminator": real}

    def predicted(self, prepared: Prepared) -> masking.Masked:
        tokens_BL = prepared["tokens"]
        every_BL = jnp.broadcast_to(jnp.arange(tokens_BL.shape[1]), tokens_BL.shape)
        return masking.Masked(every_BL, (prepared["documents"] > 0).astype(jnp.float32))

    def read_output(
        self, output: Any, inputs_BN: jax.Array, targets_BN: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        logits, copy_BN = output
        reading = read(logits)
        generated_BN = jax.nn.log_sigmoid(-copy_BN) - reading.normalizer
        copied_BN = jax.nn.log_sigmoid(copy_BN)

        def score(tokens_BN: jax.Array) -> jax.Array:
            return jnp.logaddexp(
                generated_BN + logits.at(tokens_BN),
                jnp.where(tokens_BN == inputs_BN, copied_BN, -jnp.inf),
            )

        # The likeliest token is the input or the head's favourite.
        favourite_BN = generated_BN + logits.at(reading.guess)
        guesses_BN = jnp.where(score(inputs_BN) >= favourite_BN, inputs_BN, reading.guess)
        return score(targets_BN), guesses_BN
