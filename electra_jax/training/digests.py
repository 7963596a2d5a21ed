"""Digests of arrays: 64 bits that change when one bit of an array does.

Two sums, modulo 2^32, of every word of an array mixed with its position. The order in which they
are added up does not matter, so an array has the same digest on any mesh, and each device sums
what it holds. For a given position the mixing is a bijection of the word: one changed word always
changes the first sum; values that changed places, or other changes of several words, leave both
as they are with a probability of about 2^-64. All is of bits: NaNs and signs of zeros count.
"""

import functools
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from electra_jax.parallel.partition import path_name

POSITION, FIRST, SECOND, THIRD = 0x9E3779B1, 0x85EBCA6B, 0xC2B2AE35, 0x27D4EB2F  # odd
WORDS = {1: np.uint8, 2: np.uint16, 4: np.uint32}  # by bytes
BLOCK = 1 << 16  # words that the host takes at a time: they stay in its cache
WRAP = (1 << 32) - 1


class Inspection(NamedTuple):
    """What an array's bits say: its digest in hexadecimal, and whether all are numbers."""

    digest: str
    finite: bool


def inspect(tree: Any) -> dict[str, Inspection]:
    """Inspects the arrays of a tree, by path; all processes that hold them must call it.

    Arrays in the memory of the host are read there, others on their devices, which costs
    compiling a program for each shape.
    """
    named = [(path_name(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]
    # Begun on the devices first: these work while the host reads what it holds.
    sums = {name: _inspect_on_devices(leaf) for name, leaf in named if not _on_host(leaf)}
    here = {name: leaf for name, leaf in named if name not in sums}
    with ThreadPoolExecutor(max(1, min(4, os.cpu_count() or 1))) as pool:
        found = dict(zip(here, pool.map(_inspect_on_host, here.values()), strict=True))
    found |= jax.device_get(sums)
    return {
        name: Inspection(f"{int(first):08x}{int(second):08x}", bool(finite))
        for name, (first, second, finite) in ((name, found[name]) for name, _ in named)
    }


def _on_host(leaf: Any) -> bool:
    if not isinstance(leaf, jax.Array):
        return True
    devices: Any = leaf.sharding.device_set
    return leaf.is_fully_addressable and all(device.platform == "cpu" for device in devices)


def _mixed(word: Any, position: Any) -> tuple[Any, Any]:
    """The terms of a word in both sums; of arrays of uint32, of NumPy or JAX."""
    u = np.uint32
    first = (word ^ position) * u(FIRST)
    first = (first ^ (first >> u(15))) * u(SECOND)
    second = (first ^ (first >> u(13))) * u(THIRD)
    return first, second ^ (second >> u(16))


def _inspect_on_host(leaf: Any) -> tuple[int, int, bool]:
    array = np.asarray(leaf)
    flat = np.ascontiguousarray(array).reshape(-1)
    is_float = jnp.issubdtype(array.dtype, jnp.floating)
    words = flat.view(WORDS[array.dtype.itemsize])
    positions = np.arange(BLOCK, dtype=np.uint32) * np.uint32(POSITION)
    first = second = 0
    finite = True
    for start in range(0, len(words), BLOCK):
        word = words[start : start + BLOCK].astype(np.uint32, copy=False)
        offset = np.uint32(start * POSITION & WRAP)
        terms = _mixed(word, positions[: len(word)] + offset)
        first += int(terms[0].sum(dtype=np.uint64))
        second += int(terms[1].sum(dtype=np.uint64))
        if is_float and finite:
            finite = bool(np.isfinite(flat[start : start + BLOCK]).all())
    return first & WRAP, second & WRAP, finite


def _inspect_on_devices(leaf: jax.Array) -> jax.Array:
    """Both sums and whether all are numbers, uint32 [3], replicated."""
    replicated = None
    if isinstance(leaf.sharding, NamedSharding):
        replicated = NamedSharding(leaf.sharding.mesh, PartitionSpec())
    return _compiled(replicated)(leaf)


@functools.cache
def _compiled(replicated: NamedSharding | None) -> Any:
    return jax.jit(_sums, out_shardings=replicated)


def _sums(array: jax.Array) -> jax.Array:
    if array.dtype == jnp.bool_:
        word = array.astype(jnp.uint32)
    else:
        bits = jax.lax.bitcast_convert_type(array, WORDS[array.dtype.itemsize])
        word = bits.astype(jnp.uint32)
    position, stride = jnp.zeros(array.shape, jnp.uint32), POSITION
    for dimension in reversed(range(array.ndim)):
        iota = jax.lax.broadcasted_iota(jnp.uint32, array.shape, dimension)
        position += iota * np.uint32(stride & WRAP)
        stride *= array.shape[dimension]
    first, second = (term.sum(dtype=jnp.uint32) for term in _mixed(word, position))
    is_float = jnp.issubdtype(array.dtype, jnp.floating)
    finite = jnp.isfinite(array).all() if is_float else jnp.bool_(True)
    return jnp.stack([first, second, finite.astype(jnp.uint32)])
