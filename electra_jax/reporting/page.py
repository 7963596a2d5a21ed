"""The page as HTML: one file that needs nothing beside itself.

Templates escape whatever they are given. Scripts are named by their hash in the page's security
policy: a browser runs no other, should one ever get in.
"""

import base64
import functools
import hashlib
import importlib.resources
import json
import re
from collections.abc import Sequence
from typing import Any

import jinja2

import electra_jax
from electra_jax.reporting.comparison import differing_fields, last_metrics, metrics_beside
from electra_jax.reporting.curves import MOST_POINTS, Chart, groups, table, thin
from electra_jax.reporting.mistakes import mistakes
from electra_jax.reporting.numbers import compact, count, duration, number, percent
from electra_jax.reporting.run import Run
from electra_jax.reporting.run_warnings import warnings
from electra_jax.reporting.samples import Sample, show
from electra_jax.reporting.throughput import throughput
from electra_jax.reporting.verdict import verdict
from electra_jax.tasks.task import Judgement

SCRIPTS = ("uPlot.iife.min.js", "page.js")
STYLES = ("uPlot.min.css", "page.css")
# Characters that HTML has no place for, and would break the page or hide in it.
CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufdd0-\ufdef\ufffe\uffff]")


def render(
    run: Run,
    others: Sequence[Run] = (),
    samples: Sequence[Sample] = (),
    judgements: Sequence[Judgement] = (),
) -> str:
    """The page of a run.

    Args:
      run: that it is about.
      others: that it is compared with.
      samples: held-out texts as the networks of a pretraining run see them.
      judgements: the answers of a fine-tuned model to validation rows.
    """
    runs = [run, *others]
    names = distinct([one.name for one in runs])
    grouped = groups(runs)
    charts = [chart for group in grouped.values() for chart in group]
    head, rows = last_metrics(run)
    return _environment().get_template("page.html").render(
        run=run,
        names=names,
        verdict=verdict(run, list(others)),
        warnings=warnings(run.lines),
        compared={"metrics": metrics_beside(runs), "fields": differing_fields(runs)}
        if others else None,
        groups=[(title, [(charts.index(c), table(c, names)) for c in group])
                for title, group in grouped.items()],
        has_tokens=all(one.tokens_per_step for one in runs),
        last_metrics={"head": head, "rows": rows},
        samples=[show(sample) for sample in samples],
        mistakes=mistakes(judgements),
        throughput=throughput(run),
        config=json.dumps(run.fields, indent=2, ensure_ascii=False) if run.fields else "",
        data=_data(runs, names, charts),
        styles=[_asset(name) for name in STYLES],
        scripts=[_asset(name) for name in SCRIPTS],
        policy=_policy(),
        version=electra_jax.__version__,
    )  # fmt: skip


def distinct(names: Sequence[str]) -> list[str]:
    """Names of which each is another: of equal ones those that follow are numbered."""
    found: list[str] = []
    for name in names:
        number, unique = 1, name
        while unique in found:
            number += 1
            unique = f"{name} ({number})"
        found.append(unique)
    return found


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("electra_jax.reporting"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=number, percent=percent, compact=compact, duration=duration, count=count
    )
    return environment


def printable(value: Any) -> Any:
    """What a template prints, without what UTF-8 or HTML cannot hold."""
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value  # what is HTML already was printed part by part
    return CONTROLS.sub("\ufffd", value.encode("utf-8", "backslashreplace").decode())


def _asset(name: str) -> str:
    """A script or a style as it may stand within its element."""
    text = (importlib.resources.files("electra_jax.reporting") / "assets" / name).read_text("utf-8")
    return inline(text)


def inline(text: str) -> str:
    """A script or style in which nothing ends its element; in strings `\\/` is `/`."""
    return re.sub(r"<(?=/(script|style)|!--)", r"\\x3c", text, flags=re.IGNORECASE)


def _policy() -> str:
    digests = [hashlib.sha256(_asset(name).encode()).digest() for name in SCRIPTS]
    hashes = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _data(runs: Sequence[Run], names: Sequence[str], charts: Sequence[Chart]) -> str:
    """What the page's script draws, as JSON that may stand within a script element."""
    content = {
        "runs": [
            {"name": name, "tokens": run.tokens_per_step, "clock": _clock(run)}
            for name, run in zip(names, runs, strict=True)
        ],
        "charts": [
            {
                "title": chart.title,
                "curves": [
                    {"run": c.run, "kind": c.kind, "steps": c.steps,
                     "values": [float(f"{value:.6g}") for value in c.values]}
                    for c in chart.curves
                ],
            }
            for chart in charts
        ],
    }  # fmt: skip
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _clock(run: Run) -> list[list[float]]:
    """Steps, and the seconds at which they were done."""
    steps = [line["step"] for line in run.lines]
    return [*thin(steps, [line["seconds"] for line in run.lines], MOST_POINTS)]
