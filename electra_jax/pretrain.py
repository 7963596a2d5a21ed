"""The pretraining run, told in order: store, state, loop."""

import dataclasses
import functools
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from electra_jax.config import PretrainConfig, config_fields, flatten, read_config, save_config
from electra_jax.data.sampler import Sampler, mixture
from electra_jax.data.token_store import TokenStore
from electra_jax.data.tokenizer import Tokenizer, load_tokenizer
from electra_jax.errors import UsageError
from electra_jax.inference import load
from electra_jax.models.electra import count_params
from electra_jax.parallel.hardware import peak_flops
from electra_jax.parallel.mesh import check_batch, make_mesh, replicated
from electra_jax.parallel.roll_call import code_facts
from electra_jax.parallel.runtime import (
    barrier,
    check_shared,
    distribute,
    fetch,
    global_batches,
    is_main,
    random_key,
)
from electra_jax.program import Program, build_program, flops_per_token
from electra_jax.training.checkpoint import Checkpoints
from electra_jax.training.loop import Clock, Loop
from electra_jax.training.metrics import MetricsWriter
from electra_jax.warm_start import warm_start

log = logging.getLogger(__name__)

# Fields that the shape of a training state depends on.
STATE_FIELDS = (
    "model.", "generator.", "objective.name", "optimizer.name", "optimizer.separate",
    "optimizer.frozen", "optimizer.bias_correction",
)  # fmt: skip
IMPORTED = ""  # in place of a token store, in the record of an imported model
MANY_EPOCHS = 10  # from here on a run is warned that it reads its text over and over


def resolve(config: PretrainConfig, vocab_size: int) -> PretrainConfig:
    """The config with the vocabulary size filled in.

    Raises:
      UsageError: the config names one that is smaller than the tokenizer's.
    """
    asked = config.model.vocab_size or vocab_size
    if asked < vocab_size:
        raise UsageError(
            f"model.vocab_size={asked} is smaller than the tokenizer's {vocab_size}; "
            "leave it at 0 to take the tokenizer's"
        )
    return dataclasses.replace(config, model=dataclasses.replace(config.model, vocab_size=asked))


def parse_stores(text: str) -> list[tuple[str, float]]:
    """ "a:0.7,b:0.3" or "a" as (path, weight) pairs.

    Raises:
      UsageError: empty, or a weight that is no number.
    """
    if not text:
        raise UsageError("data.store is empty: give --config.data.store=DIR (see `prepare`)")
    stores = []
    for part in text.split(","):
        path, colon, weight = part.rpartition(":")
        if not colon or "/" in weight:
            path, weight = part, "1"
        try:
            stores.append((path, float(weight)))
        except ValueError:
            raise UsageError(f"data.store={text!r}: {weight!r} is no weight") from None
    return stores


def store_turns(text: str) -> np.ndarray:
    """Which of the stores of `data.store` each row of a period comes from."""
    return mixture(np.array([weight for _, weight in parse_stores(text)]))[0]


def open_stores(text: str, tokenizer: Tokenizer | None = None) -> list[tuple[TokenStore, float]]:
    """The stores of `data.store` with their weights.

    Args:
      text: see `parse_stores`.
      tokenizer: the one they must have been made with; by default the first store's.

    Raises:
      UsageError: one is missing or broken, or was made with another tokenizer.
    """
    stores = [(TokenStore.open(path), weight) for path, weight in parse_stores(text)]
    tokenizer = tokenizer or stores[0][0].tokenizer
    for store, _ in stores:
        if store.tokenizer.identity != tokenizer.identity:
            raise UsageError(
                f"{store.path} was made with another tokenizer; prepare its text again with "
                "the one in use"
            )
    return stores


def held_out_stores(stores: list[tuple[TokenStore, float]]) -> list[tuple[TokenStore, float]]:
    """Those that have a validation split; says which have none, where others have."""
    has_any = [len(store.split("validation").tokens) > 0 for store, _ in stores]
    for (store, _), has in zip(stores, has_any, strict=True):
        if any(has_any) and not has:
            log.warning("%s holds nothing out: it is not evaluated on", store.path)
    return [one for one, has in zip(stores, has_any, strict=True) if has]


def make_sampler(
    config: PretrainConfig, stores: list[tuple[TokenStore, float]], split: str, rows: int
) -> Sampler:
    """The sampler over one split of the stores, with global batches of `rows`."""
    tokenizer = stores[0][0].tokenizer
    return Sampler(
        [(store.split(split), weight) for store, weight in stores],
        length=config.data.length,
        layout=config.data.layout,
        batch_size=rows,
        seed=config.train.seed,
        cls_id=tokenizer.cls_id,
        sep_id=tokenizer.sep_id,
        pad_id=tokenizer.pad_id,
    )


