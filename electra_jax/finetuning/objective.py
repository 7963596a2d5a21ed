"""A task as the training step knows it: its objective, its first state, its evaluation."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from electra_jax.config import FinetuneConfig
from electra_jax.data.examples import Batches
from electra_jax.inference.encoder import run_examples
from electra_jax.inference.finetuned import init_head, scatter
from electra_jax.models.encoder import ModelConfig
from electra_jax.models.heads import EncoderWithHead
from electra_jax.parallel.mesh import with_mesh
from electra_jax.tasks.task import Task
from electra_jax.training.optimizer import OptimizerConfig
from electra_jax.training.state import TrainState


@dataclasses.dataclass(frozen=True)
class TaskObjective:
    """A task as the training step knows it (see `training.step.SupportsStep`)."""

    task: Task
    network: EncoderWithHead
    weight: float  # of the mean loss

    def prepare(self, batch: Mapping[str, jax.Array], key: jax.Array) -> dict[str, jax.Array]:
        return dict(batch)

    def counts(self, prepared: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        return {"task": self.task.count(prepared)}

    def losses(
        self,
        params: Any,
        prepared: Mapping[str, jax.Array],
        key: jax.Array | None,
        step: jax.Array,
        train: bool,
    ) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        rngs: Any = {"dropout": key} if train else None
        outputs = self.network.apply({"params": params}, prepared, train, rngs=rngs)
        loss = self.task.loss(outputs, prepared)
        return {"task": loss}, {"loss": loss, "count": self.task.count(prepared)}

    def weights(self, step: jax.Array) -> dict[str, Any]:
        return {"task": self.weight}

    def summarise(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        return {"loss": float(sums["loss"]) / max(float(sums["count"]), 1.0)}


def run_optimizer(config: FinetuneConfig, model: ModelConfig, steps: int) -> OptimizerConfig:
    """The optimizer of a run of so many steps, with its warm-up and its learning rate."""
    return dataclasses.replace(
        config.optimizer,
        warmup_steps=max(1, round(config.train.warmup_share * steps)),
        learning_rate=config.learning_rate(model),
    )


def layer_scale(decay: float, layers: int) -> Callable[[str], float]:
    """By path, the share of the learning rate: the head's 1, less the deeper a layer lies.

    As in the official code, whose top layer has the exponent 2 and whose embeddings n + 2.
    """

    def scale(path: str) -> float:
        parts = path.split("/")
        if "head" in parts:
            return 1.0
        for part in parts:
            if part.startswith("layer_"):
                return decay ** (layers + 1 - int(part.removeprefix("layer_")))
        return decay**2 if "final_norm" in parts else decay ** (layers + 2)

    return scale


def create_state(
    network: EncoderWithHead,
    task: Task,
    optimizer: optax.GradientTransformation,
    skips: bool,
    key: jax.Array,
) -> TrainState:
    """A fresh state; to be jitted or evaluated for its shapes."""
    zero = jnp.zeros(())
    return TrainState.create(
        init_head(network, task, key), optimizer, {"loss": zero, "count": zero}, skips
    )


def make_judge(
    objective: TaskObjective, batches: Batches, mesh: Mesh
) -> Callable[[Any], tuple[list[Any], float]]:
    """A function from parameters to the outputs for each held-out example and the mean loss."""

    def outputs_and_loss(
        params: Any, batch: Mapping[str, jax.Array]
    ) -> tuple[Any, jax.Array, jax.Array]:
        outputs = objective.network.apply({"params": params}, batch)
        return outputs, objective.task.loss(outputs, batch), objective.task.count(batch)

    step = jax.jit(with_mesh(mesh, outputs_and_loss))

    def judge(params: Any) -> tuple[list, float]:
        outputs: list[Any] = [None] * batches.size
        total = count = 0.0
        for (output, loss, terms), indices in run_examples(step, params, batches, mesh):
            scatter(output, indices, outputs)
            total, count = total + float(loss), count + float(terms)
        return outputs, total / max(count, 1.0)

    return judge
