"""The placement of parameters: a table of regular expressions over parameter paths."""

import re
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

Rules = Sequence[tuple[str, PartitionSpec]]


def path_name(path: tuple) -> str:
    """A tree path as "a/b/c"."""
    return "/".join(str(getattr(p, "key", getattr(p, "name", getattr(p, "idx", p)))) for p in path)


def place(tree: Any, rules: Rules, mesh: Mesh) -> tuple[Any, list[str]]:
    """A NamedSharding for every leaf, by the first rule that its path matches.

    A rule speaks of the last dimensions of an array, so that a stack of layers is placed
    as its layers are. An axis that does not divide its dimension is left out.

    Args:
      tree: arrays or shapes; optimizer states match by the parameter path they end in.
      rules: (regular expression, PartitionSpec) pairs.
      mesh: the mesh the specs name axes of.

    Returns:
      The shardings, and the paths of arrays of two or more dimensions that no rule
      matched (they are replicated).
    """
    unmatched = []

    def sharding(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        name = path_name(path)
        for pattern, spec in rules:
            if re.search(pattern, name):
                return NamedSharding(mesh, _fit(spec, leaf.shape, mesh))
        if leaf.ndim >= 2:
            unmatched.append(name)
        return NamedSharding(mesh, PartitionSpec())

    return jax.tree_util.tree_map_with_path(sharding, tree), unmatched


def _fit(spec: PartitionSpec, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    if len(shape) < len(spec):
        return PartitionSpec()
    axes: list[str | None] = [None] * (len(shape) - len(spec)) + list(spec)
    return PartitionSpec(
        *(
            axis if axis is not None and size % mesh.shape[axis] == 0 else None
            for axis, size in zip(axes, shape, strict=True)
        )
    )
