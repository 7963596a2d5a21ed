"""Held-out metrics of a checkpoint, and held-out sentences as it sees them."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from electra_jax.config import FinetuneConfig, build_objective
from electra_jax.data.minimal_pairs import read_minimal_pairs
from electra_jax.data.mixture import Mixture, parse_stores
from electra_jax.data.verification import Verification
from electra_jax.errors import UsageError
from electra_jax.finetuning.resume import describe_data
from electra_jax.inference.finetuned import FinetunedModel, load, load_finetuned
from electra_jax.inference.pretrained import PretrainedModel, load_pretrained
from electra_jax.interop.names import flatten
from electra_jax.objectives.replaced_token import ReplacedTokenDetection
from electra_jax.parallel.mesh import MeshConfig, make_mesh
from electra_jax.pretraining.pretrain import make_evaluate
from electra_jax.pretraining.program import pretraining_program
from electra_jax.reporting.samples import Sample, SampleToken
from electra_jax.run_directory import DATA_FILE, PAIRS_FILE, RESULTS_FILE, read_any_config
from electra_jax.system.atomic_files import write_json
from electra_jax.system.json_files import read_object
from electra_jax.tasks.task import Judgement
from electra_jax.training.checkpoint import holds_checkpoint

log = logging.getLogger(__name__)


def evaluate(
    workdir: str | Path, data: str = "", split: str = "validation", checkpoint: str = "best"
) -> dict[str, float]:
    """Metrics of a run's checkpoint over all of a split.

    Args:
      workdir: the run directory.
      data: a token store with the run's tokenizer, or labelled rows of a fine-tuned model's task;
        empty for the run's own.
      split: "validation" or "train".
      checkpoint: "best", "last" or a step.

    Returns:
      Metrics by name, and the checkpoint's `step`.

    Raises:
      UsageError: the run, checkpoint or store is missing or does not fit.
    """
    model = load(workdir, checkpoint)
    if isinstance(model, FinetunedModel):
        return evaluate_task(model, workdir, data, split)
    config = model.config
    if not (data or config.data.store):
        raise UsageError(f"{workdir} names no token store: give --data STORE")
    try:
        mixture = Mixture.open(data or config.data.store, model.tokenizer)
    except UsageError as error:
        raise (
            error if data else UsageError(f"{error}; if it was moved, give --data STORE")
        ) from error
    if split == "validation":
        mixture = mixture.held_out() or mixture
    sampler = mixture.sampler(split, config.data, config.eval.batch_size, config.train.seed)
    mesh = make_mesh(MeshConfig(), model.devices)
    program = pretraining_program(config, mesh, model.tokenizer, mixture.unigram_entropy)
    there, needed = (set(flatten(x)) for x in (model.params, program.state.params))
    if needed - there:
        missing = ", ".join(sorted({"/".join(path.split("/")[:2]) for path in needed - there}))
        raise UsageError(f"{workdir} lacks {missing}: it cannot be evaluated")
    with Verification(mixture.stores) as verification:
        metrics = make_evaluate(program, sampler, max_batches=0, progress=True)(model.params)
        verification.check()
    return {"step": model.step, **metrics}


def evaluate_task(
    model: FinetunedModel, workdir: str | Path, data: str, split: str
) -> dict[str, float]:
    """Metrics of a fine-tuned model on labelled rows, such as those that chose nothing of it.

    Raises:
      UsageError: no rows are named, or they are not the task's.
    """
    named = model.config.task
    source = data or (named.validation if split == "validation" else named.train)
    if not source:
        raise UsageError(
            f"{workdir} held its validation rows out of {named.train}: give --data FILE"
        )
    records = model.task.read(source)
    return {"step": model.step, **model.task.score(model.answer(records, progress=True), records)}


def evaluate_minimal_pairs(
    workdir: str | Path,
    pairs: str,
    checkpoint: str = "best",
    per_paradigm: int = 0,
    progress: bool = False,
) -> dict[str, Any]:
    """The accuracy of a pretrained model on minimal pairs, kept in its run directory for reports.

    Args:
      workdir: a run directory, or another model directory, which is left as it is.
      pairs: a file, or a glob (see `data.minimal_pairs`).
      checkpoint: "best", "last" or a step.
      per_paradigm: only the first pairs of each paradigm, this many; 0: all.
      progress: whether there is a bar.

    Returns:
      `step`, `file`, and what `PairAccuracy.record` has.

    Raises:
      UsageError: no such file or model, or one that scores no sentences.
    """
    if per_paradigm < 0:
        raise UsageError(f"pairs per paradigm must be at least 0, not {per_paradigm}")
    read = read_minimal_pairs(pairs, per_paradigm)
    model = load(workdir, checkpoint)
    if isinstance(model, FinetunedModel):
        raise UsageError(f"{workdir} is fine-tuned: only a pretrained model scores minimal pairs")
    accuracy = model.pair_accuracy(read, progress)
    record = {"step": model.step, "file": pairs, **accuracy.record}
    if holds_checkpoint(workdir):
        try:
            write_json(Path(workdir) / PAIRS_FILE, record)
        except OSError as error:
            log.warning("%s is not written: %s", Path(workdir) / PAIRS_FILE, error.strerror)
    return record


def held_out_examples(
    workdir: str | Path, count: int = 8, checkpoint: str = "best"
) -> list[Sample]:
    """Held-out rows: what was masked, what the generator put, what the discriminator thinks.

    Of each row, the longest document. None of a fine-tuning run, of an imported model, of a run
    without a checkpoint, and where the run's store holds nothing out or is no longer there.
    """
    config = read_any_config(workdir)
    if isinstance(config, FinetuneConfig) or not config.data.store:
        return []
    stores_exist = all(Path(path).is_dir() for path, _ in parse_stores(config.data.store))
    if not (stores_exist and holds_checkpoint(workdir)):
        return []
    model = load_pretrained(workdir, checkpoint)
    held_out = Mixture.open(config.data.store, model.tokenizer).held_out()
    if held_out is None:
        return []
    sampler = held_out.sampler("validation", config.data, count, config.train.seed)
    batch = sampler.batch(0)
    objective = build_objective(config, model.tokenizer)
    if not isinstance(objective, ReplacedTokenDetection):
        return []  # no corrupted rows to show

    def forward(params: Any, batch: Mapping[str, jax.Array], key: jax.Array) -> tuple[Any, Any]:
        prepared = objective.prepare(batch, key)
        return prepared, objective.forward(params, prepared)

    prepared, out = jax.device_get(jax.jit(forward)(model.params, batch, jax.random.key(0)))
    probabilities_BL = 1 / (1 + np.exp(-out["discriminator_logits"].astype(np.float64)))
    return [
        _example(model, batch["tokens"][row], batch["documents"][row], prepared, out,
                 probabilities_BL[row], row)
        for row in range(count)
    ]  # fmt: skip


def held_out_judgements(workdir: str | Path, checkpoint: str = "best") -> list[Judgement]:
    """The answers of a fine-tuned model to its validation rows, beside the gold ones.

    None of a pretraining run, of a fine-tuning run that has not ended, of a task that does not
    say how to judge (`Task.judge`), and where the rows are no longer what they were.
    """
    workdir = Path(workdir)
    config = read_any_config(workdir)
    if not isinstance(config, FinetuneConfig) or not (workdir / RESULTS_FILE).is_file():
        return []
    try:
        known = read_object(workdir / DATA_FILE)
        changed = [name for name, one in describe_data(config).items() if known.get(name) != one]
        if changed:
            raise UsageError(f"{changed[0]} was changed")
        model = load_finetuned(workdir, checkpoint)
        _, records = model.task.read_splits(config.train.seed)
    except UsageError as error:
        log.warning("the report has no mistakes: %s", error)
        return []
    return model.task.judge(model.answer(records), records)


def _example(
    model: PretrainedModel,
    tokens_L: np.ndarray,
    documents_L: np.ndarray,
    prepared: Mapping[str, Any],
    out: Mapping[str, np.ndarray],
    probabilities_L: np.ndarray,
    row: int,
) -> Sample:
    numbers = documents_L[documents_L > 0]
    longest = np.flatnonzero(documents_L == np.bincount(numbers).argmax())
    positions_BN, weights_BN = prepared["masked"]
    masked = set(positions_BN[row][weights_BN[row] > 0].tolist())
    tokenizer = model.tokenizer
    originals = tokenizer.pieces(tokens_L[longest].tolist())
    # A vocabulary that is padded has ids without a piece.
    ids = out["corrupted"][row][longest]
    ids = np.where(ids < tokenizer.vocab_size, ids, tokenizer.unk_id)
    sampled = tokenizer.pieces(ids.tolist())
    return Sample(
        [
            SampleToken(
                piece=sampled[index],
                original=originals[index],
                masked=int(position) in masked,
                sampled=sampled[index],
                replaced=bool(out["replaced"][row][position]),
                probability=float(probabilities_L[position]),
            )
            for index, position in enumerate(longest)
        ]
    )
