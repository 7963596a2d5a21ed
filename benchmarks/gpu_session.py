"""What one accelerator gives: precision, speed, memory, and a Small that learns.

    python benchmarks/gpu_session.py --store STORE --out DIR [--parts precision,plateau]

Each part takes less than eight minutes and may be run again: every figure is appended to
DIR/gpu_session.jsonl as soon as it is there, and those that are there are not measured again.

- `precision`: losses in bfloat16 beside those in float32.
- `speed`: tokens a second of each size.
- `plateau`: the generator of Small alone, by each arm of plateau.py, for 90 seconds each, or
  --arm-seconds, of training alone. A call takes the arms that fit into its minutes; the next one
  takes those that are missing. An arm that was cut off resumes.
- `pretrain`: Small, or --config, on the store, for --budget over all calls. Each call resumes
  where the last one stopped. The recipe is that of plateau.py.

Needs neither an installed electra-jax nor TensorFlow nor, but for the comparison, PyTorch; of
the other packages those of pyproject.toml that the model, the data and the training loop import.
"""

import argparse
import contextlib
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

# Every measurement has a process of its own, which may have nearly all of the memory.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.92")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import jax.numpy as jnp
import numpy as np
from jax_step import make_batch, make_config, make_step
from plateau import ARMS, RECIPE, amount_trained, check_plateau, full_precision, train_arm
from speed import JAX_STEP, PEERS, TORCH_STEP, peer_content

from electra_jax.config import PretrainConfig, load_config, pretrain_config
from electra_jax.data.mixture import Mixture
from electra_jax.data.token_store import TokenStore
from electra_jax.errors import Stopped, UsageError
from electra_jax.parallel.hardware import peak_flops
from electra_jax.parallel.runtime import enable_compilation_cache
from electra_jax.pretraining.pretrain import pretrain
from electra_jax.pretraining.program import flops_per_token
from electra_jax.training.metrics import read_metrics

PARTS = ("precision", "speed", "plateau", "pretrain")
FIGURES = "gpu_session.jsonl"
# Config, rows of a step on an accelerator, rows on a CPU; the most telling first.
SPEED = (
    ("pretrain/small", 1024, 32),
    ("pretrain/base", 128, 1),
    ("pretrain/large", 32, 1),
    ("pretrain/small:modern", 1024, 8),
    ("pretrain/base:modern", 128, 1),
    ("pretrain/small", 128, 8),
)
# Kernel of the attention, and its dropout: the published one, and none, as cuDNN has it.
KERNELS = {"gpu": (("xla", 0.1), ("xla", 0.0), ("cudnn", 0.0))}
ARM_SETUP = 60.0  # seconds to start, compile and evaluate an arm, until one has been measured
NO_TIME = "no time left"
STEPS, WARM_UP = 20, 3


def precision() -> dict:
    """The losses of bfloat16 beside those of float32, on the same rows and from one start."""
    rows = 128 if jax.default_backend() != "cpu" else 4
    losses = {}
    for dtype in ("float32", "bfloat16"):
        config = make_config(
            "pretrain/small", f"train.batch_size={rows}", f"model.dtype={dtype}",
            "model.dropout=0.0", "model.attention_dropout=0.0", "optimizer.warmup_steps=10",
        )  # fmt: skip
        with full_precision(dtype):
            program, state, step = make_step(config)
        losses[dtype] = []
        for index in range(STEPS):
            batch = make_batch(config, index)
            state = step(state.reset_metrics(), batch, jax.random.key(1), jnp.float32(0.1))
            sums = program.objective.summarise(jax.device_get(state.metric_sums))
            losses[dtype].append(sums["loss"])
    exact, rounded = np.array(losses["float32"]), np.array(losses["bfloat16"])
    difference = np.abs(rounded - exact) / exact
    return {
        "config": "pretrain/small",
        "rows": rows,
        "first_relative_difference": difference[0],
        "largest_relative_difference": difference.max(),
        "last_losses": [exact[-1], rounded[-1]],
    }


