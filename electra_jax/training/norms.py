"""Norms of gradients and updates, by network, as sums in the training state.

A network is a top-level entry of the parameters. The sums are added up since the last line of
the log, like those of the metrics, and beside them the number of steps.
"""

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from electra_jax.parallel.partition import path_name

NormSums = dict[str, Any]  # "steps": count, "gradient_norm" and "update_norm": network → sum


def zero_norms(params: Mapping[str, Any]) -> NormSums:
    """The sums before the first step."""
    zeros = {network: jnp.zeros(()) for network in params}
    return {"steps": jnp.zeros(()), "gradient_norm": zeros, "update_norm": dict(zeros)}


def step_norms(gradients: Mapping[str, Any], updates: Mapping[str, Any], frozen: str) -> NormSums:
    """The norms of one step.

    Args:
      gradients: by parameter, before clipping.
      updates: by parameter, as they are added.
      frozen: regular expression: paths whose gradient counts as zero. Reading it would keep
        the compiler from leaving its computation out.
    """
    trained: dict[str, list[jax.Array]] = {network: [] for network in gradients}
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        name = path_name(path)
        if not (frozen and re.search(frozen, name)):
            trained[name.partition("/")[0]].append(leaf)
    return {
        "steps": jnp.ones(()),
        "gradient_norm": {network: _norm(leaves) for network, leaves in trained.items()},
        "update_norm": {network: _norm(part) for network, part in updates.items()},
    }


def mean_norms(sums: Mapping[str, Any]) -> dict[str, float]:
    """Means over the steps by "kind/network"; empty if no step is in the sums."""
    steps = float(sums.get("steps", 0))
    return {
        f"{kind}/{network}": float(total) / steps
        for kind in ("gradient_norm", "update_norm")
        for network, total in (sums[kind].items() if steps else ())
    }


def _norm(tree: Any) -> jax.Array:
    # The expression of optax's clip: of a network that is clipped alone it is computed once.
    return jnp.asarray(optax.tree.norm(tree), jnp.float32)
