"""What a pretraining config becomes: an objective, a placed state, a compiled step.

It needs no text and no accelerator, so a plan can be made of it before there is either.
"""

import functools
import logging
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, PartitionSpec

from electra_jax.config import PretrainConfig
from electra_jax.data.tokenizer import Tokenizer
from electra_jax.errors import UsageError
from electra_jax.models.electra import generator_model, init_params
from electra_jax.models.encoder import ModelConfig
from electra_jax.models.flops import train_flops_per_token
from electra_jax.objectives import objectives
from electra_jax.objectives.masking import SpecialTokens, max_masked
from electra_jax.parallel.mesh import batch_sharding, replicated, under
from electra_jax.parallel.partition import Rules, place
from electra_jax.training.optimizer import make_optimizer
from electra_jax.training.state import TrainState
from electra_jax.training.step import Objective, make_eval_step, make_train_step

log = logging.getLogger(__name__)

# The last two dimensions of each array; the batch lies over `data` and `fsdp`.
PARTITION: Rules = (
    (r"embeddings/word$", PartitionSpec("tensor", "fsdp")),
    (r"embedding_delta$", PartitionSpec("tensor", "fsdp")),
    (r"embeddings/(position|type)$", PartitionSpec(None, "fsdp")),
    (r"(query|key|value|wide)/kernel$", PartitionSpec("fsdp", "tensor")),
    (r"(output|narrow)/kernel$", PartitionSpec("tensor", "fsdp")),
    (r"(embeddings_project|dense)/kernel$", PartitionSpec("fsdp", None)),
    (r"(classifier|copy)/kernel$", PartitionSpec()),
    (r"/(bias|scale)$", PartitionSpec()),  # stacked over layers they have two dimensions
    (r"^metric_sums/", PartitionSpec()),
)
# Of a generator whose heads do not divide over `tensor`: Small's has a single one.
WHOLE_HEADS: Rules = (
    (r"(^|/)generator/.*(query|key|value)/kernel$", PartitionSpec("fsdp", None)),
    (r"(^|/)generator/.*output/kernel$", PartitionSpec(None, "fsdp")),
)
BERT_TOKENS = SpecialTokens(pad=0, cls=101, sep=102, mask=103)


class Program(NamedTuple):
    """What runs, and where its arrays live.

    Attributes:
      objective, optimizer: of the config.
      create: key → a fresh state, placed.
      state: the state's shapes with their shardings.
      batch: the global batch's shapes with their shardings.
      train_step: (state, batch, run key, progress) → state; donates its state.
      eval_step: (parameters, batch, key) → metric sums, whole on every device.
    """

    objective: Objective
    optimizer: optax.GradientTransformationExtraArgs
    create: Callable[[jax.Array], TrainState]
    state: TrainState
    batch: dict[str, jax.ShapeDtypeStruct]
    train_step: Any
    eval_step: Any


def build_program(config: PretrainConfig, mesh: Mesh, tokenizer: Tokenizer | None) -> Program:
    """The program of a config, whose vocabulary size is resolved, on a mesh.

    Args:
      config: of the run.
      mesh: of devices, or of descriptions of devices that are not here.
      tokenizer: of the run; None for a program that no text will meet.

    Raises:
      UsageError: the model does not fit the mesh.
    """
    check_heads(config.model, mesh)
    objective = build_objective(config, tokenizer)
    optimizer = make_optimizer(config.optimizer)
    create = functools.partial(create_state, config, objective, optimizer)
    state = abstract_state(create, partition_rules(config, mesh), mesh)
    shardings = jax.tree.map(lambda x: x.sharding, state)
    shape = (config.train.batch_size, config.data.length)
    rows = jax.ShapeDtypeStruct(shape, jnp.int32, sharding=batch_sharding(mesh))
    return Program(
        objective,
        optimizer,
        jax.jit(create, out_shardings=shardings),
        state,
        dict.fromkeys(("tokens", "documents", "types"), rows),
        jax.jit(
            under(mesh, make_train_step(objective, optimizer, config.train.accumulate)),
            donate_argnums=0,
            out_shardings=shardings,
        ),
        jax.jit(under(mesh, make_eval_step(objective)), out_shardings=replicated(mesh)),
    )


def build_objective(config: PretrainConfig, tokenizer: Tokenizer | None) -> Any:
    """The objective over its model."""
    special, continuation = BERT_TOKENS, np.zeros(config.model.vocab_size, bool)
    if tokenizer is not None:
        special = SpecialTokens(
            tokenizer.pad_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id
        )
        continuation = tokenizer.continuation()
    kind = objectives()[config.objective.name]
    return kind(config.objective, config.electra, special, continuation)


def create_state(
    config: PretrainConfig,
    objective: Objective,
    optimizer: optax.GradientTransformationExtraArgs,
    key: jax.Array,
) -> TrainState:
    """A fresh state of a run; to be jitted or evaluated for its shapes."""
    shape = (config.train.batch_size, config.data.length)
    batch = {
        name: jax.ShapeDtypeStruct(shape, jnp.int32) for name in ("tokens", "documents", "types")
    }
    params = init_params(config.electra, key)
    sums = jax.eval_shape(make_eval_step(objective), params, batch, key)
    return TrainState.create(params, optimizer, sums)


def abstract_state(
    create: Callable[[jax.Array], TrainState], rules: Rules, mesh: Mesh
) -> TrainState:
    """The shapes of a state with their shardings; warns of paths that no rule matched."""
    shapes = jax.eval_shape(create, jax.random.key(0))
    shardings, unmatched = place(shapes, rules, mesh)
    for name in unmatched:
        log.warning("no partition rule matches %s: it is replicated", name)
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings
    )


def partition_rules(config: PretrainConfig, mesh: Mesh) -> Rules:
    """The placement of a run's state."""
    heads = generator_model(config.model, config.generator).heads
    return (*WHOLE_HEADS, *PARTITION) if heads % mesh.shape["tensor"] else PARTITION


def check_heads(model: ModelConfig, mesh: Mesh) -> None:
    """Refuses tensor parallelism that would cut attention heads; warns of a whole vocabulary.

    Raises:
      UsageError: with the sizes that work.
    """
    parts = mesh.shape["tensor"]
    if model.heads % parts:
        sizes = [n for n in range(1, model.heads + 1) if not model.heads % n]
        nearest = sorted(sizes, key=lambda n: abs(n - parts))[:2]
        raise UsageError(
            f"mesh.tensor={parts} does not divide the {model.heads} attention heads; the nearest "
            f"that works: {' or '.join(map(str, sorted(nearest)))}"
        )
    if model.vocab_size % parts:
        log.warning(
            "the vocabulary of %s does not divide over mesh.tensor=%d: embeddings lie whole on "
            "each; model.vocab_size=%d would divide",
            f"{model.vocab_size:,}", parts, model.vocab_size + -model.vocab_size % (128 * parts),
        )  # fmt: skip


def flops_per_token(config: PretrainConfig) -> dict[str, float]:
    """Training operations per token of a run, by part."""
    flops = train_flops_per_token(
        config.model,
        config.generator,
        config.data.length,
        max_masked(config.objective.mask_rate, config.data.length),
        config.electra.head,
        objectives()[config.objective.name].generates_everywhere,
    )
    if config.optimizer.frozen and re.search(config.optimizer.frozen, "generator/"):
        # Nothing uses its gradient, and the compiler leaves its backward pass out.
        flops |= {part: flops[part] / 3 for part in flops.keys() & {"generator", "masked_lm_head"}}
    return flops