def speed_cases() -> Iterator[dict]:
    """What is measured: each config with the first kernel, its peer, then the other kernels."""
    backend = jax.default_backend()
    cases: list[dict] = [
        {"config": spec, "rows": few if backend == "cpu" else many} for spec, many, few in SPEED
    ]
    for number, (kernel, dropout) in enumerate(KERNELS.get(backend, (("xla", 0.1),))):
        for case in cases:
            if not (case["config"].endswith("modern") and dropout):  # it has none
                yield {**case, "attention": kernel, "attention_dropout": dropout}
        if number == 0:
            yield from ({**case, "with": peer} for peer in PEERS for case in cases)


def speed(deadline: float, done: list[dict]) -> Iterator[dict]:
    """Tokens a second of each size, each measured in a process of its own."""
    longest = 60.0  # seconds, of a measurement so far
    for case in speed_cases():
        known = [line for line in done if case.items() <= line.items()]
        left = deadline - time.monotonic()
        if known or left < longest:
            continue
        start = time.monotonic()
        found = measure(left, **case)
        taken = time.monotonic() - start
        yield {**case, **found, "seconds": round(taken)}  # most of them to compile
        longest = max(longest, taken)


def measure(seconds: float, config: str, rows: int, **case) -> dict:
    """One of `speed_cases`: the median step, or the error of what took too long or failed."""
    overrides = [f"train.batch_size={rows}"]
    if peer := case.get("with"):
        made = make_config(config, *overrides)
        command, content = [TORCH_STEP], peer_content(made, "bfloat16", peer)
    else:
        overrides += [f"model.{field}={value}" for field, value in case.items()]
        made = make_config(config, *overrides)
        command, content = [JAX_STEP], {"config": config, "overrides": overrides}
    found = run_apart(command, content, seconds, f"\n{WARM_UP + STEPS}\n")
    if "error" in found:
        return found
    step = statistics.median(found["seconds"][WARM_UP:])
    rate = rows * made.data.length / step
    flops, peak = sum(flops_per_token(made).values()), peak_flops(jax.devices()[:1])
    return {
        "tokens_per_second": round(rate),
        "step_ms": 1e3 * step,
        "mfu": rate * flops / peak if peak else None,
        "gib": found["gib"],
    }


def run_apart(command: list[str], content: dict, seconds: float, then: str = "") -> dict:
    """What a script prints last, given some JSON and what comes after it; or its error."""
    try:
        done = subprocess.run(
            [sys.executable, *command], input=json.dumps(content) + then, text=True,
            capture_output=True, timeout=seconds,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"error": NO_TIME}
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    last = (lines or [f"ended with {done.returncode}"])[-1]
    try:
        return json.loads(last) if done.returncode == 0 else {"error": last[:200]}
    except ValueError:
        return {"error": f"printed {last[:100]!r}"}


def long_config(args: argparse.Namespace) -> PretrainConfig:
    """What `pretrain` trains, and how."""
    fields = [
        *RECIPE, f"data.store={args.store}", f"train.time_budget={args.budget}",
        "eval.every_steps=4000", "checkpoint.every_steps=4000",
    ]  # fmt: skip
    if jax.default_backend() == "cpu":
        fields += ["train.batch_size=16", "train.log_every=10"]
    return pretrain_config(load_config(args.config, [*fields, *args.override]))


def pretrain_until(deadline: float, args: argparse.Namespace) -> dict:
    """A model on real text until the deadline, from where the last call stopped."""
    config = long_config(args)
    stop = threading.Timer(deadline - time.monotonic(), os.kill, (os.getpid(), signal.SIGTERM))
    stop.daemon = True
    stop.start()
    workdir = args.out / re.sub("[/:]", "-", args.config)
    finished = False
    with contextlib.suppress(Stopped):
        pretrain(config, workdir)
        finished = True
    stop.cancel()
    lines = read_metrics(workdir)
    evaluations = [line for line in lines if "eval/loss" in line]
    last = (evaluations or lines or [{}])[-1]
    amount = amount_trained(config, lines) if lines else {}
    return {
        "config": args.config, "changed": args.override, "finished": finished, **amount, **last,
    }  # fmt: skip


