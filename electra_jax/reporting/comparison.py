"""Runs side by side: the metrics they ended with, and the config fields they differ in."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from electra_jax.reporting.curves import by_network, curves
from electra_jax.reporting.numbers import DASH, number
from electra_jax.reporting.run import Run


class Row(NamedTuple):
    """A row of a table: its name and cells."""

    name: str
    cells: list[str]


def last_metrics(run: Run) -> tuple[list[str], list[Row]]:
    """The head and the rows of a table of what a run logged last of each metric."""
    plots = curves(run.lines)
    kinds = ("train", "eval", "eval baseline")
    rows = []
    for metric, found in sorted(plots.items()):
        values = [found[kind][1][-1] if kind in found else None for kind in kinds]
        if values[2] is None and "train baseline" in found:
            values[2] = found["train baseline"][1][-1]
        rows.append(Row(metric, [number(x) if x is not None else "" for x in values]))
    return ["training", "held out", "baseline"], rows


class Beside(NamedTuple):
    """What runs had last of each metric, side by side."""

    held_out: list[Row]
    training: list[Row]  # of metrics that none has held out


def metrics_beside(runs: Sequence[Run]) -> Beside:
    """The final metrics of runs."""
    plots = [by_network(curves(run.lines)) for run in runs]
    found = Beside([], [])
    for metric in sorted({name for one in plots for name in one}):
        kinds = {kind for one in plots for kind in one.get(metric, {})} - {"baseline"}
        if "held out" in kinds:
            found.held_out.append(_row(metric, "held out", metric, plots))
            continue
        for kind in sorted(kinds):
            name = metric if kind == "training" else f"{metric}, {kind}"
            found.training.append(_row(name, kind, metric, plots))
    return found


def _row(name: str, kind: str, metric: str, plots: Sequence[Mapping[str, Any]]) -> Row:
    points = [one.get(metric, {}).get(kind) for one in plots]
    return Row(name, [number(p[1][-1]) if p else DASH for p in points])


def differing_fields(runs: Sequence[Run]) -> list[Row]:
    """The config fields that runs differ in."""
    configs = [dict(flatten(run.fields)) for run in runs]
    rows = []
    for name in sorted({name for config in configs for name in config}):
        values = [config.get(name, DASH) for config in configs]
        if len(set(values)) > 1:
            rows.append(Row(name, values))
    return rows


def flatten(fields: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The "section.field" and the value of each field of a config file."""
    for section, values in fields.items():
        if not isinstance(values, dict):
            yield section, _text(values)
            continue
        for name, value in values.items():
            yield f"{section}.{name}", _text(value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
