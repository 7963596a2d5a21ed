"""The fine-tuning run, told in order: encoder, data, state, loop, answers."""

import dataclasses
import functools
import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from electra_jax.config import FinetuneConfig, config_fields
from electra_jax.config_files import flatten_fields
from electra_jax.data.examples import Batches, Example, count_full
from electra_jax.errors import UsageError
from electra_jax.finetuning.linear import LINEAR, linear_metrics
from electra_jax.finetuning.objective import (
    TaskObjective,
    create_state,
    layer_scale,
    make_judge,
    run_optimizer,
)
from electra_jax.finetuning.resume import check_resume, check_unused, describe_data
from electra_jax.inference.encoder import PretrainedEncoder
from electra_jax.inference.finetuned import load, load_finetuned, read_task, save_task
from electra_jax.models.electra import count_params
from electra_jax.models.flops import encoder_flops_per_token
from electra_jax.models.heads import EncoderWithHead
from electra_jax.parallel.hardware import peak_flops
from electra_jax.parallel.mesh import check_batch, make_mesh, replicated
from electra_jax.parallel.runtime import (
    barrier,
    broadcast_from_main,
    global_batches,
    is_main,
    random_key,
    to_devices,
    writing_alone,
)
from electra_jax.placement import FINETUNING, check_heads
from electra_jax.run_directory import (
    BASELINE,
    DATA_FILE,
    PREDICTIONS,
    RESULTS_FILE,
    TASK_FILE,
    TOKENIZER,
    begun_config,
    save_config,
)
from electra_jax.system.atomic_files import atomic_path, write_json
from electra_jax.system.failures import telling_memory_of
from electra_jax.system.progress import stage
from electra_jax.tasks import find_task
from electra_jax.tasks.task import Task
from electra_jax.training.checkpoint import Checkpoints, latest_record
from electra_jax.training.loop import Clock, Listener, Loop
from electra_jax.training.metrics import MetricsWriter, read_metrics
from electra_jax.training.optimizer import learning_rates, make_optimizer
from electra_jax.training.profile import Profiler, parse_steps
from electra_jax.training.program import COMPILING, Program, build_program, first_state, start
from electra_jax.training.state import TrainState
from electra_jax.training.trackers import check_trackers

log = logging.getLogger(__name__)

EPOCHS, FEWEST_STEPS = 3.0, 500  # if the config names no epochs


class Records(NamedTuple):
    """The labelled records of a run, as its task has parsed them; None for no test data."""

    train: list
    validation: list
    test: list | None


class Data(NamedTuple):
    """The rows of a run, and the metrics of its baseline.

    Attributes:
      records: of the task.
      batches: the training rows, in their order.
      held_out: the validation records as padded rows.
      baseline: the metrics of the task's baseline.
      full: how many training rows fill `train.length`, and are perhaps cut.
      steps: of the whole run.
    """

    records: Records
    batches: Batches
    held_out: list[Example]
    baseline: dict[str, float]
    full: int
    steps: int


def finetune(
    config: FinetuneConfig, workdir: str | Path, *, listener: Listener | None = None
) -> dict[str, Any]:
    """Fine-tunes into `workdir`, or resumes where an earlier run of the same config stopped.

    Args:
      config: of the run.
      workdir: its run directory.
      listener: called with each line of the log.

    Returns:
      What RESULTS_FILE holds: the metrics of the best checkpoint and of the baseline.

    Raises:
      UsageError: the config, the model, the data and the run directory do not fit together.
      Stopped: a signal stopped the run; it is saved.
    """
    workdir = Path(workdir)
    mesh = make_mesh(config.mesh)
    check_batch(mesh, config.train.batch_size, config.train.accumulate)
    check_batch(mesh, config.train.eval_batch_size, field="train.eval_batch_size")
    check_trackers(config.train.trackers)

    # Encoder and data: what is fine-tuned, and on what.
    with stage("loading the encoder"):
        encoder = starting_encoder(config)
    with (
        writing_alone(workdir),
        telling_memory_of(config.train.batch_size, config.train.accumulate),
    ):
        return train(config, workdir, mesh, encoder, listener)


