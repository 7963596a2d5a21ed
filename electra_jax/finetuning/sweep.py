"""Several fine-tuning runs, over seeds and values of fields, and their table of results."""

import contextlib
import itertools
import logging
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from electra_jax.config import FinetuneConfig, finetune_config, load_config
from electra_jax.config_files import flatten_fields
from electra_jax.errors import UsageError
from electra_jax.finetuning.finetune import check_resume, finetune
from electra_jax.finetuning.linear import LINEAR
from electra_jax.parallel.runtime import broadcast_from_main, is_main, locking
from electra_jax.run_directory import BASELINE, RESULTS_FILE, RUNS_FILE, TABLE_FILE, read_any_config
from electra_jax.system.atomic_files import write_json, write_text
from electra_jax.system.json_files import read_object, reading
from electra_jax.training.loop import NonFiniteLoss

log = logging.getLogger(__name__)

PRETRAINED, NOT_PRETRAINED = "pretrained", "not-pretrained"


def run_all(
    spec: str,
    overrides: Sequence[str],
    workdir: str | Path,
    seeds: int = 1,
    sweep: Sequence[str] = (),
    baseline: bool = False,
) -> str:
    """Fine-tunes for every combination; runs that are done are not done again.

    Args:
      spec: FILE[:variant] of the config.
      overrides: "section.field=value" strings.
      workdir: of the run, or of the folders of several.
      seeds: how many, from `train.seed` on.
      sweep: "field=a,b" strings; the section may be left out where it is plain.
      baseline: whether to fine-tune the same encoder without pretraining beside it.

    Returns:
      A table in Markdown.

    Raises:
      UsageError: see `load_config` and `finetune`.
      NonFiniteLoss: all runs diverged.
      Stopped: a signal stopped a run.
    """
    names = [name for name, _ in flatten_fields(load_config(spec))]
    axes = [parse_axis(axis, names) for axis in sweep]
    if baseline:
        axes.insert(0, ("init.fresh", ["false", "true"]))
    combinations = [
        [f"{name}={value}" for (name, _), value in zip(axes, values, strict=True)]
        for values in itertools.product(*(choices for _, choices in axes))
    ]
    for chosen in combinations:  # a wrong value is found before the first run
        finetune_config(load_config(spec, [*overrides, *chosen]))
    several = seeds > 1 or bool(axes)
    with locking(workdir) if several else contextlib.nullcontext():
        return run_combinations(spec, overrides, Path(workdir), seeds, combinations, several)


def run_combinations(
    spec: str,
    overrides: Sequence[str],
    workdir: Path,
    seeds: int,
    combinations: Sequence[Sequence[str]],
    several: bool,
) -> str:
    """Fine-tunes for every combination, and writes and returns the table."""
    rows: list[tuple[str, list[dict[str, Any]]]] = []
    for number, chosen in enumerate(combinations, start=1):
        group = [describe(field) for field in chosen]
        if len(combinations) > 1:
            log.info("%-11s %d of %d: %s", "setting", number, len(combinations), " ".join(group))
        try:
            results = run_group(spec, [*overrides, *chosen], Path(workdir, *group), seeds)
        except NonFiniteLoss as error:
            if len(combinations) == 1:
                raise
            log.warning("%s: %s", " ".join(group), error)
            results = []
        name = " ".join(group) or "fine-tuned"
        if 0 < len(results) < seeds:
            name += f" ({len(results)} of {seeds} seeds; others diverged)"
        rows.append((name, results))
    if not any(results for _, results in rows):
        raise NonFiniteLoss("every run diverged: try a lower learning rate")
    table = render(rows)
    if not is_main():
        return table
    write_text(Path(workdir, TABLE_FILE), table)
    if several:
        content = [{"run": name, "seeds": results} for name, results in rows]
        write_json(Path(workdir, RUNS_FILE), content)
    return table


