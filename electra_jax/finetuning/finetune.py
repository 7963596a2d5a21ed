"""The fine-tuning run, told in order: encoder, data, state, loop, answers."""

import contextlib
import dataclasses
import functools
import json
import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from electra_jax.config import (
    CONFIG_FILE,
    FinetuneConfig,
    config_fields,
    find_task,
    flatten,
    read_any_config,
    save_config,
    write_json,
)
from electra_jax.data.collection import SCHEME
from electra_jax.data.examples import Batches, count_full
from electra_jax.errors import UsageError
from electra_jax.inference.encoder import Encoder, run_examples
from electra_jax.inference.finetuned import (
    TASK_FILE,
    init_head,
    load,
    load_finetuned,
    read_task,
    save_task,
    spread,
)
from electra_jax.models.electra import count_params
from electra_jax.models.flops import encoder_flops_per_token
from electra_jax.models.heads import EncoderWithHead
from electra_jax.parallel.hardware import peak_flops
from electra_jax.parallel.mesh import check_batch, make_mesh, replicated, under
from electra_jax.parallel.rendezvous import code_facts
from electra_jax.parallel.runtime import (
    barrier,
    check_shared,
    distribute,
    from_main,
    global_batches,
    is_main,
    random_key,
)
from electra_jax.pretraining.program import PARTITION, abstract_state, check_heads
from electra_jax.tasks.task import Task
from electra_jax.training.checkpoint import Checkpoints
from electra_jax.training.loop import Clock, Loop, TrainConfig
from electra_jax.training.metrics import MetricsWriter, read_metrics
from electra_jax.training.optimizer import make_optimizer
from electra_jax.training.state import TrainState
from electra_jax.training.step import make_train_step

log = logging.getLogger(__name__)

RESULTS_FILE = "results.json"
DATA_FILE = "data.json"  # the sizes of the files that a run learns from
PREDICTIONS = "predictions"
# A head is small; only the encoder is cut up.
RULES = ((r"(^|/)head/", PartitionSpec()), *PARTITION)


class Records(NamedTuple):
    """The labelled records of a run, as its task has parsed them; None for no test data."""

    train: list
    validation: list
    test: list | None


