"""The program of a pretraining config: objective, placed state, compiled steps.

It needs no text and no accelerator, so a plan can be made of it before there is either.
"""

import functools
import re

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from electra_jax.config import PretrainConfig, build_objective
from electra_jax.data.tokenizer import Tokenizer
from electra_jax.models.electra import generator_model, init_params
from electra_jax.models.flops import train_flops_per_token
from electra_jax.objectives import find_objective
from electra_jax.objectives.masking import max_masked
from electra_jax.objectives.objective import Objective
from electra_jax.parallel.mesh import batch_sharding
from electra_jax.placement import check_heads, pretraining_rules
from electra_jax.training.optimizer import make_optimizer
from electra_jax.training.program import Program, build_program
from electra_jax.training.state import TrainState
from electra_jax.training.step import make_eval_step


def pretraining_program(
    config: PretrainConfig,
    mesh: Mesh,
    tokenizer: Tokenizer | None,
    unigram_entropy: float | None = None,
) -> Program:
    """The program of a config, whose vocabulary size is resolved, on a mesh.

    Args:
      config: of the run.
      mesh: of devices, or of descriptions of devices that are not here.
      tokenizer: of the run; None for a program that no text will meet.
      unigram_entropy: of the text, in nats, if it is known.

    Raises:
      UsageError: the model does not fit the mesh.
    """
    check_heads(config.model, mesh)
    objective = build_objective(config, tokenizer, unigram_entropy)
    optimizer = make_optimizer(config.optimizer)
    create = functools.partial(create_state, config, objective, optimizer)
    rules = pretraining_rules(generator_model(config.model, config.generator).heads, mesh)
    return build_program(
        objective, optimizer, create, rules, mesh, config.train.accumulate, config.optimizer.frozen,
        bool(config.train.skip_non_finite), config.train.average,
    )  # fmt: skip


def batch_shapes(config: PretrainConfig, mesh: Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    """The global batch's shapes with their shardings."""
    shape = (config.train.batch_size, config.data.length)
    rows = jax.ShapeDtypeStruct(shape, jnp.int32, sharding=batch_sharding(mesh))
    return dict.fromkeys(("tokens", "documents", "types"), rows)


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
    skips, averages = bool(config.train.skip_non_finite), bool(config.train.average)
    return TrainState.create(params, optimizer, sums, skips, averages)


def flops_per_token(config: PretrainConfig) -> dict[str, float]:
    """Training operations per token of a run, by part."""
    flops = train_flops_per_token(
        config.model,
        config.generator,
        config.data.length,
        max_masked(config.objective.largest_mask_rate, config.data.length),
        config.electra.head,
        find_objective(config.objective.name).generates_everywhere,
    )
    if config.optimizer.frozen and re.search(config.optimizer.frozen, "generator/"):
        # Nothing uses its gradient, and the compiler leaves its backward pass out.
        flops |= {part: flops[part] / 3 for part in flops.keys() & {"generator", "masked_lm_head"}}
    return flops
