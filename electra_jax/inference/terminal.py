"""Results as text for a terminal."""

import math
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from electra_jax.inference.pretrained import TokenReport
from electra_jax.training.metrics import BASELINE

SUSPICIOUS = 0.5  # from here on a token is said to look replaced
BAR = 20

# Light to dark red backgrounds of 256-colour terminals, by rising probability.
BACKGROUNDS = (None, 224, 217, 210, 203, 196)
RESET = "\033[0m"


def wants_colour() -> bool:
    """Whether standard output is a terminal whose user wants colours (see no-color.org)."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return sys.stdout.isatty()


def render_inspection(tokens: Sequence[TokenReport], colour: bool) -> str:
    """The text with suspicious tokens marked, and a line for each token.

    Args:
      tokens: of one text.
      colour: paint by probability; else only write the numbers.
    """
    suspicious = [token for token in tokens if token.replaced >= SUSPICIOUS]
    width = max(len(token.piece) for token in tokens)
    lines = [" ".join(_paint(token.piece, token.replaced, colour) for token in tokens), ""]
    lines.append(f"{'token':{width}}  replaced  {'':{BAR}}  the generator would put")
    for token in tokens:
        bar = "█" * round(token.replaced * BAR)
        guesses = ", ".join(f"{piece} {share:.0%}" for piece, share in token.suggestions)
        lines.append(f"{token.piece:{width}}  {token.replaced:8.3f}  {bar:{BAR}}  {guesses}")
    most = max(tokens, key=lambda token: token.replaced)
    verdict = (
        f"{len(suspicious)} of {len(tokens)} tokens look replaced"
        if suspicious
        else "no token looks replaced"
    )
    lines.append(f"{verdict}; the most suspicious: {most.piece} ({most.replaced:.3f})")
    return "\n".join(lines)


def render_metrics(metrics: Mapping[str, float]) -> str:
    """A table of metrics, each beside its baseline where it has one."""
    named = [name for name in metrics if not name.endswith(BASELINE)]
    width = max(map(len, named))
    lines = []
    for name in named:
        line = f"{name:{width}}  {_number(metrics[name]):>12}"
        baseline = metrics.get(f"{name}{BASELINE}")
        if baseline is not None:
            line += f"  (baseline {_number(baseline)})"
        lines.append(line)
    return "\n".join(lines)


def render_minimal_pairs(found: Mapping[str, Any]) -> str:
    """A table of the accuracy on minimal pairs by phenomenon (see `PairAccuracy.record`)."""
    rows = [(name, *group.values()) for name, group in found["phenomena"].items()]
    rows.append(("mean over paradigms", len(found["paradigms"]), found["minimal_pairs"]))
    width = max(len(name) for name, *_ in rows)
    lines = [f"{'phenomenon':{width}}  paradigms  accuracy"]
    lines += [f"{name:{width}}  {count:9,}  {accuracy:8.4f}" for name, count, accuracy in rows]
    lines.append(
        f"step {found['step']:,}, {found['pairs']:,} pairs; a tie counts half ({found['ties']:,}); "
        f"a guess has {found['minimal_pairs_baseline']:.4f}"
    )
    return "\n".join(lines)


def _number(value: float) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return "undefined" if math.isnan(value) else f"{value:.4f}"


def _paint(piece: str, probability: float, colour: bool) -> str:
    if not colour:
        return f"[{piece}]" if probability >= SUSPICIOUS else piece
    background = BACKGROUNDS[min(int(probability * len(BACKGROUNDS)), len(BACKGROUNDS) - 1)]
    return piece if background is None else f"\033[30;48;5;{background}m{piece}{RESET}"
