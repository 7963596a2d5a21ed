"""Norms of gradients and updates, by network, as sums in the training state.

A network is a top-level entry of the parameters. The gradients of its queries and keys have a norm
of their own: where attention has died, it vanishes beside that of the network. The sums are added
up since the last line of the log, like those of the metrics, and beside them the number of steps.
"""

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from electra_jax.parallel.partition import path_name

# "steps": count; by kind of norm: network → sum; "skipped", of a run that skips steps: counts.
NormSums = dict[str, Any]
SKIPPED = "skipped"
QUERIES_AND_KEYS = re.compile(r"/(query|key)/kernel$")


def zero_norms(params: Mapping[str, Any]) -> NormSums:
    """The sums before the first step."""
    shapes = jax.eval_shape(lambda tree: step_norms(tree, tree, ""), params)
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)


def step_norms(gradients: Mapping[str, Any], updates: Mapping[str, Any], frozen: str) -> NormSums:
    """The norms of one step.

    Args:
      gradients: by parameter, before clipping.
      updates: by parameter, as they are added.
      frozen: regular expression: paths whose gradient counts as zero. Reading it would keep
        the compiler from leaving its computation out.
    """
    trained: dict[str, list[jax.Array]] = {network: [] for network in gradients}
    attention: dict[str, list[jax.Array]] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        name = path_name(path)
        network = name.partition("/")[0]
        leaves = [] if frozen and re.search(frozen, name) else [leaf]
        trained[network] += leaves
        if QUERIES_AND_KEYS.search(name):
            attention[network] = attention.get(network, []) + leaves
    sums = {
        "steps": jnp.ones(()),
        "gradient_norm": {network: _norm(leaves) for network, leaves in trained.items()},
        "update_norm": {network: _norm(part) for network, part in updates.items()},
    }
    if attention:
        sums["query_key_gradient_norm"] = {n: _norm(leaves) for n, leaves in attention.items()}
    return sums


def zero_skipped() -> dict[str, jax.Array]:
    """The counts of skipped steps: of the line, in a row until now, and in a row at most."""
    return {name: jnp.zeros((), jnp.int32) for name in ("steps", "in_row", "longest")}


def add_norms(sums: NormSums, norms: NormSums) -> NormSums:
    """The sums after a step."""
    added = jax.tree.map(jnp.add, {name: sums[name] for name in norms}, norms)
    return {**sums, **added}


def count_skipped(sums: NormSums, before: NormSums, skipped: jax.Array) -> NormSums:
    """The sums with one step counted as skipped or not."""
    counts = before[SKIPPED]
    in_row = jnp.where(skipped, counts["in_row"] + 1, 0)
    counted = {
        "steps": counts["steps"] + skipped,
        "in_row": in_row,
        "longest": jnp.maximum(counts["longest"], in_row),
    }
    return {**sums, SKIPPED: counted}


def mean_norms(sums: Mapping[str, Any]) -> dict[str, float]:
    """Means over the steps by "kind/network"; empty if no step is in the sums."""
    steps = float(sums.get("steps", 0))
    return {
        f"{kind}/{network}": float(total) / steps
        for kind in sums
        if kind not in ("steps", SKIPPED) and steps
        for network, total in sums[kind].items()
    }


def _norm(tree: Any) -> jax.Array:
    # The expression of optax's clip: of a network that is clipped alone it is computed once.
    return jnp.asarray(optax.tree.norm(tree), jnp.float32)
