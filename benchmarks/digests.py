"""How fast arrays are digested, in GB/s, where they lie: python benchmarks/digests.py"""

import time

import jax
import jax.numpy as jnp
import numpy as np

from electra_jax.training.digests import inspect

ARRAYS, ROUNDS = 30, 12


def main() -> None:
    key = jax.random.key(0)
    tree = {str(i): jax.random.normal(key, (1024, 1024), jnp.float32) for i in range(ARRAYS)}
    jax.block_until_ready(tree)
    inspect(tree)  # compiles, if it is not read on the host
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        inspect(tree)
        seconds.append(time.perf_counter() - start)
    size = sum(leaf.nbytes for leaf in tree.values())
    best, median = size / min(seconds) / 1e9, size / float(np.median(seconds)) / 1e9
    device = jax.devices()[0].device_kind
    print(f"{device}: {size / 1e6:.0f} MB at {median:.1f} GB/s (median), {best:.1f} (best)")


if __name__ == "__main__":
    main()
