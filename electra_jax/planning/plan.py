"""The cost of a config, and whether it fits, before there is a chip to run it on."""

import dataclasses
import functools
import math
import re
from collections import defaultdict
from typing import Any

import jax
import ml_collections

from electra_jax.config import PretrainConfig, build_objective, pretrain_config
from electra_jax.errors import UsageError
from electra_jax.models.electra import count_params
from electra_jax.parallel.hardware import find_chip
from electra_jax.parallel.mesh import check_batch, make_mesh
from electra_jax.planning.collectives import Collective, read_collectives
from electra_jax.planning.estimate import Estimate, estimate_step
from electra_jax.planning.traffic import count_products, memory_traffic
from electra_jax.pretraining.program import (
    batch_shapes,
    create_state,
    flops_per_token,
    pretraining_program,
)
from electra_jax.training.optimizer import make_optimizer
from electra_jax.training.program import compile_step
from electra_jax.training.state import TrainState

VOCABULARY = 30522  # of the released models; what a config is planned with that names none
# Compiled so, each collective stands in the program by itself and can be counted, and
# compiling takes half the time. A real run overlaps them with arithmetic, and under fsdp
# scatters gradients where here it reduces them: what is sent is an upper bound.
PLAIN = {
    "optimization_level": 19,  # O1
    "xla_tpu_enable_async_collective_fusion": False,
    "xla_jf_spmd_threshold_for_windowed_einsum_mib": 1_000_000,
}
UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclasses.dataclass(frozen=True)
class ModelCost:
    """The cost of a config, wherever it runs. Bytes are those of the whole, once."""

    parameters: dict[str, int]  # by part
    flops_per_token: dict[str, float]  # training, by part
    state_bytes: dict[str, int]  # by kind
    tokens_per_step: int
    steps: int | None  # None where the clock ends the run
    budget_seconds: float | None

    @property
    def total_parameters(self) -> int:
        return sum(self.parameters.values())

    @property
    def total_flops_per_token(self) -> float:
        return sum(self.flops_per_token.values())


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on one chip, by kind, as the compiler laid them out."""

    state: dict[str, int]  # parameters, optimizer, other: of the arguments
    batch: int
    temporaries: int  # activations, gradients, gathered parameters
    outputs: int  # beyond those that take the place of a donated argument
    code: int
    needed: float
    limit: float


@dataclasses.dataclass(frozen=True)
class Placement:
    """A config's training step, compiled for a slice; what does not fit has no estimate."""

    topology: str
    chips: int
    device_kind: str
    mesh: dict[str, int]
    memory: Memory
    collectives: list[Collective]
    products: dict[str, int]  # matrix products a step, by dtype
    estimate: Estimate | None

    @property
    def fits(self) -> bool:
        return self.estimate is not None


def resolve_for_accelerators(fields: ml_collections.ConfigDict) -> PretrainConfig:
    """A config as it would run on accelerators, on text with the released vocabulary."""
    config = pretrain_config(fields)
    model = config.model
    dtype = "bfloat16" if model.dtype == "auto" else model.dtype
    vocab_size = model.vocab_size or VOCABULARY
    model = dataclasses.replace(model, dtype=dtype, vocab_size=vocab_size)
    return dataclasses.replace(config, model=model)


def plan_model(config: PretrainConfig) -> ModelCost:
    """Parameters, operations and bytes of a config."""
    objective, optimizer = build_objective(config, None), make_optimizer(config.optimizer)
    create = functools.partial(create_state, config, objective, optimizer)
    state = jax.eval_shape(create, jax.random.key(0))
    budget = config.train.budget_seconds
    return ModelCost(
        parameters={name: count_params(part) for name, part in state.params.items()},
        flops_per_token=flops_per_token(config),
        state_bytes=bytes_by_kind(state),
        tokens_per_step=config.train.batch_size * config.data.length,
        steps=config.train.steps if budget is None else None,
        budget_seconds=budget,
    )


def bytes_by_kind(state: TrainState) -> dict[str, int]:
    """Bytes of a state's arrays: on one device where they are placed, else in all."""

    def size(leaf: jax.ShapeDtypeStruct) -> int:
        shape = leaf.sharding.shard_shape(leaf.shape) if leaf.sharding else leaf.shape
        return math.prod(shape) * leaf.dtype.itemsize

    def total(tree: Any) -> int:
        return sum(map(size, jax.tree.leaves(tree)))

    return {
        "parameters": total(state.params),
        "optimizer": total(state.opt_state),
        "other": total((state.step, state.metric_sums)),
    }


