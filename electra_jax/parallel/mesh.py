"""The device mesh; no other module makes one."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from electra_jax.errors import UsageError, check_fields, checked

AXES = ("data", "fsdp", "tensor")
BATCH = PartitionSpec(("data", "fsdp"))


def _size(x: int) -> str:
    return "" if x == -1 or x >= 1 else f" must be at least 1, or -1 for what is left, not {x}"


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices along each axis; at most one may be -1, which takes what is left."""

    data: int = checked(-1, _size)  # devices that share the rows of a batch; -1: all that are left
    fsdp: int = checked(1, _size)  # that share the rows and the parameters
    tensor: int = checked(1, _size)  # that share each matrix and the heads

    def __post_init__(self) -> None:
        check_fields("mesh", self)
        sizes = dataclasses.asdict(self)
        if list(sizes.values()).count(-1) > 1:
            asked = ", ".join(f"mesh.{axis}={size}" for axis, size in sizes.items())
            raise UsageError(f"{asked}: at most one may be -1")


def make_mesh(config: MeshConfig, devices: list | None = None) -> Mesh:
    """A mesh over all devices, or those given.

    Raises:
      UsageError: the axes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = [config.data, config.fsdp, config.tensor]
    fixed = math.prod(size for size in sizes if size != -1)
    asked = ", ".join(f"mesh.{axis}={size}" for axis, size in zip(AXES, sizes, strict=True))
    if -1 in sizes and len(devices) % fixed == 0:
        sizes[sizes.index(-1)] = len(devices) // fixed
    if math.prod(sizes) != len(devices):
        nearest = ", ".join(map("mesh.{}={}".format, AXES, nearest_sizes(sizes, len(devices))))
        raise UsageError(
            f"{asked} does not fit {len(devices)} devices: the sizes must multiply to "
            f"{len(devices)}, and mesh.data=-1 takes what the others leave; the nearest that "
            f"works: {nearest}"
        )
    slices = len({getattr(d, "slice_index", 0) for d in devices if d.platform == "tpu"})
    if slices > 1:
        if sizes[0] % slices:
            raise UsageError(
                f"mesh.data={sizes[0]} over {slices} slices: make it a multiple of them, as only "
                "gradients should cross from one to another"
            )
        inside = (sizes[0] // slices, *sizes[1:])
        grid = mesh_utils.create_hybrid_device_mesh(
            inside, (slices, 1, 1), devices, allow_split_physical_axes=True
        )
    else:
        grid = mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
    # Linen's Embed and Dense expect the compiler to place what they make.
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * 3)


def nearest_sizes(sizes: Sequence[int], devices: int) -> tuple[int, ...]:
    """The sizes that multiply to `devices` and differ by the smallest factors; -1 is free."""
    divisors = [n for n in range(1, devices + 1) if devices % n == 0]

    def distance(candidate: tuple[int, ...]) -> float:
        pairs = zip(candidate, sizes, strict=True)
        return sum(abs(math.log(there / asked)) for there, asked in pairs if asked != -1)

    fitting = [c for c in itertools.product(divisors, repeat=3) if math.prod(c) == devices]
    return min(fitting, key=distance)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows of a batch over the axes that hold different data."""
    return NamedSharding(mesh, BATCH)


def local_rows(mesh: Mesh, count: int) -> np.ndarray:
    """Which rows of a global batch this process's devices hold, in order."""
    indices = batch_sharding(mesh).addressable_devices_indices_map((count,))
    return np.unique(np.concatenate([np.arange(count)[index] for index in indices.values()]))


def replicated(mesh: Mesh) -> NamedSharding:
    """Whole on every device."""
    return NamedSharding(mesh, PartitionSpec())


def with_mesh(mesh: Mesh, function: Callable) -> Callable:
    """The function, to be jitted: while it is traced, what it calls can ask for the mesh."""

    @functools.wraps(function)
    def traced(*args: Any) -> Any:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(*args)

    return traced


def check_batch(
    mesh: Mesh, rows: int, accumulate: int = 1, field: str = "train.batch_size"
) -> None:
    """Refuses a global batch that does not divide over devices and microbatches.

    Raises:
      UsageError: with the nearest batch sizes that work.
    """
    if accumulate < 1:
        raise UsageError(f"train.accumulate must be at least 1, not {accumulate}")
    unit = mesh.shape["data"] * mesh.shape["fsdp"] * accumulate
    if rows < 1 or rows % unit:
        below = max(unit, rows - rows % unit)
        nearest = f"{below} or {below + unit}" if rows > unit else f"{unit}"
        microbatches = f" and train.accumulate={accumulate} microbatches" if accumulate > 1 else ""
        raise UsageError(
            f"{field}={rows} does not divide over {unit // accumulate} devices"
            f"{microbatches}; the nearest that works: {nearest}"
        )
