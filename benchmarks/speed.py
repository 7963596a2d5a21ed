"""Training speed beside transformers + PyTorch, in each one's settings, in turns.

    python benchmarks/speed.py [--cases small,tiny] [--rounds 5] [--json FILE]

Each contender is a process of its own, which is ready and waits while another steps; the order
changes from round to round. Tokens a second are medians over rounds of a round's median step;
ratios are medians of the ratios within a round, to the best PyTorch of that case.
"""

import argparse
import dataclasses
import json
import statistics
from collections.abc import Iterator
from pathlib import Path

from jax_step import make_config
from turns import Contender, race

from electra_jax.config import PretrainConfig
from electra_jax.pretraining.program import flops_per_token

JAX_STEP, TORCH_STEP = (str(Path(__file__).with_name(f"{x}_step.py")) for x in ("jax", "torch"))
NO_DROPOUT = ("model.dropout=0.0", "model.attention_dropout=0.0")
# Both sides: AdamW, whatever a config's own optimizer is.
COMMON = ("optimizer.name=adamw", "train.time_budget=", "train.steps=1000000")


@dataclasses.dataclass(frozen=True)
class Case:
    """What is trained: a config, rows of a step on a CPU and on a GPU, and tokens of a row."""

    spec: str
    rows: int
    gpu_rows: int
    length: int
    dropout: bool = True


CASES = {
    "small": Case("pretrain/small", 32, 1024, 128),
    "small-no-dropout": Case("pretrain/small", 32, 1024, 128, dropout=False),
    "tiny": Case("pretrain/tiny", 32, 8192, 64, dropout=False),
    "small-modern": Case("pretrain/small:modern", 32, 1024, 128, dropout=False),
    "small-512": Case("pretrain/small", 8, 256, 512),
    "base": Case("pretrain/base", 4, 256, 128),
    "base-512": Case("pretrain/base", 1, 64, 512),
    "large-512": Case("pretrain/large", 1, 32, 512),
}
DTYPES = ("float32", "bfloat16")
PEERS = ("eager", "sdpa", "compile")  # with SDPA


def peer_content(config: PretrainConfig, dtype: str, peer: str) -> dict:
    """What torch_step.py reads to train a config's networks in one of PyTorch's settings."""
    return {
        "config": dataclasses.asdict(config), "dtype": dtype, "compile": peer == "compile",
        "attention": "eager" if peer == "eager" else "sdpa",
    }  # fmt: skip


def contenders(case: Case, rows: int, dtypes: list[str], peers: list[str]) -> Iterator[Contender]:
    """Ours and PyTorch's, each in every dtype."""
    overrides = [f"train.batch_size={rows}", f"data.length={case.length}", *COMMON]
    overrides += [] if case.dropout else NO_DROPOUT
    config = make_config(case.spec, *overrides)
    for dtype in dtypes:
        content = {"config": case.spec, "overrides": [*overrides, f"model.dtype={dtype}"]}
        yield Contender(f"electra-jax {dtype}", [JAX_STEP], content)
        for peer in peers:
            content = peer_content(config, dtype, peer)
            yield Contender(f"PyTorch {peer} {dtype}", [TORCH_STEP], content)


def measure(case: Case, args: argparse.Namespace) -> list[dict]:
    """The figures of each contender of a case."""
    rows = args.rows or (case.gpu_rows if args.gpu else case.rows)
    config = make_config(case.spec, f"data.length={case.length}")
    tokens, flops = rows * case.length, sum(flops_per_token(config).values())
    found = race(contenders(case, rows, args.dtypes, args.peers), args.rounds, args.steps)
    rates = {
        name: [tokens / statistics.median(turn["seconds"]) for turn in x["turns"]]
        for name, x in found.items()
        if x
    }
    peers = [name for name in rates if name.startswith("PyTorch")]
    best = max(peers, key=lambda name: statistics.median(rates[name]), default=None)
    results = []
    for name, x in found.items():
        result: dict = {"contender": name}
        if x:
            rate, last = statistics.median(rates[name]), x["turns"][-1]
            result |= {
                "version": x["version"], "ready_seconds": x["ready_seconds"], "gib": last["gib"],
                "tokens_per_second": rate, "gflops": rate * flops / 1e9,
            }  # fmt: skip
            if best:
                ratios = [y / z for y, z in zip(rates[name], rates[best], strict=True)]
                result["ratio"] = statistics.median(ratios)
        results.append(result)
    return results


def show(name: str, case: Case, results: list[dict]) -> None:
    """A table, the fastest first."""
    print(f"\n{name}: {case.spec}, rows of {case.length}", flush=True)
    print(f"{'':24} {'tokens/s':>10} {'ratio':>6} {'GFLOP/s':>9} {'GiB':>6} {'ready in':>9}")
    for x in sorted(results, key=lambda x: -x.get("tokens_per_second", 0)):
        if "tokens_per_second" not in x:
            print(f"{x['contender']:24} failed")
            continue
        print(
            f"{x['contender']:24} {x['tokens_per_second']:10,.0f} {x.get('ratio', 0):6.2f} "
            f"{x['gflops']:9,.0f} {x['gib']:6.2f} {x['ready_seconds']:7.0f} s",
            flush=True,
        )


def words(choices: tuple[str, ...]):
    """Comma-separated words, each one of the choices."""

    def parse(text: str) -> list[str]:
        found = [word for word in text.split(",") if word]
        if unknown := [word for word in found if word not in choices]:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is not one of {', '.join(choices)}")
        return found

    return parse


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=words(tuple(CASES)), default=["small", "tiny"])
    parser.add_argument("--dtypes", type=words(DTYPES), default=list(DTYPES))
    parser.add_argument("--peers", type=words(PEERS), default=list(PEERS), help="PyTorch's")
    parser.add_argument("--rows", type=int, default=0, help="of a step; 0: as the case has")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="of a round")
    parser.add_argument("--gpu", action="store_true", help="rows of a GPU")
    parser.add_argument("--json", type=Path, help="append each case's figures to this file")
    args = parser.parse_args()
    for name in args.cases:
        results = measure(CASES[name], args)
        show(name, CASES[name], results)
        if args.json:
            with args.json.open("a") as lines:
                print(json.dumps({"case": name, "rows": args.rows, "results": results}), file=lines)


if __name__ == "__main__":
    main()