def plateau(deadline: float, done: list[dict], args: argparse.Namespace) -> Iterator[dict]:
    """What each arm has learnt, each trained in a process of its own."""
    identity = TokenStore.open(args.store).identity
    base = {"arm_seconds": args.arm_seconds, "store": identity}
    measured = [x for x in done if base.items() <= x.items() and "error" not in x]
    known = [line["arm"] for line in measured]
    # Those that resumed took less than a whole arm does.
    whole = [line["seconds"] for line in measured if line["seconds"] > args.arm_seconds]
    for arm in ARMS:
        left = deadline - time.monotonic()
        if arm in known:
            continue
        if left < max(whole, default=args.arm_seconds + ARM_SETUP):
            missing = ", ".join(name for name in ARMS if name not in known)
            print(f"plateau: no time left for {missing}; rerun the command", file=sys.stderr)
            return
        start = time.monotonic()
        workdir = args.out / "plateau" / f"{identity}-{args.arm_seconds:g}s" / arm
        content = {
            "arm": arm, "store": args.store, "seconds": args.arm_seconds, "workdir": str(workdir),
        }  # fmt: skip
        found = run_apart([__file__, "--case", "plateau"], content, left)
        seconds = round(time.monotonic() - start)
        if "error" not in found:
            known.append(arm)
            whole += [seconds] if seconds > args.arm_seconds else []
        yield {"arm": arm, **base, **found, "seconds": seconds}


def check_out(out: Path) -> None:
    """Makes the folder of the figures.

    Raises:
      UsageError: it cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out={out} cannot be made: {error.strerror}") from error


def measure_parts(args: argparse.Namespace) -> None:
    """Measures what is missing of each part, and writes each figure at once.

    Raises:
      UsageError: the flags do not fit together.
    """
    parts = args.parts.split(",")
    if unknown := set(parts) - set(PARTS):
        raise UsageError(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    if not args.out:
        raise UsageError("give --out DIR")
    for part in ("pretrain", "plateau"):
        if part in parts and not args.store:
            raise UsageError(f"{part} needs --store")
    if "pretrain" in parts:
        long_config(args)
        Mixture.open(args.store)
    if "plateau" in parts:
        check_plateau(args.store, args.arm_seconds)
    check_out(args.out)
    file = args.out / FIGURES
    here = {"device": jax.devices()[0].device_kind, "jax": jax.__version__}
    written = map(json.loads, file.read_text().splitlines()) if file.exists() else ()
    done = [x for x in written if here.items() <= x.items() and x.get("error") != NO_TIME]
    for part in parts:
        deadline = time.monotonic() + 60 * args.minutes
        before = [line for line in done if line["part"] == part]
        if part == "speed":
            found = speed(deadline, before)
        elif part == "plateau":
            found = plateau(deadline, before, args)
        elif part == "precision":
            command = [__file__, "--case", part]
            found = iter(() if before else (run_apart(command, {}, 60 * args.minutes),))
        else:
            found = iter((pretrain_until(deadline, args),))
        for figures in found:
            line = {"part": part, **here, **figures}
            print(line, flush=True)
            with file.open("a") as lines:
                print(json.dumps(line), file=lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", help="token store to pretrain on (see `electra-jax prepare`)")
    parser.add_argument("--out", type=Path, help="folder for figures and runs")
    parser.add_argument("--parts", default=",".join(PARTS), help="comma-separated")
    parser.add_argument("--minutes", type=float, default=7.0, help="for each part")
    parser.add_argument("--config", default="pretrain/small", help="that is pretrained")
    parser.add_argument("--budget", default="20m", help="of the pretraining, over all calls")
    parser.add_argument(
        "--override", nargs="+", default=[], metavar="FIELD=VALUE", help="of the pretraining"
    )
    parser.add_argument(
        "--arm-seconds", type=float, default=90.0, help="of training, of each arm of the plateau"
    )
    cases = {"precision": precision, "plateau": train_arm}
    parser.add_argument("--case", choices=cases, help=argparse.SUPPRESS)
    args = parser.parse_args()
    enable_compilation_cache()
    if args.case:
        print(json.dumps(cases[args.case](**json.load(sys.stdin))))
        return
    # Ends by an exception, which ends the process of a measurement as well.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        measure_parts(args)
    except UsageError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        sys.exit(error.status)


if __name__ == "__main__":
    main()
