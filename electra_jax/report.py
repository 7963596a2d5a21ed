"""A run directory → one HTML page with its curves, metrics, config and samples.

The page needs nothing beside itself. It draws whatever metrics the run has logged: a
metric of that name in training, in evaluation and its baseline share a plot, and so do the
networks of a metric that has one value for each ("gradient_norm/generator").
"""

import dataclasses
import html
import io
import json
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from electra_jax.errors import UsageError
from electra_jax.run_directory import CONFIG_FILE, PAIRS_FILE, REPORT
from electra_jax.system.atomic_files import write_text
from electra_jax.system.json_files import read_object, reading
from electra_jax.system.locks import one_writer
from electra_jax.training.metrics import BASELINE, METRICS_FILE, read_metrics

PAGE = "index.html"
PREFIXES = ("train/", "eval/")

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem }
.curves { display: grid; grid-template-columns: repeat(auto-fill, minmax(20rem, 1fr)) }
.curves svg { width: 100%; height: auto }
table { border-collapse: collapse } td, th { padding: .1rem .8rem; text-align: left }
td.number { text-align: right; font-variant-numeric: tabular-nums }
.warnings li { color: #a00 }
.sample { line-height: 2.2 } .token { padding: .1rem .15rem; border-radius: .2rem }
.masked { border-bottom: 2px solid #555 } .replaced { border-bottom: 2px solid #c00 }
pre { background: #f4f4f4; padding: 1rem; overflow: auto }
"""


@dataclasses.dataclass(frozen=True)
class SampleToken:
    """A token of a held-out text as the two networks saw it."""

    piece: str  # what the discriminator read
    original: str
    masked: bool
    sampled: str  # what the generator put there
    replaced: bool
    probability: float  # that it was replaced, says the discriminator


@dataclasses.dataclass(frozen=True)
class Sample:
    """A held-out text."""

    tokens: Sequence[SampleToken]


def write_report(workdir: str | Path, examples: Sequence[Sample] = ()) -> Path:
    """Writes `report/index.html` of a run directory.

    Returns:
      The page.

    Raises:
      UsageError: the run has logged nothing, or the page cannot be written.
    """
    workdir = Path(workdir)
    lines = read_metrics(workdir)
    if not lines:
        raise UsageError(f"nothing to report: {workdir / METRICS_FILE} is missing or empty")
    config = workdir / CONFIG_FILE
    text = _page(
        os.path.basename(os.path.realpath(workdir)),
        lines,
        read_object(config) if config.is_file() else {},
        examples,
        _minimal_pairs(workdir / PAIRS_FILE),
    )
    page = workdir / REPORT / PAGE
    with one_writer(page.parent):
        try:
            write_text(page, text)
        except OSError as error:
            raise UsageError(f"{page} cannot be written: {error.strerror}") from error
    return page


def curves(lines: Sequence[dict]) -> dict[str, dict[str, tuple[list[float], list[float]]]]:
    """Plots by metric name; each has lines "train", "eval" and "baseline": steps and values."""
    plots: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
    for line in lines:
        for name, value in line.items():
            if value is None or not name.startswith(PREFIXES):
                continue
            kind, _, metric = name.partition("/")
            if metric.endswith(BASELINE):
                metric, kind = metric.removesuffix(BASELINE), f"{kind} baseline"
            steps, values = plots.setdefault(metric, {}).setdefault(kind, ([], []))
            steps.append(line["step"])
            values.append(value)
    return plots


class Warned(NamedTuple):
    """A warning of a run; one that was not over at the end has no last step."""

    text: str
    first_step: int
    last_step: int | None


def warnings(lines: Sequence[dict]) -> list[Warned]:
    """The warnings of a run in the order in which they began."""
    found: list[Warned] = []
    current: dict[str, int] = {}  # index of a warning that is not over, by name
    for line in lines:
        for name, text in line.get("warnings", {}).items():
            if name in current:
                index = current.pop(name)
                found[index] = found[index]._replace(last_step=line["step"])
            if text is not None:
                current[name] = len(found)
                found.append(Warned(text, line["step"], None))
    return found


def _page(
    title: str, lines: list[dict], config: dict, examples: Sequence[Sample], pairs: list[str]
) -> str:
    plots = curves(lines)
    last = lines[-1]
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        f"<title>{html.escape(title)}</title><style>{STYLE}</style>",
        f"<h1>{html.escape(title)}</h1>",
        f"<p>{last['step']:,} steps, {last['seconds'] / 60:.1f} minutes</p>",
        *_warnings(lines),
        "<h2>Latest metrics</h2>",
        _table(plots),
        "<h2>Curves</h2><div class=curves>",
        *(_plot(metric, kinds) for metric, kinds in sorted(_by_network(plots).items())),
        "</div>",
    ]
    parts += pairs
    if examples:
        parts += [
            "<h2>Held-out samples</h2>",
            "<p>Masked positions are underlined, in red where the generator's sample differs "
            "from the original (hover to see it). The redder a token, the likelier the "
            "discriminator thinks it was replaced.</p>",
            *(f"<p class=sample>{' '.join(map(_token, e.tokens))}</p>" for e in examples),
        ]
    if config:
        parts += [f"<h2>Config</h2><pre>{html.escape(json.dumps(config, indent=2))}</pre>"]
    return "\n".join(parts) + "\n"


def _warnings(lines: list[dict]) -> list[str]:
    items = []
    for text, first, last in warnings(lines):
        until = "" if last is None else f", over at step {last:,}"
        items.append(f"<li>Step {first:,}{until}: {html.escape(text)}</li>")
    return ["<h2>Warnings</h2><ul class=warnings>", *items, "</ul>"] if items else []


def _by_network(plots: dict) -> dict:
    """The plots, with those of one metric's networks as the lines of a single one."""
    joined: dict[str, dict] = {}
    for name, kinds in plots.items():
        metric, _, network = name.partition("/")
        if network and set(kinds) == {"train"}:
            joined.setdefault(metric, {})[network] = kinds["train"]
        else:
            joined.setdefault(name, {}).update(kinds)
    return joined


def _table(plots: dict) -> str:
    kinds = ("train", "eval", "eval baseline")
    rows = [f"<tr><th>metric</th>{''.join(f'<th>{kind}</th>' for kind in kinds)}</tr>"]
    for metric, found in sorted(plots.items()):
        cells = "".join(
            f"<td class=number>{_number(found[kind][1][-1]) if kind in found else ''}</td>"
            for kind in kinds
        )
        rows.append(f"<tr><td>{html.escape(metric)}</td>{cells}</tr>")
    return f"<table>{''.join(rows)}</table>"


def _minimal_pairs(file: Path) -> list[str]:
    """What `evaluate --minimal-pairs` found last; nothing if there is no such file."""
    if not file.is_file():
        return []
    found = read_object(file)
    with reading(file):
        return _accuracy_on_pairs(found)


def _accuracy_on_pairs(found: dict) -> list[str]:
    """The accuracy on minimal pairs (see `inference.scoring.PairAccuracy`)."""
    by_phenomenon = sorted(found["paradigms"].items(), key=lambda item: item[1]["phenomenon"])
    return [
        "<h2>Minimal pairs</h2>",
        f"<p>Step {found['step']:,}, {found['pairs']:,} pairs of {html.escape(found['file'])}: the "
        f"good sentence has the higher score in {found['minimal_pairs']:.1%}, by the mean over "
        f"paradigms (a guess: {found['minimal_pairs_baseline']:.0%}).</p>",
        _accuracies(found["phenomena"].items()),
        "<details><summary>By paradigm</summary>",
        _accuracies(by_phenomenon),
        "</details>",
    ]


def _accuracies(groups: Iterable[tuple[str, dict]]) -> str:
    rows = [
        f"<tr><td>{html.escape(name)}</td><td class=number>{group['accuracy']:.1%}</td></tr>"
        for name, group in groups
    ]
    return f"<table>{''.join(rows)}</table>"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _plot(metric: str, kinds: dict) -> str:
    # Figure alone, without pyplot: no display is looked for, no state is kept.
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.4, 3), layout="constrained")
    axes = figure.subplots()
    styles = {"train": ("C0", "-"), "eval": ("C1", "-")}
    for index, (kind, (steps, values)) in enumerate(kinds.items()):
        colour, style = styles.get(kind, ("0.5", ":") if "baseline" in kind else (f"C{index}", "-"))
        mark = "o" if len(steps) == 1 else None
        axes.plot(steps, values, color=colour, linestyle=style, marker=mark, label=kind)
    # A name may hold what Matplotlib would take for mathematics.
    axes.set_title(metric, fontsize=10, parse_math=False)
    axes.set_xlabel("step", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3)
    for entry in axes.legend(fontsize=8).get_texts():
        entry.set_parse_math(False)
    buffer = io.StringIO()
    with rc_context({"svg.hashsalt": metric}):  # the same page for the same run
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = buffer.getvalue()
    return svg[svg.index("<svg") :]


def _token(token: SampleToken) -> str:
    shade = 0.0 if math.isnan(token.probability) else token.probability
    classes = "token" + " masked" * token.masked + " replaced" * token.replaced
    hint = f"{token.probability:.2f} replaced"
    if token.masked:
        hint += f"; was {token.original}, sampled {token.sampled}"
    return (
        f'<span class="{classes}" style="background:rgba(220,30,30,{shade:.2f})" '
        f'title="{html.escape(hint)}">{html.escape(token.piece)}</span>'
    )