def run_group(
    spec: str, overrides: Sequence[str], folder: Path, seeds: int
) -> list[dict[str, Any]]:
    """The results of a run with each seed.

    Raises:
      UsageError: no seeds; see `load_config` and `finetune`.
      NonFiniteLoss: all runs diverged. Those that do beside others are logged, and have no result.
      Stopped: a signal stopped a run.
    """
    if seeds < 1:
        raise UsageError(f"--seeds must be at least 1, not {seeds}")
    first = finetune_config(load_config(spec, overrides)).train.seed
    results: list[dict[str, Any]] = []
    diverged: list[tuple[Path, NonFiniteLoss]] = []
    for seed in range(first, first + seeds):
        if seeds > 1:
            log.info("%-11s %d of %d", "seed", seed - first + 1, seeds)
        config = finetune_config(load_config(spec, [*overrides, f"train.seed={seed}"]))
        workdir = folder / f"seed-{seed}" if seeds > 1 else folder
        # Process 0 decides: only it knows what it has written.
        result = finished(workdir, config) if is_main() else None
        if broadcast_from_main(result is not None):
            result = result or read_object(workdir / RESULTS_FILE)
            log.info("%-11s %s", "done before", workdir)
        else:
            try:
                result = finetune(config, workdir)
            except NonFiniteLoss as error:
                diverged.append((workdir, error))
                continue
        results.append({"folder": str(workdir), **result})
    if diverged and not results:
        raise diverged[-1][1]
    for run, reason in diverged:
        log.warning("%s: %s", run, reason)
    return results


def parse_axis(text: str, names: Sequence[str]) -> tuple[str, list[str]]:
    """ "field=a,b" as the field's whole name and its values.

    Raises:
      UsageError: no values, or no or several fields of that name.
    """
    field, equals, values = text.partition("=")
    if not equals or not values:
        raise UsageError(f"--sweep {text}: write FIELD=VALUE,VALUE")
    found = [name for name in names if name == field or name.endswith(f".{field}")]
    if len(found) != 1:
        hint = f"it may be {', '.join(found)}" if found else "there is no such field"
        raise UsageError(f"--sweep {text}: {hint}")
    return found[0], values.split(",")


def describe(field: str) -> str:
    """The name of the folder of a run with that field."""
    if field.startswith("init.fresh="):
        return NOT_PRETRAINED if field.endswith("true") else PRETRAINED
    name, _, value = field.partition("=")
    return f"{name.rpartition('.')[2]}={value}".replace("/", "_")


def finished(folder: Path, config: FinetuneConfig) -> dict[str, Any] | None:
    """The results of a run that is done, if it is this run."""
    file = folder / RESULTS_FILE
    if not file.exists():
        return None
    old = read_any_config(folder)
    check_resume(old, config, folder)
    if old.task.test != config.task.test:  # type: ignore[union-attr]
        return None
    result = read_object(file)
    with reading(file):  # it may have been damaged since
        result["metrics"][result["metric"]] + 0.0
    return result


def render(rows: Sequence[tuple[str, list[dict[str, Any]]]]) -> str:
    """Markdown: of each group of seeds the median and spread of every metric, in percent.

    A group without results is one that diverged.
    """
    some = next(results for _, results in rows if results)
    metric = some[0]["metric"]
    names = [metric, *(name for name in some[0]["metrics"] if name != metric)]
    head = ["run", *names]
    lines = [head, ["---"] * len(head)]
    for run, results in rows:
        lines.append([run, *render_metrics(results, "metrics", names)])
    for kind, label in {BASELINE: "baseline", **LINEAR}.items():
        if all(kind in result for result in some):
            lines.append([label, *render_metrics(some, kind, names)])
    most = max(len(results) for _, results in rows)
    note = f"\nMedian ± standard deviation of {most} seeds.\n" if most > 1 else ""
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n" + note


def render_metrics(results: Sequence[dict[str, Any]], part: str, names: Sequence[str]) -> list[str]:
    """Each metric over the seeds."""
    return [cell([100 * result[part].get(name, math.nan) for result in results]) for name in names]


def cell(values: Sequence[float]) -> str:
    """Median, and standard deviation where there are several."""
    if not values:
        return "diverged"
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.median(values):.1f}{spread}"
