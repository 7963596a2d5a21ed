"""What a token costs in rows of 512 to 8,192, with local layers and without, in turns.

    python benchmarks/long_rows.py [--config pretrain/small:modern] [--tokens 8192]

Steps are of equal tokens; ratios are of the time of a token to that of the shortest rows with local
layers, medians of the ratios within a round.
"""

import argparse
import statistics

from speed import JAX_STEP, NO_DROPOUT
from turns import Contender, race

LENGTHS = (512, 2048, 8192)
LOCAL = ("model.local_window=64", "model.global_every=3")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="pretrain/small:modern")
    parser.add_argument("--tokens", type=int, default=8192, help="of a step")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", default="float32")
    args = parser.parse_args()
    contenders = [
        Contender(
            f"{length:,} {kind}",
            [JAX_STEP],
            {
                "config": args.config,
                "overrides": [
                    f"data.length={length}", f"train.batch_size={args.tokens // length}",
                    f"model.max_positions={length}", f"model.dtype={args.dtype}",
                    "optimizer.name=adamw", "train.time_budget=", "train.steps=1000000",
                    *NO_DROPOUT, *fields,
                ],
            },
        )
        for kind, fields in (("local", LOCAL), ("global", ()))
        for length in LENGTHS
    ]  # fmt: skip
    found = race(contenders, args.rounds, 1)
    first = [turn["seconds"][0] for turn in found[contenders[0].name]["turns"]]
    for name, x in found.items():
        if not x:
            print(f"{name:16} failed")
            continue
        seconds = [turn["seconds"][0] for turn in x["turns"]]
        ratio = statistics.median(y / z for y, z in zip(seconds, first, strict=True))
        rate = args.tokens / statistics.median(seconds)
        print(f"{name:16} {rate:9,.0f} tokens/s  {ratio:5.2f}  {x['turns'][-1]['gib']:5.2f} GiB")


if __name__ == "__main__":
    main()
