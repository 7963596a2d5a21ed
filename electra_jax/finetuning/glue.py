"""All of GLUE in one go: fine-tune on each set, and write what its server takes."""

import logging
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from electra_jax.data.text_files import checksum
from electra_jax.errors import UsageError
from electra_jax.finetuning.sweep import NOT_PRETRAINED, cell, run_group
from electra_jax.inference.finetuned import load_finetuned
from electra_jax.parallel.rendezvous import code_fingerprint
from electra_jax.parallel.runtime import broadcast_from_main, is_main, locking
from electra_jax.run_directory import BASELINE
from electra_jax.system.atomic_files import atomic_path, write_json, write_text
from electra_jax.system.json_files import read_object
from electra_jax.training.loop import NonFiniteLoss

log = logging.getLogger(__name__)

SUBMISSION = "submission"
TABLE_FILE = "glue.md"
SCORES_FILE = "glue.json"  # of each model and set, those of all seeds


class GlueSet(NamedTuple):
    """A set: its folder, its variant of `finetune/glue`, and its files."""

    folder: str
    variant: str
    metric: str
    validation: str = "dev"
    tests: tuple[tuple[str, str], ...] = ()  # file beside the folders, and its submission

    @property
    def test_files(self) -> tuple[tuple[str, str], ...]:
        return self.tests or ((f"{self.folder}/test", self.folder),)


SETS = (
    GlueSet("CoLA", "cola", "matthews"),
    GlueSet("SST-2", "sst2", "accuracy"),
    GlueSet("MRPC", "mrpc", "accuracy"),
    GlueSet("STS-B", "stsb", "spearman"),
    GlueSet("QQP", "qqp", "accuracy"),
    GlueSet(
        "MNLI", "mnli", "accuracy", "dev_matched",
        (
            ("MNLI/test_matched", "MNLI-m"),
            ("MNLI/test_mismatched", "MNLI-mm"),
            ("diagnostic/diagnostic", "AX"),
        ),
    ),
    GlueSet("QNLI", "qnli", "accuracy"),
    GlueSet("RTE", "rte", "accuracy"),
    GlueSet("WNLI", "wnli", "accuracy"),
)  # fmt: skip
Scores = dict[str, dict[str, list[float]]]  # by model and set, one for each seed
SINGLE = ("CoLA", "SST-2")  # of one text a row
SUFFIXES = (".tsv", ".csv", ".jsonl")


def glue(
    model: str, data: Sequence[str], workdir: str | Path, seeds: int = 1, baseline: bool = False,
    overrides: Sequence[str] = (), variant: str = "",
) -> str:  # fmt: skip
    """Fine-tunes on every set that is there; sets that are done are not done again.

    Args:
      model: the directory to start from.
      data: folders that hold the sets' folders, in the official files or in CSV or JSON lines
        with the columns text_a, text_b and label.
      workdir: gets a run for each set and seed, a table, and `submission/`.
      seeds: runs of each set.
      baseline: whether to fine-tune the same encoder without pretraining, too.
      overrides: for all sets.
      variant: "paper" for the paper's rate.

    Returns:
      A table in Markdown.

    Raises:
      UsageError: none of the sets is there, or what `finetune` raises.
      Stopped: a signal stopped a run.
    """
    found = [(one, files) for one in SETS if (files := find_set_files(one, data))]
    if not found:
        names = ", ".join(one.folder for one in SETS)
        raise UsageError(f"{', '.join(data)}: there is none of {names}, with train and dev files")
    missing = [one.folder for one in SETS if one not in [there for there, _ in found]]
    if missing:
        log.warning("not there, and left out: %s", ", ".join(missing))
    kinds = [(Path(model).name or "pretrained", "false")]
    if baseline:
        kinds.append((NOT_PRETRAINED, "true"))
    with locking(workdir):
        return run_sets(found, kinds, model, data, Path(workdir), seeds, overrides, variant)


