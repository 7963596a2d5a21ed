"""Lines of a log → curves, charts and groups of charts.

A metric of one name in training, in evaluation and its baseline share a chart, and so do the
networks of a metric that has one value for each ("gradient_norm/generator"), and all runs.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from electra_jax.reporting.run import Run
from electra_jax.training.metrics import BASELINE

PREFIXES = ("train/", "eval/")
MOST_POINTS = 1000  # of a curve; more are thinned
MOST_ROWS = 16  # of a chart's table
KINDS = {
    "train": "training", "eval": "held out", "eval baseline": "baseline",
    "train baseline": "baseline",
}  # fmt: skip
# Groups of charts by what a metric's name looks like; the first that fits.
GROUPS = (
    ("Throughput", re.compile(r"^(tokens_per_second|mfu|skipped_steps)$")),
    ("Learning rate and gradients", re.compile(r"learning_rate$|(gradient|update)_norm$")),
    ("Losses", re.compile(r"loss$")),
    ("Generator", re.compile(r"^(generator_|replaced_share$)")),
    ("Discriminator", re.compile(r"^discriminator_")),
    ("Quality", re.compile("")),
)
# The order in which they stand on the page.
ORDER = ("Quality", "Generator", "Discriminator", "Losses", "Learning rate and gradients",
         "Throughput")  # fmt: skip
ACRONYMS = {"auc": "AUC", "mfu": "MFU", "f1": "F1"}

Points = tuple[list[float], list[float]]  # steps and values


class Curve(NamedTuple):
    """A line of a chart.

    Attributes:
      run: its index.
      kind: "training", "held out", "baseline", or the name of a network.
      steps, values: its points, by rising step.
    """

    run: int
    kind: str
    steps: list[float]
    values: list[float]


class Chart(NamedTuple):
    """The curves of one metric."""

    metric: str
    curves: list[Curve]

    @property
    def title(self) -> str:
        return title(self.metric)


def title(metric: str) -> str:
    """The name of a metric as words."""
    text = " ".join(ACRONYMS.get(word, word) for word in metric.split("_"))
    return text[:1].upper() + text[1:]


def curves(lines: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Points]]:
    """Points by metric name, and by kind: "train", "eval" and their baselines."""
    plots: dict[str, dict[str, Points]] = {}
    for line in lines:
        for name, value in line.items():
            if value is None or not name.startswith(PREFIXES):
                continue
            kind, _, metric = name.partition("/")
            if metric.endswith(BASELINE):
                metric, kind = metric.removesuffix(BASELINE), f"{kind} baseline"
            steps, values = plots.setdefault(metric, {}).setdefault(kind, ([], []))
            if steps and steps[-1] == line["step"]:
                values[-1] = value  # the last one of a step counts
                continue
            steps.append(line["step"])
            values.append(value)
    return plots


def by_network(plots: Mapping[str, Mapping[str, Points]]) -> dict[str, dict[str, Points]]:
    """The plots, with those of one metric's networks as the lines of a single one."""
    joined: dict[str, dict[str, Points]] = {}
    for name, kinds in plots.items():
        metric, _, network = name.partition("/")
        if network and set(kinds) == {"train"}:
            joined.setdefault(metric, {})[network] = kinds["train"]
            continue
        # A baseline of training beside that of evaluation says the same twice.
        doubled = {"train baseline"} if "eval baseline" in kinds else set()
        joined.setdefault(name, {}).update(
            {KINDS.get(kind, kind): p for kind, p in kinds.items() if kind not in doubled}
        )
    return joined


def groups(runs: Sequence[Run]) -> dict[str, list[Chart]]:
    """The charts of runs, by the title of their group."""
    charts: dict[str, Chart] = {}
    for index, run in enumerate(runs):
        for metric, kinds in by_network(curves(run.lines)).items():
            chart = charts.setdefault(metric, Chart(metric, []))
            chart.curves.extend(Curve(index, kind, *thin(*p)) for kind, p in kinds.items())
    found: dict[str, list[Chart]] = {title: [] for title in ORDER}
    for metric in sorted(charts, key=_rank):
        title = next(title for title, pattern in GROUPS if pattern.search(metric))
        found[title].append(charts[metric])
    return {title: group for title, group in found.items() if group}


def _rank(metric: str) -> tuple[int, str]:
    """What a reader looks for first comes first."""
    first = ("accuracy", "auc", "f1", "minimal_pairs", "loss", "learning_rate")
    place = next((i for i, name in enumerate(first) if metric.endswith(name)), len(first))
    return place, metric


def thin(steps: list[float], values: list[float], most: int = MOST_POINTS) -> Points:
    """At most so many points: of each stretch of a curve its lowest and its highest.

    Spikes stay, and so do the first and the last point.
    """
    if len(steps) <= most:
        return steps, values
    stretches = (most - 2) // 2
    inner = len(steps) - 2
    kept = {0, len(steps) - 1}
    for stretch in range(stretches):
        start = 1 + stretch * inner // stretches
        end = 1 + (stretch + 1) * inner // stretches
        kept.add(min(range(start, end), key=values.__getitem__))
        kept.add(max(range(start, end), key=values.__getitem__))
    chosen = sorted(kept)
    return [steps[i] for i in chosen], [values[i] for i in chosen]


class Table(NamedTuple):
    """The figures of a chart: of some steps, the value that each curve had last."""

    chart: Chart
    head: list[str]
    rows: list[tuple[float, list[float | None]]]


def table(chart: Chart, names: Sequence[str]) -> Table:
    """A chart as a table.

    Args:
      chart: to be read.
      names: of the runs; of one run alone they are not shown.
    """
    steps = sorted({step for curve in chart.curves for step in curve.steps})
    count = min(len(steps), MOST_ROWS)
    chosen = [steps[round(i * (len(steps) - 1) / max(count - 1, 1))] for i in range(count)]
    head = [c.kind if len(names) == 1 else f"{c.kind}, {names[c.run]}" for c in chart.curves]
    rows = [(step, [_value_at(curve, step) for curve in chart.curves]) for step in chosen]
    return Table(chart, head, rows)


def _value_at(curve: Curve, step: float) -> float | None:
    found = None
    for known, value in zip(curve.steps, curve.values, strict=True):
        if known <= step:
            found = value
    return found