def train(
    config: FinetuneConfig,
    workdir: Path,
    mesh: Mesh,
    encoder: PretrainedEncoder,
    listener: Listener | None,
) -> dict[str, Any]:
    """The run, in a directory that no other process writes to; returns its results."""
    task = open_task(config, encoder, workdir)
    with stage("reading the data"):
        data = read_data(config, task)
    begin_workdir(config, encoder, task, workdir)

    # State: what is learnt.
    program = finetuning_program(config, encoder, task, data.steps, mesh)
    checkpoints = Checkpoints(workdir, config.checkpoint.keep, task.metric, maximise=True)
    run_key = random_key(config.train.seed, replicated(mesh))
    init = None if config.init.fresh else functools.partial(with_encoder, encoder)
    with stage("making the first state, or restoring a checkpoint"):
        state, elapsed = start(program, checkpoints, run_key, init)
    announce(config, task, encoder, data, workdir)

    # Loop: the learning.
    batches = data.batches
    loop = Loop(
        steps=data.steps,
        log_every=config.train.log_every,
        eval_every=evaluation_interval(
            data.steps, config.train.epochs or EPOCHS, config.train.evaluations
        ),
        save_every=config.checkpoint.every_steps,
        train_step=program.train_step,
        batches=lambda step: global_batches(
            functools.partial(batches.training, step), mesh, config.train.batch_size
        ),
        evaluate=held_out_evaluation(config, task, program, data),
        summarise=program.objective.summarise,
        tokens_per_step=batches.tokens_per_step,
        flops_per_token=3 * encoder_flops_per_token(encoder.model, config.train.length),
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
        record={"config": config_fields(config), "tokenizer": task.tokenizer.identity},
        clock=Clock(elapsed),
        enough=lambda: is_main() and is_enough(workdir, task.metric, config.train.patience),
        stall_seconds=config.processes.stall_seconds,
        learning_rates=functools.partial(
            learning_rates, run_optimizer(config, encoder.model, data.steps)
        ),
        profiler=Profiler(workdir, parse_steps(config.train.profile)),
        first_state=functools.partial(first_state, program, run_key, init),
        may_skip=config.train.skip_non_finite,
        listener=listener,
        headline=(task.metric, "loss"),
    )
    loop.run(state, run_key)
    return report(task, workdir, data, None if config.init.fresh else encoder)


def evaluation_interval(steps: int, epochs: float, evaluations: float) -> int:
    """Steps between evaluations; they are evenly spaced, and the last is at the end.

    Args:
      steps: of the run.
      epochs: of the run, or those that it would have if its rows were many.
      evaluations: in each of them.
    """
    return math.ceil(steps / min(steps, max(1, round(epochs * evaluations))))


def starting_encoder(config: FinetuneConfig) -> PretrainedEncoder:
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


def open_task(config: FinetuneConfig, encoder: PretrainedEncoder, workdir: Path) -> Task:
    """The task of a run: as it was begun, or a new one.

    Raises:
      UsageError: the directory holds another run, or something else.
    """
    if broadcast_from_main((workdir / TASK_FILE).exists()):
        check_resume(begun_config(workdir, latest_record(workdir) or {}), config, workdir)
        task, _ = read_task(config, workdir)
    else:
        check_unused(workdir)
        task = find_task(config.task.name)(config.task, encoder.tokenizer)
    if task.whole_batch and config.train.accumulate > 1:
        raise UsageError(
            f"the rows of a batch are each other's wrong answers in {task.name}: "
            "train.accumulate must be 1"
        )
    return task


def begin_workdir(
    config: FinetuneConfig, encoder: PretrainedEncoder, task: Task, workdir: Path
) -> None:
    """Writes what a run directory holds from the start, once all processes have read it."""
    barrier("the run directory is read")
    if is_main():
        (workdir / RESULTS_FILE).unlink(missing_ok=True)  # of the same run without its test data
        encoder.tokenizer.save(workdir / TOKENIZER)
        save_config(config, workdir)
        write_json(workdir / DATA_FILE, describe_data(config))
        save_task(task, encoder.model, workdir)


def read_data(config: FinetuneConfig, task: Task) -> Data:
    """Reads the rows of a run, and how well its baseline answers them.

    Raises:
      UsageError: a file is missing or broken, or gives no figure of `task.metric`.
    """
    train, validation = task.read_splits(config.train.seed)
    test = task.read(config.task.test, labelled=False) if config.task.test else None
    length = config.train.length
    examples = task.examples(train, length, True, True)
    held_out = task.examples(validation, length, True, False)
    baseline = task.score(task.baseline(train, validation), validation)
    if task.metric not in baseline:
        raise UsageError(
            f"task.metric={task.metric} cannot be had of this data; there are {', '.join(baseline)}"
        )
    rows, seed = config.train.batch_size, config.train.seed
    batches = Batches(examples, rows, task.tokenizer.pad_id, seed)
    steps = round((config.train.epochs or EPOCHS) * batches.steps_per_epoch)
    steps = max(steps, 1 if config.train.epochs else FEWEST_STEPS)
    records = Records(train, validation, test)
    return Data(records, batches, held_out, baseline, count_full(examples, length), steps)


