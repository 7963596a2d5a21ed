"""What one accelerator gives: precision, speed, memory, and a Small that learns.

    python benchmarks/gpu_session.py --store STORE --out DIR [--parts precision,speed,pretrain]

Each part takes less than eight minutes, may be run again, and appends its figures to
DIR/gpu_session.jsonl. `pretrain` trains Small on the store for as long as it is given and
goes on at the next call. Needs neither TensorFlow nor, but for the comparison, PyTorch.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch runs beside

import jax
import jax.numpy as jnp
import numpy as np

from electra_jax.config import PretrainConfig, load_config, pretrain_config
from electra_jax.errors import Stopped
from electra_jax.parallel.hardware import peak_flops
from electra_jax.parallel.mesh import MeshConfig, make_mesh
from electra_jax.parallel.runtime import enable_compilation_cache
from electra_jax.pretrain import pretrain
from electra_jax.program import BERT_TOKENS, build_program, flops_per_token

PARTS = ("precision", "speed", "pretrain")
VOCAB_SIZE = 30522
# Config, rows of a step on an accelerator, rows on a CPU.
SPEED = (
    ("pretrain/small", 1024, 32),
    ("pretrain/small", 128, 8),
    ("pretrain/small:modern", 1024, 8),
    ("pretrain/base", 128, 1),
    ("pretrain/base:modern", 128, 1),
    ("pretrain/large", 32, 1),
)
STEPS, WARM_UP = 20, 3


def make_config(spec: str, rows: int, *overrides: str) -> PretrainConfig:
    fields = [f"model.vocab_size={VOCAB_SIZE}", f"train.batch_size={rows}", *overrides]
    return pretrain_config(load_config(spec, fields))


def make_batch(config: PretrainConfig, seed: int = 0) -> dict[str, jax.Array]:
    """Rows of random words, each one document."""
    shape = (config.train.batch_size, config.data.length)
    tokens = np.random.default_rng(seed).integers(1000, VOCAB_SIZE, shape, dtype=np.int32)
    tokens[:, 0], tokens[:, -1] = BERT_TOKENS.cls, BERT_TOKENS.sep
    ones = np.ones(shape, np.int32)
    return jax.device_put({"tokens": tokens, "documents": ones, "types": 0 * ones})


def make_step(config: PretrainConfig):
    """The program of a config on one device, a fresh state, and the compiled training step."""
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    program = build_program(config, mesh, None)
    state = program.create(jax.random.key(0))
    step = program.train_step.lower(state, make_batch(config), jax.random.key(0), jnp.float32(0.5))
    return program, state, step.compile()


def precision(deadline: float) -> list[dict]:
    """The losses of bfloat16 beside those of float32, on the same rows and from one start."""
    del deadline
    rows = 128 if jax.default_backend() != "cpu" else 4
    losses = {}
    for dtype in ("float32", "bfloat16"):
        config = make_config(
            "pretrain/small", rows, f"model.dtype={dtype}",
            "model.dropout=0.0", "model.attention_dropout=0.0", "optimizer.warmup_steps=10",
        )  # fmt: skip
        program, state, step = make_step(config)
        losses[dtype] = []
        for index in range(STEPS):
            batch = make_batch(config, index)
            state = step(state.reset_metrics(), batch, jax.random.key(1), jnp.float32(0.1))
            sums = program.objective.summarise(jax.device_get(state.metric_sums))
            losses[dtype].append(sums["loss"])
    exact, rounded = np.array(losses["float32"]), np.array(losses["bfloat16"])
    difference = np.abs(rounded - exact) / exact
    return [
        {
            "config": "pretrain/small",
            "rows": rows,
            "first_relative_difference": difference[0],
            "largest_relative_difference": difference.max(),
            "last_losses": [exact[-1], rounded[-1]],
        }
    ]


def measure(config: PretrainConfig) -> dict:
    """Median step, tokens a second, share of the peak, and the compiler's count of memory."""
    _, state, step = make_step(config)
    batch, key, progress = make_batch(config), jax.random.key(0), jnp.float32(0.5)
    seconds = []
    for index in range(WARM_UP + STEPS):
        start = time.perf_counter()
        state = jax.block_until_ready(step(state, batch, key, progress))
        if index >= WARM_UP:
            seconds.append(time.perf_counter() - start)
    length = config.data.length
    rate = config.train.batch_size * length / statistics.median(seconds)
    flops = sum(flops_per_token(config).values())
    memory, peak = step.memory_analysis(), peak_flops(jax.devices()[:1])
    return {
        "tokens_per_second": round(rate),
        "step_ms": 1e3 * statistics.median(seconds),
        "mfu": rate * flops / peak if peak else None,
        "gib": (memory.argument_size_in_bytes + memory.temp_size_in_bytes) / 2**30,
    }


