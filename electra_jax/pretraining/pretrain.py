"""The pretraining run, told in order: text, state, loop."""

import dataclasses
import functools
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from electra_jax.config import PretrainConfig, config_fields
from electra_jax.config_files import flatten_fields
from electra_jax.data.minimal_pairs import read_minimal_pairs
from electra_jax.data.mixture import Mixture
from electra_jax.data.sampler import Sampler, absolute_stores
from electra_jax.data.tokenizer import Tokenizer
from electra_jax.data.verification import Verification
from electra_jax.errors import UsageError
from electra_jax.inference.pretrained import load_pretrained
from electra_jax.inference.scoring import PairSet, make_score
from electra_jax.models.electra import count_params
from electra_jax.objectives import find_objective
from electra_jax.objectives.objective import Objective
from electra_jax.parallel.hardware import peak_flops
from electra_jax.parallel.mesh import check_batch, make_mesh, replicated
from electra_jax.parallel.runtime import (
    barrier,
    global_batches,
    is_main,
    random_key,
    to_devices,
    to_host,
    writing_alone,
)
from electra_jax.pretraining.health import run_monitor
from electra_jax.pretraining.program import batch_shapes, flops_per_token, pretraining_program
from electra_jax.pretraining.resume import check_resume
from electra_jax.pretraining.warm_start import warm_start
from electra_jax.run_directory import TOKENIZER, begun_config, save_config
from electra_jax.system.failures import telling_memory_of
from electra_jax.system.progress import Progress, stage
from electra_jax.training.checkpoint import Checkpoints
from electra_jax.training.loop import Clock, Listener, Loop
from electra_jax.training.metrics import MetricsWriter
from electra_jax.training.optimizer import learning_rates
from electra_jax.training.profile import Profiler, parse_steps
from electra_jax.training.program import COMPILING, Program, compile_step, first_state, start
from electra_jax.training.state import TrainState
from electra_jax.training.trackers import check_trackers

log = logging.getLogger(__name__)

# The held-out metrics that the terminal shows.
HEADLINE = ("generator_accuracy", "discriminator_auc", "accuracy", "minimal_pairs")
MANY_EPOCHS = 10  # from here on a run is warned that it reads its text over and over


def pretrain(
    config: PretrainConfig,
    workdir: str | Path,
    *,
    compile_first: bool = False,
    listener: Listener | None = None,
) -> None:
    """Pretrains into `workdir`, or resumes where an earlier run of the same config stopped.

    Args:
      config: of the run.
      workdir: its run directory.
      compile_first: compiles the training step before the clock starts, so that a time budget
        is spent on training alone.
      listener: called with each line of the log.

    Raises:
      UsageError: the config, the store and the run directory do not fit together.
      Stopped: a signal stopped the run; it is saved.
    """
    workdir = Path(workdir)
    mesh = make_mesh(config.mesh)
    check_batch(mesh, config.train.batch_size, config.train.accumulate)
    check_batch(mesh, config.eval.batch_size, field="eval.batch_size")
    check_trackers(config.train.trackers)

    with stage("opening the text"):
        config, text = open_text(config)
    memory = telling_memory_of(config.train.batch_size, config.train.accumulate)
    with writing_alone(workdir), memory, text.verification:
        train(config, workdir, mesh, text, compile_first, listener)


class Text(NamedTuple):
    """What a run learns from.

    Attributes:
      mixture: its token stores.
      verification: of the stores, which this process reads.
      sampler: the training rows, in their order.
      pairs: sentence pairs that are scored beside, if there are any.
    """

    mixture: Mixture
    verification: Verification
    sampler: Sampler
    pairs: PairSet | None