def finetuning_program(
    config: FinetuneConfig, encoder: PretrainedEncoder, task: Task, steps: int, mesh: Mesh
) -> Program:
    """The program of a run.

    Raises:
      UsageError: the encoder does not fit the mesh.
    """
    check_heads(encoder.model, mesh)
    network = EncoderWithHead(encoder.model, task.head(encoder.model))
    weight = float(config.train.batch_size) if config.train.summed_loss else 1.0
    optimizer = make_optimizer(
        run_optimizer(config, encoder.model, steps),
        layer_scale(config.train.layer_decay, encoder.model.layers),
    )
    skips = bool(config.train.skip_non_finite)
    create = functools.partial(create_state, network, task, optimizer, skips)
    objective = TaskObjective(task, network, weight)
    return build_program(
        objective, optimizer, create, FINETUNING, mesh, config.train.accumulate,
        config.optimizer.frozen, skips,
    )  # fmt: skip


def with_encoder(encoder: PretrainedEncoder, state: TrainState) -> TrainState:
    """A fresh state with the parameters of an encoder."""
    shardings = {n: jax.tree.map(lambda x: x.sharding, state.params[n]) for n in encoder.params}
    return state.replace(params={**state.params, **to_devices(encoder.params, shardings)})


def held_out_evaluation(
    config: FinetuneConfig, task: Task, program: Program, data: Data
) -> Callable[[Any], dict[str, float]]:
    """The evaluation of a run: parameters → metrics."""
    held_out, validation = data.held_out, data.records.validation
    batches = Batches(held_out, config.train.eval_batch_size, task.tokenizer.pad_id)
    assert isinstance(program.objective, TaskObjective)
    judge = make_judge(program.objective, batches, program.mesh)

    def evaluate(params: Any) -> dict[str, float]:
        outputs, loss = judge(params)
        if not math.isfinite(loss):
            return {"loss": loss}
        metrics = task.score(task.answers(outputs, held_out, validation), validation)
        return {"loss": loss, **metrics} if task.held_out_loss else metrics

    return evaluate


def announce(
    config: FinetuneConfig, task: Task, encoder: PretrainedEncoder, data: Data, workdir: Path
) -> None:
    """Logs what is about to run."""
    records, batches = data.records, data.batches
    labels = task.state.get("labels")
    start = f"{config.init.from_}{' (its shape alone, fresh)' if config.init.fresh else ''}"
    lines = {
        "task": f"{task.name}, best by {task.metric}"
        + (f", {len(labels)} labels" if labels else ""),
        "encoder": f"{start}, {count_params(encoder.params):,} parameters",
        "rows": f"{len(records.train):,} to train, {len(records.validation):,} to validate",
        "a step": f"{config.train.batch_size} rows, {batches.tokens_per_step:,.0f} tokens",
        "run": f"{workdir}, {data.steps:,} steps",
        "compiling": COMPILING,
    }
    if data.full:
        lines["long rows"] = (
            f"{data.full:,} of {batches.size:,} fill train.length={config.train.length}: "
            "they are cut, or go on in further rows"
        )
    for name, text in lines.items():
        log.info("%-11s %s", name, text)


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
    task: Task, workdir: Path, data: Data, encoder: PretrainedEncoder | None
) -> dict[str, Any]:
    """Writes and returns metrics and answers of the best checkpoint, beside simpler ways."""
    train, validation, test = data.records
    model = load_finetuned(workdir)
    answers = model.task.calibrate(model.answer(validation, progress=is_main()), validation)
    folder = workdir / PREDICTIONS
    if is_main():
        save_task(model.task, model.model, workdir)
        folder.mkdir(exist_ok=True)
        write_answers(task, answers, validation, folder / f"validation{task.suffix}")
    results: dict[str, Any] = {
        "step": model.step,
        "metric": task.metric,
        "metrics": task.score(answers, validation),
        BASELINE: data.baseline,
        **linear_metrics(task, encoder, train, validation, model.config.train.length),
        "rows": {"train": len(train), "validation": len(validation)},
    }
    if test is not None:
        answers = model.answer(test, progress=is_main())
        if is_main():
            write_answers(task, answers, test, folder / f"test{task.suffix}")
        results["rows"]["test"] = len(test)
    if is_main():
        write_json(workdir / RESULTS_FILE, results)
        warn_of_simpler(results)
    return results


def write_answers(task: Task, answers: Any, records: list, path: Path) -> None:
    """Writes answers in the task's own format, whole or not at all."""
    with atomic_path(path) as partial:
        task.write(answers, records, partial)


def warn_of_simpler(results: Mapping[str, Any]) -> None:
    """Warns where a simpler way does at least as well as fine-tuning."""
    name = results["metric"]
    for kind, text in {BASELINE: "the baseline", **LINEAR}.items():
        simpler = results.get(kind, {}).get(name, -math.inf)
        if simpler >= results["metrics"][name]:
            log.warning(
                "fine-tuning gives %s %.3f, %s alone %.3f: more train.epochs or another "
                "optimizer.learning_rate may help",
                name, results["metrics"][name], text, simpler,
            )  # fmt: skip
