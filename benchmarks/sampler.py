"""Tokens a second that the sampler gives, on one core.

    taskset -c 0 python benchmarks/sampler.py STORE

Prints, for both layouts and several lengths, the median over five runs of the plain
iterator and of the tf.data pipeline.
"""

import argparse
import itertools
import statistics
import time

from electra_jax.data.sampler import Sampler
from electra_jax.data.token_store import TokenStore

SECONDS = 1.0


def rate(batches) -> float:
    """Slots of batches a second, special tokens and padding included."""
    next(batches)
    start, tokens = time.perf_counter(), 0
    for batch in batches:
        tokens += batch["tokens"].size
        if (elapsed := time.perf_counter() - start) > SECONDS:
            return tokens / elapsed
    raise AssertionError("a sampler never ends")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store")
    store = TokenStore.open(parser.parse_args().store)
    ids = {name: getattr(store.tokenizer, name) for name in ("cls_id", "sep_id", "pad_id")}
    print("layout  length  batch  plain M tokens/s  tf.data M tokens/s")
    for layout, (length, rows) in itertools.product(
        ("packed", "pair"), ((64, 32), (128, 128), (512, 256))
    ):
        sampler = Sampler(
            [(store.split("train"), 1.0)],
            length=length, layout=layout, batch_size=rows, seed=0, pipeline="tfdata",
            **ids,
        )  # fmt: skip
        plain, piped = (
            statistics.median(rate(make(0)) for _ in range(5)) / 1e6
            for make in (sampler.iterate, sampler.batches)
        )
        print(f"{layout:7} {length:6} {rows:6} {plain:17.1f} {piped:19.1f}", flush=True)


if __name__ == "__main__":
    main()