def run_sets(
    found: Sequence[tuple[GlueSet, dict[str, Path]]],
    kinds: Sequence[tuple[str, str]],
    model: str,
    data: Sequence[str],
    workdir: Path,
    seeds: int,
    overrides: Sequence[str],
    variant: str,
) -> str:
    """Fine-tunes on every set with each kind of model, and writes and returns the table.

    Args:
      found: the sets and their files.
      kinds: names of models, and the value of `init.fresh` for each.
    """
    content: Scores = {}
    baselines: dict[str, list[float]] = {one.folder: [] for one, _ in found}
    for name, fresh in kinds:
        content[name] = {}
        for number, (one, files) in enumerate(found, start=1):
            log.info("%-11s %d of %d: %s, %s", "set", number, len(found), one.folder, name)
            spec = f"finetune/glue:{one.variant}{'-paper' if variant == 'paper' else ''}"
            fields = [
                f"init.from={model}", f"init.fresh={fresh}",
                *data_fields(one, files), *overrides,
            ]  # fmt: skip
            folder = Path(workdir, *([NOT_PRETRAINED] if fresh == "true" else []), one.folder)
            try:
                results = run_group(spec, fields, folder, seeds)
            except NonFiniteLoss as error:  # the other sets are wanted all the same
                log.warning("%s: %s", folder, error)
                results = []
            if results and fresh == "false":
                write_submissions(one, data, results, Path(workdir, SUBMISSION))
            content[name][one.folder] = [100 * result["metrics"][one.metric] for result in results]
            if results:
                baselines[one.folder] = [100 * results[0][BASELINE][one.metric]]
    content[BASELINE] = baselines
    table = render_table([one for one, _ in found], content, seeds)
    if is_main():
        write_text(Path(workdir, TABLE_FILE), table)
        write_json(Path(workdir, SCORES_FILE), content)
    return table


def render_table(sets: Sequence[GlueSet], content: Scores, seeds: int) -> str:
    """The scores of all models and sets in Markdown."""
    rows = [
        [name, *map(cell, scores.values()), average(scores)]
        for name, scores in content.items()
        if name != BASELINE
    ]
    baselines = content[BASELINE]
    simple = [f"{value[0]:.1f}" if value else "" for value in baselines.values()]
    rows.append(["baseline", *simple, average(baselines)])
    head = ["model", *(f"{one.folder} ({one.metric})" for one in sets), "average"]
    lines = [head, ["---"] * len(head), *rows]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
    if seeds > 1:
        table += f"\nMedian ± standard deviation of {seeds} seeds.\n"
    if baselines.get("WNLI"):
        table += "\nThe average leaves WNLI out, as the paper's does.\n"
    return table


def data_fields(one: GlueSet, files: Mapping[str, Path]) -> list[str]:
    """Overrides that name a set's files (see `find_files`) and their columns.

    Those of official files, in TSV, stand in the config; others have text_a, text_b and label.
    """
    named = [f"task.{part}={path}" for part, path in files.items()]
    if files["train"].suffix == ".tsv":
        return named
    second = "" if one.folder in SINGLE else "text_b"
    return [*named, "task.text=text_a", f"task.text_b={second}", "task.label=label",
            "task.columns="]  # fmt: skip


def run_fingerprint(data: Sequence[str]) -> dict[str, str]:
    """Values that all processes must have in common (see `parallel.rendezvous`)."""
    return {
        **code_fingerprint(),
        "the sets": " ".join(x.folder for x in SETS if find_set_files(x, data)),
    }


def find_set_files(one: GlueSet, data: Sequence[str]) -> dict[str, Path] | None:
    """A set's training and validation files, in the first folder that has them."""
    for folder in data:
        for suffix in SUFFIXES:
            train = Path(folder, one.folder, f"train{suffix}")
            for name in (one.validation, "dev"):
                validation = train.with_name(f"{name}{suffix}")
                if train.is_file() and validation.is_file():
                    return {"train": train, "validation": validation}
    return None


def write_submissions(
    one: GlueSet, data: Sequence[str], results: Sequence[dict[str, Any]], to: Path
) -> None:
    """Answers to a set's test files by the seed that does best on its validation data."""
    best = max(range(len(results)), key=lambda i: results[i]["metrics"][one.metric])
    run = Path(results[best]["folder"])
    known = to.with_suffix(".json")  # which run answered each, and from what
    sources = read_object(known) if known.exists() else {}
    for name, submitted in one.test_files:
        test = next((p for d in data if (p := Path(d, f"{name}.tsv")).is_file()), None)
        target = to / f"{submitted}.tsv"
        content = checksum(test) if test else ""
        source = {"run": str(run), "step": results[best]["step"], "sha256 of test": content}
        done = sources.get(target.name) == source and target.exists()
        if broadcast_from_main(test is None or done):
            continue
        model = load_finetuned(run)
        records = model.task.read(str(test), labelled=False)
        answers = model.answer(records)
        if is_main():
            to.mkdir(parents=True, exist_ok=True)
            with atomic_path(target) as partial:
                model.task.write(answers, records, partial)
            sources[target.name] = source
            write_json(known, sources)


def average(scores: Mapping[str, Sequence[float]]) -> str:
    """The mean over the sets, as the paper has it: without WNLI. None where one diverged."""
    counted = [values for name, values in scores.items() if name != "WNLI"]
    if not counted or not all(counted):
        return ""
    return f"{statistics.mean(map(statistics.median, counted)):.1f}"