def make_evaluate(
    program: Program, sampler: Sampler, mesh: Mesh, max_batches: int
) -> Callable[[Any], dict[str, float]]:
    """A function from parameters to metrics over a held-out split.

    Rows, masks and samples are the same at every call, and so comparable. Every row
    counts once; empty rows that fill up the last batch count nothing.
    """
    key = jax.random.key(0)

    def evaluate(params: Any) -> dict[str, float]:
        totals: dict[str, np.ndarray] = {}
        batches = global_batches(sampler.epoch, mesh, sampler.batch_size)
        for index, batch in enumerate(batches):
            if max_batches and index >= max_batches:
                break
            sums = jax.device_get(program.eval_step(params, batch, jax.random.fold_in(key, index)))
            for name, value in sums.items():
                totals[name] = totals.get(name, 0.0) + np.asarray(value, np.float64)
        return program.objective.summarise(totals)

    return evaluate


def pretrain(config: PretrainConfig, workdir: str | Path, *, compile_first: bool = False) -> None:
    """Pretrains into `workdir`, going on where an earlier run of the same config stopped.

    Args:
      config: of the run.
      workdir: its run directory.
      compile_first: compiles the training step before the clock starts, so that a time budget
        is spent on training alone.

    Raises:
      UsageError: the config, the store and the run directory do not fit together.
      Stopped: a signal stopped the run; it is saved.
    """
    workdir = Path(workdir)
    mesh = make_mesh(config.mesh)
    check_batch(mesh, config.train.batch_size, config.train.accumulate)
    check_batch(mesh, config.eval.batch_size, field="eval.batch_size")

    # Store: what is learnt from.
    stores = open_stores(config.data.store)
    tokenizer = stores[0][0].tokenizer
    config = resolve(config, tokenizer.vocab_size)
    sampler = make_sampler(config, stores, "train", config.train.batch_size)
    identity = "+".join(store.identity for store, _ in stores)
    check_shared(workdir)
    checkpoints = Checkpoints(workdir, config.checkpoint.keep)
    latest = checkpoints.record()
    if latest is not None:
        check_resume(read_config(workdir), config, latest, identity)
        if latest["store"] == IMPORTED:
            check_imported(workdir, tokenizer)
    elif config.optimizer.frozen and not config.init.from_:
        raise UsageError(
            f"optimizer.frozen={config.optimizer.frozen!r} would keep fresh parameters random: "
            "give --config.init.from=DIR, the model to start from"
        )
    barrier("the run directory is read")
    if is_main():
        save_config(config, workdir)
        tokenizer.save(workdir / "tokenizer")

    # State: what is learnt.
    program = build_program(config, mesh, tokenizer)
    run_key = random_key(config.train.seed, replicated(mesh))
    restored = checkpoints.restore_latest(program.state)
    if restored is None:
        state, elapsed = program.create(run_key), 0.0
        if config.init.from_:
            source = load(config.init.from_)
            params = warm_start(config, tokenizer, fetch(state.params), source)
            shardings = jax.tree.map(lambda x: x.sharding, program.state.params)
            state = state.replace(params=distribute(params, shardings))
    else:
        state, elapsed = restored.state, restored.record["elapsed"]

    # Loop: the learning.
    flops = sum(flops_per_token(config).values())
    announce(config, workdir, mesh, sampler, state.params, flops, int(state.step))
    evaluate = None
    judging = held_out_stores(stores)
    if judging:
        held_out = make_sampler(config, judging, "validation", config.eval.batch_size)
        evaluate = make_evaluate(program, held_out, mesh, config.eval.max_batches)
    else:
        log.warning("no validation split: nothing is held out, the best checkpoint is the last")

    train_step = program.train_step
    if compile_first:
        share = jax.ShapeDtypeStruct((), jnp.float32, sharding=run_key.sharding)
        train_step = train_step.lower(program.state, program.batch, run_key, share).compile()
    writer = MetricsWriter(workdir, int(state.step)) if is_main() else None
    loop = Loop(
        config=config.train,
        eval_every=config.eval.every_steps,
        save_every=config.checkpoint.every_steps,
        train_step=train_step,
        batches=lambda step: global_batches(
            functools.partial(sampler.batches, step), mesh, config.train.batch_size
        ),
        evaluate=evaluate,
        summarise=program.objective.summarise,
        tokens_per_step=config.train.batch_size * config.data.length,
        flops_per_token=flops,
        peak_flops=peak_flops(mesh.devices.ravel()),
        checkpoints=checkpoints,
        writer=writer,
        record={"store": identity, "config": config_fields(config)},
        clock=Clock(elapsed),
        stall_seconds=config.processes.stall_seconds,
    )
    loop.run(state, run_key)


