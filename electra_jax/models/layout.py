"""The placement of activations on a mesh, by what their dimensions are.

A program that is compiled under a mesh with these axes computes each dimension in the
parts named here; under no mesh, or with an axis that does not divide a dimension, whole.
Without it the compiler would follow the placement of the parameters, and under `fsdp` cut
up every activation by width.
"""

import math

import jax
from jax.sharding import PartitionSpec

AXES: dict[str | None, tuple[str, ...]] = {
    "batch": ("data", "fsdp"),
    "heads": ("tensor",),
    "features": ("tensor",),  # the wide middle of the feed-forward network
    "vocabulary": ("tensor",),
    None: (),
}


def constrain(x: jax.Array, *dimensions: str | None) -> jax.Array:
    """The same array, its leading dimensions placed as AXES has it; the others whole."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return x
    return jax.lax.with_sharding_constraint(x, partition(x.shape, *dimensions))


def partition(shape: tuple[int, ...], *dimensions: str | None) -> PartitionSpec:
    """The placement of such an array on the mesh there is; an axis must divide its dimension."""
    mesh = jax.sharding.get_abstract_mesh()
    axes = [AXES[dimension] for dimension in dimensions]
    parts = [math.prod(mesh.shape[axis] for axis in group) for group in axes]
    return PartitionSpec(
        *(
            group if group and size % count == 0 else None
            for group, count, size in zip(axes, parts, shape, strict=False)
        )
    )