def open_text(config: PretrainConfig) -> tuple[PretrainConfig, Text]:
    """Opens the text of a run; returns its config with the vocabulary size filled in, too.

    Raises:
      UsageError: a store is missing, damaged or does not fit the config.
    """
    mixture = Mixture.open(config.data.store)
    # One process reads them: where others have copies of their own, `electra-jax verify` does.
    verification = Verification(mixture.stores if is_main() else ())
    config = resolve_vocabulary(config, mixture.tokenizer.vocab_size)
    # The run may be used from another folder.
    data = dataclasses.replace(config.data, store=absolute_stores(config.data.store))
    config = dataclasses.replace(config, data=data)
    sampler = mixture.sampler("train", config.data, config.train.batch_size, config.train.seed)
    pairs = held_out_pairs(config, mixture.tokenizer)
    return config, Text(mixture, verification, sampler, pairs)


def train(
    config: PretrainConfig,
    workdir: Path,
    mesh: Mesh,
    text: Text,
    compile_first: bool,
    listener: Listener | None,
) -> None:
    """The run, in a directory that no other process writes to."""
    mixture, sampler = text.mixture, text.sampler
    checkpoints = open_workdir(config, workdir, mixture)

    # State: what is learnt.
    program = pretraining_program(config, mesh, mixture.tokenizer, mixture.unigram_entropy)
    run_key = random_key(config.train.seed, replicated(mesh))
    init = functools.partial(from_model, config, mixture.tokenizer) if config.init.from_ else None
    with stage("making the first state, or restoring a checkpoint"):
        state, elapsed = start(program, checkpoints, run_key, init)
    flops = sum(flops_per_token(config).values())
    announce(config, workdir, program, sampler, state, flops)
    train_step = program.train_step
    if compile_first:
        train_step = compile_step(program, batch_shapes(config, mesh))

    # Loop: the learning.
    loop = Loop(
        steps=config.train.steps,
        budget_seconds=config.train.budget_seconds,
        log_every=config.train.log_every,
        eval_every=config.eval.every_steps,
        save_every=config.checkpoint.every_steps,
        train_step=train_step,
        batches=lambda step: global_batches(
            functools.partial(sampler.batches, step), mesh, config.train.batch_size
        ),
        evaluate=held_out_evaluation(config, program, mixture, text.pairs),
        summarise=program.objective.summarise,
        tokens_per_step=config.train.batch_size * config.data.length,
        flops_per_token=flops,
        peak_flops=peak_flops(mesh.devices.ravel()),
        checkpoints=checkpoints,
        writer=MetricsWriter(
            workdir,
            int(state.step),
            config.train.trackers,
            dict(flatten_fields(config_fields(config))),
        )
        if is_main()
        else None,
        record={
            "store": mixture.identity,
            "tokenizer": mixture.tokenizer.identity,
            "config": config_fields(config),
        },
        clock=Clock(elapsed),
        stall_seconds=config.processes.stall_seconds,
        learning_rates=functools.partial(learning_rates, config.optimizer),
        profiler=Profiler(workdir, parse_steps(config.train.profile)),
        first_state=functools.partial(first_state, program, run_key, init),
        may_skip=config.train.skip_non_finite,
        monitor=run_monitor(config, program, workdir, int(state.step)),
        checks=text.verification.check,
        listener=listener,
        headline=HEADLINE,
    )
    loop.run(state, run_key)


def open_workdir(config: PretrainConfig, workdir: Path, mixture: Mixture) -> Checkpoints:
    """Opens the directory of a run, new or resumed, and writes what it holds from the start.

    Raises:
      UsageError: the directory holds another run.
    """
    checkpoints = Checkpoints(workdir, config.checkpoint.keep)
    record = checkpoints.record()
    if record is not None:
        check_resume(begun_config(workdir, record), config, record, mixture, workdir)
    else:
        check_frozen(config)
    barrier("the run directory is read")
    if is_main():
        save_config(config, workdir)
        mixture.tokenizer.save(workdir / TOKENIZER)
    return checkpoints


def resolve_vocabulary(config: PretrainConfig, vocab_size: int) -> PretrainConfig:
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


def check_frozen(config: PretrainConfig) -> None:
    """Refuses to freeze parameters that were never trained.

    Raises:
      UsageError: some are frozen, and there is no model to start from.
    """
    if config.optimizer.frozen and not config.init.from_:
        raise UsageError(
            f"optimizer.frozen={config.optimizer.frozen!r} would keep fresh parameters random: "
            "give --config.init.from=DIR, the model to start from"
        )