def plan_placement(config: PretrainConfig, topology: str, devices: list[jax.Device]) -> Placement:
    """Compiles a config's training step for the devices of a slice, which need not be here.

    Raises:
      UsageError: the mesh, the batch or the heads do not go with the slice.
    """
    mesh = make_mesh(config.mesh, devices)
    check_batch(mesh, config.train.batch_size, config.train.accumulate)
    program, batch = pretraining_program(config, mesh, None), batch_shapes(config, mesh)
    state = bytes_by_kind(program.state)
    chip = find_chip(devices[0].device_kind)
    if chip is None:
        raise UsageError(f"nothing is known of {devices[0].device_kind}")
    sizes = dict(mesh.shape)
    try:
        tpu = devices[0].platform == "tpu"
        compiled = compile_step(program, batch, PLAIN if tpu else None)
    except jax.errors.JaxRuntimeError as error:
        needed, limit = exceeded(str(error), sum(state.values()) + batch_bytes(batch))
        memory = Memory(state, batch_bytes(batch), 0, 0, 0, needed, limit)
        return Placement(
            topology, len(devices), devices[0].device_kind, sizes, memory, [], {}, None
        )
    stats, hlo = compiled.memory_analysis(), compiled.as_text()
    assert stats is not None and hlo is not None
    outputs = stats.output_size_in_bytes - stats.alias_size_in_bytes
    code = stats.generated_code_size_in_bytes
    needed = stats.argument_size_in_bytes + stats.temp_size_in_bytes + outputs + code
    memory = Memory(
        state, batch_bytes(batch), stats.temp_size_in_bytes, outputs, code, needed, chip.hbm_bytes
    )
    collectives = read_collectives(hlo, len(devices))
    estimate = estimate_step(
        config,
        chip,
        sizes,
        count_params(program.state.params),
        sum(state.values()),
        sum(collective.wire_bytes for collective in collectives),
    )
    return Placement(
        topology,
        len(devices),
        devices[0].device_kind,
        sizes,
        memory,
        collectives,
        count_products(hlo),
        dataclasses.replace(estimate, hbm_bytes=memory_traffic(hlo)),
    )


def batch_bytes(batch: dict[str, jax.ShapeDtypeStruct]) -> int:
    """Bytes of a batch on one chip."""
    return sum(
        4 * rows.sharding.shard_shape(rows.shape)[0] * rows.shape[1] for rows in batch.values()
    )


def exceeded(message: str, arguments: int) -> tuple[float, float]:
    """Bytes needed and there, from the compiler's complaint that memory does not suffice.

    Args:
      message: its complaint; of temporaries alone, where they alone are too many.
      arguments: bytes of the state and the batch.

    Raises:
      RuntimeError: it complains of something else.
    """
    size = r"([\d.]+)([KMGT])"
    alone = re.search(rf"temporaries \({size}\) exceeds available HBM \({size}\)", message)
    match = alone or re.search(rf"Used {size} of {size} hbm", message)
    if match is None:
        raise RuntimeError(message)
    needed, limit = float(match[1]) * UNITS[match[2]], float(match[3]) * UNITS[match[4]]
    return needed + (arguments if alone else 0), limit


def tally(collectives: list[Collective]) -> list[dict[str, Any]]:
    """Collectives of one kind and group size as one row, the most bytes first."""
    rows: dict[tuple[str, int], list[Collective]] = defaultdict(list)
    for collective in collectives:
        rows[collective.kind, collective.group].append(collective)
    table = [
        {
            "kind": kind,
            "group": group,
            "count": sum(c.count for c in members),
            "bytes": sum(c.bytes * c.count for c in members),
            "wire_bytes": sum(c.wire_bytes for c in members),
        }
        for (kind, group), members in rows.items()
    ]
    return sorted(table, key=lambda row: -row["wire_bytes"])


def run_seconds(model: ModelCost, step_seconds: float) -> float:
    """Seconds that the whole run takes."""
    return model.budget_seconds or (model.steps or 0) * step_seconds
