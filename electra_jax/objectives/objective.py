"""The contract of an objective: what the training step, the config and a plan ask of it."""

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import numpy as np

from electra_jax.errors import UsageError
from electra_jax.models.electra import Electra
from electra_jax.objectives.config import ObjectiveConfig
from electra_jax.objectives.diagnosis import Findings
from electra_jax.objectives.masking import SpecialTokens
from electra_jax.objectives.metrics import Sums

Prepared = Mapping[str, Any]  # a batch with what is random about it; all arrays are [B, …]


@dataclasses.dataclass(frozen=True)
class Objective(abc.ABC):
    """A pretraining objective: sums and counts of losses, and metrics, as functions of a batch.

    A subclass that sets a `name` of its own is found by `objective.name` of a config (see
    `electra_jax.plugins`). Subclasses without one are bases of others.

    Attributes:
      name: in configs.
      head: the kind of main network that it trains (see `electra_jax.models.electra.Electra`).
      generators: the values of `generator.kind` that fit it.
      generates_everywhere: whether the generator predicts every position and not only the masked
        ones, which costs more.
      schedules_mask_rate: whether `prepare_at` follows `objective.final_mask_rate`.
      config: what is learnt.
      electra: the networks.
      special: ids that are never masked, and [MASK].
      continuation_V: which pieces continue a word; only `whole_word` needs it.
      unigram_entropy: of the text, in nats, as the baseline of masked losses; None if unknown.
    """

    name: ClassVar[str]
    head: ClassVar[str]
    generators: ClassVar[tuple[str, ...]]
    generates_everywhere: ClassVar[bool] = False
    schedules_mask_rate: ClassVar[bool] = False

    config: ObjectiveConfig
    electra: Electra
    special: SpecialTokens
    continuation_V: np.ndarray | None = dataclasses.field(default=None, compare=False)
    unigram_entropy: float | None = dataclasses.field(default=None, compare=False)

    @abc.abstractmethod
    def prepare(self, batch: Mapping[str, jax.Array], key: jax.Array) -> dict[str, Any]:
        """Draws what is random about the batch as a whole, such as positions and uniform numbers.

        It runs once for the global batch, thus neither the mesh nor gradient accumulation changes
        what is drawn.

        Args:
          batch: `tokens`, `documents` and `types`, int32 [B, L].
          key: of the step.

        Returns:
          The batch's arrays and those that were drawn; the first dimension of all leaves is B.
        """

    def prepare_at(
        self, batch: Mapping[str, jax.Array], key: jax.Array, progress: jax.Array
    ) -> dict[str, Any]:
        """Prepares the batch of a training step; by default as `prepare` does.

        Args:
          batch, key: see `prepare`.
          progress: the share of the run that is done, float32 scalar.
        """
        del progress
        return self.prepare(batch, key)

    @abc.abstractmethod
    def counts(self, prepared: Prepared) -> Sums:
        """Counts the terms of each loss in the global batch, float32 scalars by loss.

        They follow from the prepared batch alone, thus the gradient of every microbatch has the
        right scale at once.
        """

    @abc.abstractmethod
    def losses(
        self,
        params: dict,
        prepared: Prepared,
        key: jax.Array | None,
        step: jax.Array,
        train: bool,
    ) -> tuple[Sums, Sums]:
        """Sums the losses of a microbatch.

        Args:
          params: of the networks.
          prepared: some rows of what `prepare` returned.
          key: of dropout; None without it.
          step: int32 scalar; settings may depend on it.
          train: whether there is dropout.

        Returns:
          The sum of each loss, scalars by loss, and the metric sums by name, which add over
          microbatches, steps and hosts and have no gradient.
        """

    @abc.abstractmethod
    def weights(self, step: jax.Array | int) -> dict[str, float]:
        """The weight of each loss: the total is the sum of weight * loss sum / count."""

    def score_tokens(self, params: dict, batch: Mapping[str, jax.Array]) -> jax.Array:
        """Scores each token within its text: the higher, the likelier; float32 [B, L].

        Their sum over a text ranks it beside others, such as the other sentence of a minimal pair.
        An objective need not have scores.

        Args:
          params: of the networks.
          batch: `tokens`, `documents` and `types`, int32 [B, L], with one text in each row.

        Raises:
          UsageError: the objective does not define them.
        """
        raise UsageError(
            f"objective.name={self.name} does not score sentences: its class has no score_tokens"
        )

    @classmethod
    def scores(cls) -> bool:
        """Whether the objective defines `score_tokens`."""
        return cls.score_tokens is not Objective.score_tokens

    @abc.abstractmethod
    def summarise(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Names and values of the metrics from added-up metric sums; "loss" is the total."""

    def diagnose(self, values: Mapping[str, float]) -> Findings:
        """Finds what is wrong in the metrics of a line of the training log; by default nothing.

        A warning is made of what lasts (see `electra_jax.training.health`).

        Args:
          values: the metrics of `summarise`, and norms of gradients by network, such as
            "gradient_norm/generator".

        Returns:
          Findings by name.
        """
        del values
        return {}