def run_facts(config: PretrainConfig) -> dict[str, Any]:
    """What all processes of a run must have in common, by name (see `parallel.roll_call`)."""
    stores = open_stores(config.data.store)
    return {
        **code_facts(),
        "the token store": "+".join(store.identity for store, _ in stores),
        **dict(flatten(config_fields(config), "--config.")),
    }


def announce(config, workdir, mesh, sampler, params, flops, step) -> None:
    """Says what is about to run, and how often it will read the text."""
    devices = mesh.devices.ravel()
    tokens = config.train.batch_size * config.data.length
    epoch_steps = sampler.rows / config.train.batch_size
    lines = {
        "devices": f"{len(devices)} x {devices[0].device_kind}, mesh {dict(mesh.shape)}",
        "parameters": f"{count_params(params):,} "
        f"(generator {count_params(params.get('generator', {})):,} of them)",
        "a step": f"{tokens:,} tokens, {flops / 1e6:,.1f} MFLOP per token",
        "text": f"{sampler.tokens_per_epoch:,} tokens, an epoch is {epoch_steps:,.0f} steps, "
        f"{sampler.padding_share:.1%} padding",
        "run": f"{workdir} (from step {step:,})",
    }
    for name, text in lines.items():
        log.info("%-11s %s", name, text)
    if config.train.budget_seconds:
        log.info("%-11s %s, by the clock", "length", config.train.time_budget)
        return
    epochs = config.train.steps / epoch_steps
    log.info("%-11s %s steps, %.3g epochs", "length", f"{config.train.steps:,}", epochs)
    if epochs > MANY_EPOCHS:
        log.warning(
            "this run reads its text %.0f times over; more text or fewer steps would do better",
            math.ceil(epochs),
        )


def check_resume(old: PretrainConfig, new: PretrainConfig, record: dict, identity: str) -> None:
    """Refuses to go on with a run that would not be the same run.

    The mesh, and the intervals of logs, evaluations and saves may change; so may the
    number of steps where the schedule up to here does not depend on it. Of an imported
    model all may change that does not change the shape of its state.

    Raises:
      UsageError: names the first field that differs.
    """
    imported = record["store"] == IMPORTED
    if imported:
        kind, instead = "an imported model", "start a new run from it with --config.init.from=DIR"
    else:
        kind, instead = "a run", "choose another --workdir"
    free: tuple[str, ...] = (
        "mesh.",
        "processes.",
        "eval.",
        "checkpoint.",
        "train.log_every",
        "data.store",  # moved, perhaps: what it holds is compared below
        "model.attention",
    )
    if new.optimizer.schedule == "constant":
        free += ("train.steps",)
    before = dict(flatten(config_fields(old)))
    for name, value in flatten(config_fields(new)):
        bound = name.startswith(STATE_FIELDS) if imported else not name.startswith(free)
        if bound and before[name] != value:
            raise UsageError(
                f"the run directory holds {kind} with {name}={before[name]!r}, not {value!r}: "
                f"go on with that value, or {instead}"
            )
    if imported:
        return
    if record["store"] != identity:
        raise UsageError(
            "the run directory holds a run on another token store: go on with that one, or "
            "choose another --workdir"
        )
    if not np.array_equal(store_turns(old.data.store), store_turns(new.data.store)):
        raise UsageError(
            f"the run directory holds a run with data.store={old.data.store!r}, whose weights "
            "are others: go on with those, or choose another --workdir"
        )


def check_imported(workdir: Path, tokenizer: Tokenizer) -> None:
    """Refuses to go on from an imported model with text of another tokenizer.

    Raises:
      UsageError: its tokenizer is not the token store's.
    """
    if load_tokenizer(workdir / "tokenizer").identity != tokenizer.identity:
        raise UsageError(
            "the run directory holds an imported model with another tokenizer than the token "
            f"store's: prepare its text with --tokenizer {workdir / 'tokenizer'}, or start a new "
            "run from it with --config.init.from=DIR"
        )