@dataclasses.dataclass(frozen=True)
class TaskObjective:
    """A task as the training step knows it (see `electra_jax.objectives`)."""

    task: Task
    network: EncoderWithHead
    weight: float  # of the mean loss

    def prepare(self, batch: Mapping[str, jax.Array], key: jax.Array) -> dict[str, jax.Array]:
        return dict(batch)

    def counts(self, prepared: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        return {"task": self.task.count(prepared)}

    def losses(self, params, prepared, key, step, train):
        rngs = {"dropout": key} if train else None
        outputs = self.network.apply({"params": params}, prepared, train, rngs=rngs)
        loss = self.task.loss(outputs, prepared)
        return {"task": loss}, {"loss": loss, "count": self.task.count(prepared)}

    def weights(self, step: jax.Array) -> dict[str, Any]:
        return {"task": self.weight}

    def summarise(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        return {"loss": float(sums["loss"]) / max(float(sums["count"]), 1.0)}


def layer_scale(decay: float, layers: int) -> Callable[[str], float]:
    """By path, the share of the learning rate: the head's 1, less the deeper a layer lies.

    As in the official code, whose top layer has the exponent 2 and whose embeddings n + 2.
    """

    def scale(path: str) -> float:
        parts = path.split("/")
        if "head" in parts:
            return 1.0
        for part in parts:
            if part.startswith("layer_"):
                return decay ** (layers + 1 - int(part.removeprefix("layer_")))
        return decay**2 if "final_norm" in parts else decay ** (layers + 2)

    return scale


def finetune(config: FinetuneConfig, workdir: str | Path) -> dict[str, Any]:
    """Fine-tunes into `workdir`, going on where an earlier run of the same config stopped.

    Returns:
      What RESULTS_FILE holds: the figures of the best checkpoint and of trivial answers.

    Raises:
      UsageError: the config, the model, the data and the run directory do not fit together.
      Stopped: a signal stopped the run; it is saved.
    """
    workdir = Path(workdir)
    mesh = make_mesh(config.mesh)
    check_batch(mesh, config.train.batch_size, config.train.accumulate)
    check_batch(mesh, config.train.eval_batch_size, field="train.eval_batch_size")

    # Encoder: what is fine-tuned.
    encoder = starting_encoder(config)
    check_shared(workdir)
    if from_main((workdir / TASK_FILE).exists()):
        check_resume(read_any_config(workdir), config, workdir)
        task, _ = read_task(config, workdir)
    else:
        check_unused(workdir)
        task = find_task(config.task.name)(config.task, encoder.tokenizer)
    if task.whole_batch and config.train.accumulate > 1:
        raise UsageError(
            f"the rows of a batch are each other's wrong answers in {task.name}: "
            "train.accumulate must be 1"
        )

    # Data: what it learns from, and is judged by.
    train, validation = task.read_splits(config.train.seed)
    test = task.read(config.task.test, labelled=False) if config.task.test else None
    records = Records(train, validation, test)
    length = config.train.length
    examples = task.examples(train, length, True, True)
    held_out = task.examples(validation, length, True, False)
    trivial = task.score(task.trivial(train, validation), validation)
    if task.metric not in trivial:
        raise UsageError(
            f"task.metric={task.metric} cannot be had of this data; there are {', '.join(trivial)}"
        )
    pad_id = encoder.tokenizer.pad_id
    batches = Batches(examples, config.train.batch_size, pad_id, config.train.seed)
    steps = max(1, round(config.train.epochs * batches.steps_per_epoch))
    barrier("the run directory is read")
    if is_main():
        (workdir / RESULTS_FILE).unlink(missing_ok=True)  # of the same run without its test data
        encoder.tokenizer.save(workdir / "tokenizer")
        save_config(config, workdir)
        write_json(workdir / DATA_FILE, data_sizes(config))
        save_task(task, encoder.model, workdir)

    # State: what is learnt.
    network = EncoderWithHead(encoder.model, task.head(encoder.model))
    objective = TaskObjective(
        task, network, float(config.train.batch_size) if config.train.summed_loss else 1.0
    )
    warmup = max(1, round(config.train.warmup_share * steps))
    optimizer = make_optimizer(
        dataclasses.replace(config.optimizer, warmup_steps=warmup),
        layer_scale(config.train.layer_decay, encoder.model.layers),
    )
    run_key = random_key(config.train.seed, replicated(mesh))
    create = functools.partial(create_state, network, task, optimizer)
    check_heads(encoder.model, mesh)
    abstract = abstract_state(create, RULES, mesh)
    shardings = jax.tree.map(lambda x: x.sharding, abstract)
    checkpoints = Checkpoints(workdir, config.checkpoint.keep, task.metric, maximise=True)
    restored = checkpoints.restore_latest(abstract)
    if restored is None:
        state, elapsed = jax.jit(create, out_shardings=shardings)(run_key), 0.0
        if not config.init.fresh:
            start = distribute(encoder.params, {n: shardings.params[n] for n in encoder.params})
            state = state.replace(params={**state.params, **start})
    else:
        state, elapsed = restored.state, restored.record["elapsed"]

    # Loop: the learning.
    announce(config, task, encoder, records, batches, count_full(examples, length), steps, workdir)
    judge = make_judge(objective, Batches(held_out, config.train.eval_batch_size, pad_id), mesh)

    def evaluate(params: Any) -> dict[str, float]:
        outputs, loss = judge(params)
        if not math.isfinite(loss):
            return {"loss": loss}
        figures = task.score(task.answers(outputs, held_out, validation), validation)
        return {"loss": loss, **figures} if task.held_out_loss else figures

    writer = MetricsWriter(workdir, int(state.step)) if is_main() else None
    tokens = batches.tokens_per_step
    loop = Loop(
        config=TrainConfig(
            steps=steps,
            batch_size=config.train.batch_size,
            accumulate=config.train.accumulate,
            log_every=config.train.log_every,
            seed=config.train.seed,
        ),
        eval_every=max(1, round(batches.steps_per_epoch / config.train.evaluations)),
        save_every=config.checkpoint.every_steps,
        train_step=jax.jit(
            under(mesh, make_train_step(objective, optimizer, config.train.accumulate)),
            donate_argnums=0,
            out_shardings=shardings,
        ),
        batches=lambda step: global_batches(
            functools.partial(batches.training, step), mesh, config.train.batch_size
        ),
        evaluate=evaluate,
        summarise=objective.summarise,
        tokens_per_step=tokens,
        flops_per_token=3 * encoder_flops_per_token(encoder.model, length),
        peak_flops=peak_flops(mesh.devices.ravel()),
        checkpoints=checkpoints,
        writer=writer,
        record={"config": config_fields(config)},
        clock=Clock(elapsed),
        enough=lambda: is_main() and is_enough(workdir, task.metric, config.train.patience),
        stall_seconds=config.processes.stall_seconds,
    )
    loop.run(state, run_key)
    return report(config, task, workdir, records, trivial)


def check_unused(workdir: Path) -> None:
    """Refuses a directory that holds a model which is no fine-tuning run.

    Raises:
      UsageError: it does.
    """
    if not (workdir / CONFIG_FILE).exists():
        return
    with contextlib.suppress(UsageError):
        if isinstance(read_any_config(workdir), FinetuneConfig):
            return  # stopped before it had begun
    raise UsageError(f"{workdir} holds another model: choose another --workdir")


def starting_encoder(config: FinetuneConfig) -> Encoder:
    """The encoder that `init.from` names, with the run's dropout.

    Raises:
      UsageError: it names none, or one whose rows are too short.
    """
    if not config.init.from_:
        raise UsageError(
            "init.from is empty: give --config.init.from=MODEL, a run directory or a Hugging "
            "Face one (and --config.init.fresh=true for its shape alone)"
        )
    encoder = load(config.init.from_, config.init.checkpoint).encoder
    model = dataclasses.replace(
        encoder.model, dropout=config.train.dropout, attention_dropout=config.train.dropout
    )
    if not model.block.rotary and config.train.length > model.max_positions:
        raise UsageError(
            f"train.length={config.train.length} exceeds the {model.max_positions} positions of "
            f"{config.init.from_}"
        )
    if config.train.length > encoder.length:
        log.warning(
            "rows of up to %d tokens are longer than the %d that the encoder was trained on%s",
            config.train.length, encoder.length,
            "" if model.block.rotary else ": the positions beyond are still random",
        )  # fmt: skip
    return encoder._replace(model=model)


def create_state(network: EncoderWithHead, task: Task, optimizer, key: jax.Array) -> TrainState:
    """A fresh state; to be jitted or evaluated for its shapes."""
    zero = jnp.zeros(())
    return TrainState.create(
        init_head(network, task, key), optimizer, {"loss": zero, "count": zero}
    )


def make_judge(objective: TaskObjective, batches: Batches, mesh: Mesh):
    """A function from parameters to the outputs for each held-out example and the mean loss."""

    def outputs_and_loss(params, batch):
        outputs = objective.network.apply({"params": params}, batch)
        return outputs, objective.task.loss(outputs, batch), objective.task.count(batch)

    step = jax.jit(under(mesh, outputs_and_loss))

    def judge(params: Any) -> tuple[list, float]:
        outputs: list[Any] = [None] * batches.size
        total = count = 0.0
        for (output, loss, terms), numbers in run_examples(step, params, batches, mesh):
            spread(output, numbers, outputs)
            total, count = total + float(loss), count + float(terms)
        return outputs, total / max(count, 1.0)

    return judge


def is_enough(workdir: Path, metric: str, patience: int) -> bool:
    """Whether the last `patience` evaluations brought no gain (0: never)."""
    history = [line[f"eval/{metric}"] for line in read_metrics(workdir) if f"eval/{metric}" in line]
    values = [-math.inf if value is None else value for value in history]
    return (
        bool(patience)
        and len(values) > patience
        and (max(values[-patience:]) <= max(values[:-patience]))
    )


def report(
    config: FinetuneConfig, task: Task, workdir: Path, records: Records, trivial: dict[str, float]
) -> dict[str, Any]:
    """Figures and answers of the best checkpoint, beside trivial ones, written and returned."""
    train, validation, test = records
    model = load_finetuned(workdir)
    answers = model.task.calibrate(model.answer(validation), validation)
    folder = workdir / PREDICTIONS
    if is_main():
        save_task(model.task, model.model, workdir)
        folder.mkdir(exist_ok=True)
        task.write(answers, validation, folder / f"validation{task.suffix}")
    results: dict[str, Any] = {
        "step": model.step,
        "metric": task.metric,
        "metrics": task.score(answers, validation),
        "trivial": trivial,
        "rows": {"train": len(train), "validation": len(validation)},
    }
    if test is not None:
        answers = model.answer(test)
        if is_main():
            task.write(answers, test, folder / f"test{task.suffix}")
        results["rows"]["test"] = len(test)
    if is_main():
        write_json(workdir / RESULTS_FILE, results)
    return results


def run_facts(config: FinetuneConfig) -> dict[str, Any]:
    """What all processes of a run must have in common (see `parallel.roll_call`)."""
    sizes = {**file_sizes(config.task.test), **data_sizes(config)}
    return {
        **code_facts(),
        **{f"the size of {name}": size for name, size in sizes.items()},
        **dict(flatten(config_fields(config), "--config.")),
    }


def data_sizes(config: FinetuneConfig) -> dict[str, int]:
    """The size of each file of training and validation data, in bytes."""
    return file_sizes(f"{config.task.train},{config.task.validation}")


def file_sizes(sources: str) -> dict[str, int]:
    """The size of each of the sources that is a file or a folder (see `data.labelled`)."""
    sizes = {}
    for source in filter(None, map(str.strip, sources.split(","))):
        # FORMAT:PATH, a path alone, or beir:DIR[:SPLIT].
        address = source.partition(":")[2] or source
        files = [Path(address).expanduser()]
        if source.startswith(SCHEME):
            files = list(Path(address.partition(":")[0]).expanduser().rglob("*"))
        found = [file.stat().st_size for file in files if file.is_file()]
        if found:
            sizes[source] = sum(found)
    return sizes


def announce(
    config: FinetuneConfig, task: Task, encoder: Encoder, records: Records, batches: Batches,
    full: int, steps: int, workdir: Path,
) -> None:  # fmt: skip
    """Says what is about to run."""
    labels = task.state.get("labels")
    start = f"{config.init.from_}{' (its shape alone, fresh)' if config.init.fresh else ''}"
    lines = {
        "task": f"{task.name}, best by {task.metric}"
        + (f", {len(labels)} labels" if labels else ""),
        "encoder": f"{start}, {count_params(encoder.params):,} parameters",
        "rows": f"{len(records.train):,} to train, {len(records.validation):,} to validate",
        "a step": f"{config.train.batch_size} rows, {batches.tokens_per_step:,.0f} tokens",
        "run": f"{workdir}, {steps:,} steps",
    }
    if full:
        lines["long rows"] = (
            f"{full:,} of {batches.size:,} fill train.length={config.train.length}: "
            "they are cut, or go on in further rows"
        )
    for name, text in lines.items():
        log.info("%-11s %s", name, text)


def check_resume(old: Any, new: FinetuneConfig, workdir: Path) -> None:
    """Refuses to go on with a run that would not be the same run.

    Raises:
      UsageError: names the first field, or the file, that differs.
    """
    free = (
        "mesh.",
        "processes.",
        "checkpoint.",
        "train.log_every",
        "train.eval_batch_size",
        "task.test",
    )
    before = dict(flatten(config_fields(old)))
    for name, value in flatten(config_fields(new)):
        if before.get(name) != value and not name.startswith(free):
            raise UsageError(
                f"the run directory holds a run with {name}={before.get(name)!r}, not {value!r}: "
                "go on with that value, or choose another --workdir"
            )
    file = workdir / DATA_FILE
    begun = json.loads(file.read_text("utf-8")) if file.exists() else {}
    for name, size in data_sizes(new).items():
        if begun.get(name, size) != size:
            raise UsageError(
                f"{name} has {size:,} bytes, and had {begun[name]:,} when {workdir} was begun: "
                "choose another --workdir"
            )