def from_model(config: PretrainConfig, tokenizer: Tokenizer, state: TrainState) -> TrainState:
    """A fresh state with the parameters of the model that `init.from` names."""
    source = load_pretrained(config.init.from_)
    params = warm_start(config, tokenizer, to_host(state.params), source)
    shardings = jax.tree.map(lambda x: x.sharding, state.params)
    return state.replace(params=to_devices(params, shardings))


def held_out_pairs(config: PretrainConfig, tokenizer: Tokenizer) -> PairSet | None:
    """The minimal pairs that a run is to score; None if it names none.

    Raises:
      UsageError: they cannot be read, do not fit into the rows of the run, or its objective scores
        no sentences.
    """
    if not config.eval.minimal_pairs:
        return None
    if not find_objective(config.objective.name).scores():
        raise UsageError(
            f"eval.minimal_pairs: objective.name={config.objective.name} does not score sentences: "
            "leave the field empty"
        )
    pairs = read_minimal_pairs(config.eval.minimal_pairs, config.eval.minimal_pairs_per_paradigm)
    return PairSet.encode(pairs, tokenizer, config.data.length - 2, config.eval.batch_size)


def held_out_evaluation(
    config: PretrainConfig, program: Program, mixture: Mixture, pairs: PairSet | None
) -> Callable[[Any], dict[str, float]] | None:
    """The evaluation of a run: metrics on held-out text, and the accuracy on minimal pairs.

    Warns if its stores hold nothing out; None if there are no pairs either.
    """
    evaluations: list[Callable[[Any], dict[str, float]]] = []
    held_out = mixture.held_out()
    if held_out is None:
        log.warning("no validation split: nothing is held out, the best checkpoint is the last")
    else:
        rows = config.eval.batch_size
        sampler = held_out.sampler("validation", config.data, rows, config.train.seed)
        evaluations.append(make_evaluate(program, sampler, config.eval.max_batches))
    if pairs is not None:
        assert isinstance(program.objective, Objective)
        score = make_score(program.objective, program.mesh)
        evaluations.append(lambda params: pairs.accuracy(score(params, pairs.sentences)).metrics)
    if not evaluations:
        return None
    return lambda params: {
        name: value for evaluate in evaluations for name, value in evaluate(params).items()
    }


def make_evaluate(
    program: Program, sampler: Sampler, max_batches: int, progress: bool = False
) -> Callable[[Any], dict[str, float]]:
    """A function from parameters to metrics over a held-out split.

    Rows, masks and samples are the same at every call, and so comparable. Every row
    counts once; empty rows that fill up the last batch count nothing.
    """
    key = jax.random.key(0)

    def evaluate(params: Any) -> dict[str, float]:
        totals: dict[str, np.ndarray] = {}
        count = math.ceil(sampler.rows / sampler.batch_size)
        count = min(count, max_batches or count)
        batches = global_batches(sampler.epoch, program.mesh, sampler.batch_size)
        with Progress(count, unit="batches", label="evaluating", shown=progress) as bar:
            for index, batch in zip(range(count), batches, strict=False):
                step_key = jax.random.fold_in(key, index)
                sums = jax.device_get(program.eval_step(params, batch, step_key))
                for name, value in sums.items():
                    totals[name] = totals.get(name, 0.0) + np.asarray(value, np.float64)
                bar.add(1)
        return program.objective.summarise(totals)

    return evaluate


def announce(
    config: PretrainConfig, workdir: Path, program: Program, sampler: Sampler, state: TrainState,
    flops: float,
) -> None:  # fmt: skip
    """Logs what is about to run, and how often it will read the text."""
    mesh, params = program.mesh, state.params
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
        "run": f"{workdir} (from step {int(state.step):,})",
    }
    for name, text in lines.items():
        log.info("%-11s %s", name, text)
    log.info("%-11s %s", "compiling", COMPILING)
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
