"""Which mesh, microbatch and rematerialisation suit a slice.

The global batch stays what the config says, for it decides what is learnt; how it is cut
over chips and microbatches decides only the speed. A formula ranks all candidates, and the
compiler has the last word on the best.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax

from electra_jax.config import PretrainConfig
from electra_jax.errors import UsageError
from electra_jax.parallel.hardware import Chip, find_chip
from electra_jax.parallel.mesh import MeshConfig
from electra_jax.planning.estimate import estimate_step, saved_bytes_per_token
from electra_jax.planning.plan import ModelCost, Placement, plan_placement

MOST_COMPILED = 8  # each takes minutes on a small machine
PARAMETER, GRADIENT = 2, 4  # bytes that are sent of a parameter, and of its gradient

Fields = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A config placed in one way, and what the formula says of it."""

    config: PretrainConfig
    seconds: float
    bytes: float  # needed on a chip, a low guess

    @property
    def fields(self) -> Fields:
        """The fields to set for it."""
        mesh, model = self.config.mesh, self.config.model
        return {
            "mesh.data": mesh.data,
            "mesh.fsdp": mesh.fsdp,
            "mesh.tensor": mesh.tensor,
            "train.accumulate": self.config.train.accumulate,
            "model.remat": str(model.remat).lower(),
            "model.scan": str(model.scan).lower(),
        }


def search(
    config: PretrainConfig,
    model: ModelCost,
    topology: str,
    devices: list[jax.Device],
    progress: Callable[[str], None],
    compiled: int = MOST_COMPILED,
) -> list[tuple[Placement, Fields]]:
    """Placements of a config on a slice, those that fit first, the quickest first.

    Args:
      config: whose mesh, accumulation and rematerialisation are free.
      model: its plan.
      topology, devices: the slice.
      progress: told what is being compiled.
      compiled: candidates that are.

    Returns:
      (placement, fields to set) pairs.

    Raises:
      UsageError: nothing divides, or nothing can fit.
    """
    chip = find_chip(devices[0].device_kind)
    if chip is None:
        raise UsageError(f"nothing is known of {devices[0].device_kind}")
    # Scanned layers compile in half the time or less, which allows for twice the candidates.
    scanned = dataclasses.replace(config.model, scan=True)
    config = dataclasses.replace(config, model=scanned)
    waiting = list(candidates(config, model, chip, len(devices)))
    if not waiting:
        raise UsageError(
            f"no way to cut train.batch_size={config.train.batch_size} fits {topology}: take more "
            "chips or another batch"
        )
    found: list[tuple[Placement, Fields]] = []
    while waiting and len(found) < compiled:
        candidate = min(waiting, key=lambda c: c.seconds)
        waiting.remove(candidate)
        flags = " ".join(f"{name}={value}" for name, value in candidate.fields.items())
        progress(f"compiling {len(found) + 1} of at most {compiled}: {flags}")
        placement = plan_placement(candidate.config, topology, devices)
        found.append((placement, candidate.fields))
        if not placement.fits:
            waiting += smaller(candidate, model, chip)
    return sorted(
        found, key=lambda pair: pair[0].estimate.seconds() if pair[0].estimate else math.inf
    )


def smaller(candidate: Candidate, model: ModelCost, chip: Chip) -> list[Candidate]:
    """The candidate with microbatches of half as many rows, where they can be halved."""
    config = candidate.config
    rows = config.train.batch_size // (config.mesh.data * config.mesh.fsdp)
    accumulate = 2 * config.train.accumulate
    if rows % accumulate:
        return []
    train = dataclasses.replace(config.train, accumulate=accumulate)
    return [assess(dataclasses.replace(config, train=train), model, chip)]


def candidates(
    config: PretrainConfig, model: ModelCost, chip: Chip, chips: int
) -> Iterator[Candidate]:
    """Yields the largest microbatch that may fit, by mesh, with and without rematerialisation."""
    rows = config.train.batch_size
    for fsdp, tensor in itertools.product(divisors(chips), divisors(config.model.heads)):
        if chips % (fsdp * tensor):
            continue
        data = chips // (fsdp * tensor)
        shares = data * fsdp
        for remat in (False, True):
            for accumulate in powers_of_two():
                if rows % (shares * accumulate):
                    break
                placed = dataclasses.replace(
                    config,
                    mesh=MeshConfig(data, fsdp, tensor),
                    model=dataclasses.replace(config.model, remat=remat),
                    train=dataclasses.replace(config.train, accumulate=accumulate),
                )
                candidate = assess(placed, model, chip)
                if candidate.bytes <= chip.hbm_bytes:
                    yield candidate
                    break


def assess(config: PretrainConfig, model: ModelCost, chip: Chip) -> Candidate:
    """A placed config with the memory and time that the formulas give."""
    mesh = dataclasses.asdict(config.mesh)
    shards = mesh["fsdp"] * mesh["tensor"]
    state = sum(model.state_bytes.values()) / shards
    parameters = model.total_parameters
    tokens = model.tokens_per_step / (mesh["data"] * mesh["fsdp"])
    saved = saved_bytes_per_token(config, mesh["tensor"]) * tokens / config.train.accumulate
    gradients = GRADIENT * parameters / shards
    estimate = estimate_step(
        config, chip, mesh, parameters, state, wire_bytes(config, parameters, tokens)
    )
    return Candidate(config, estimate.seconds(), state + gradients + saved)


def wire_bytes(config: PretrainConfig, parameters: int, tokens: float) -> float:
    """Bytes a chip sends in a step, about.

    Gradients are reduced over `data` in each microbatch; under `fsdp` parameters are gathered
    for its forward and its backward pass, and gradients scattered; under
    `tensor` each layer reduces its activations twice forward and twice backward.
    """
    mesh, accumulate = config.mesh, config.train.accumulate
    part = parameters / mesh.tensor
    sent = accumulate * 2 * GRADIENT * part / mesh.fsdp * (mesh.data - 1) / mesh.data
    if mesh.fsdp > 1:
        passes = 3 if config.model.remat else 2
        sent += accumulate * (passes * PARAMETER + GRADIENT) * part * (mesh.fsdp - 1) / mesh.fsdp
    if mesh.tensor > 1:
        reduced = 4 * config.model.layers * config.model.hidden * PARAMETER * tokens
        sent += 2 * reduced * (mesh.tensor - 1) / mesh.tensor
    return sent


def divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]


def powers_of_two() -> Iterator[int]:
    return (2**n for n in itertools.count())