def speed(deadline: float) -> list[dict]:
    """Tokens a second of each size, beside transformers + PyTorch where it is installed."""
    results = []
    accelerator = jax.default_backend() != "cpu"
    for spec, many, few in SPEED:
        rows = many if accelerator else few
        for kernel in ("xla", "cudnn") if jax.default_backend() == "gpu" else ("xla",):
            if time.monotonic() > deadline:
                return results
            line = {"config": spec, "rows": rows, "attention": kernel}
            overrides = [f"model.attention={kernel}"]
            if kernel == "cudnn":  # it has no dropout
                overrides += ["model.attention_dropout=0.0"]
            try:
                line |= measure(make_config(spec, rows, *overrides))
            except Exception as error:  # out of memory, or a kernel that is not there
                line["error"] = str(error).splitlines()[0][:200]
            print(line, flush=True)
            results.append(line)
        if ":" not in spec and time.monotonic() < deadline:
            results.append(peer(spec, rows, deadline))
    return results


def peer(spec: str, rows: int, deadline: float) -> dict:
    """The same step in transformers + PyTorch, in a process of its own."""
    line = {"config": spec, "rows": rows, "with": "transformers + PyTorch"}
    script = Path(__file__).with_name("torch_step.py")
    config = dataclasses.asdict(make_config(spec, rows))
    try:
        done = subprocess.run(
            [sys.executable, str(script)], input=json.dumps(config), text=True,
            capture_output=True, timeout=max(1.0, deadline - time.monotonic()),
        )  # fmt: skip
        line |= (
            json.loads(done.stdout)
            if done.returncode == 0
            else {"error": done.stderr.strip().splitlines()[-1][:200]}
        )
    except subprocess.TimeoutExpired:
        line["error"] = "no time left"
    print(line, flush=True)
    return line


def pretrain_small(deadline: float, store: str, out: Path, budget: str) -> list[dict]:
    """Small on real text until the deadline, from where the last call stopped."""
    overrides = [
        f"data.store={store}", f"train.time_budget={budget}", "train.batch_size=1024",
        "optimizer.warmup_steps=500", "optimizer.learning_rate=2e-3", "data.layout=packed",
        "eval.every_steps=1000", "checkpoint.every_steps=1000",
    ]  # fmt: skip
    if jax.default_backend() == "cpu":
        overrides += ["train.batch_size=16", "train.log_every=10"]
    stop = threading.Timer(deadline - time.monotonic(), os.kill, (os.getpid(), signal.SIGTERM))
    stop.daemon = True
    stop.start()
    workdir = out / "small"
    finished = False
    with contextlib.suppress(Stopped):
        pretrain(pretrain_config(load_config("pretrain/small", overrides)), workdir)
        finished = True
    stop.cancel()
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").open()]
    evaluations = [line for line in lines if "eval/loss" in line]
    return [{"finished": finished, **(evaluations or lines or [{}])[-1]}]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", help="token store to pretrain on (see `electra-jax prepare`)")
    parser.add_argument("--out", type=Path, required=True, help="folder for figures and the run")
    parser.add_argument("--parts", default=",".join(PARTS), help="comma-separated")
    parser.add_argument("--minutes", type=float, default=7.0, help="for each part")
    parser.add_argument("--budget", default="20m", help="of the pretraining, over all calls")
    args = parser.parse_args()
    parts = args.parts.split(",")
    if unknown := set(parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    if "pretrain" in parts and not args.store:
        parser.error("pretrain needs --store")
    args.out.mkdir(parents=True, exist_ok=True)
    enable_compilation_cache()
    device = jax.devices()[0].device_kind
    for part in parts:
        deadline = time.monotonic() + 60 * args.minutes
        if part == "pretrain":
            lines = pretrain_small(deadline, args.store, args.out, args.budget)
        else:
            lines = {"precision": precision, "speed": speed}[part](deadline)
        with (args.out / "gpu_session.jsonl").open("a") as file:
            for line in lines:
                line = {"part": part, "device": device, "jax": jax.__version__, **line}
                print(json.dumps(line), file=file)
                print(line, flush=True)


if __name__ == "__main__":
    main()
