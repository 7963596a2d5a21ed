"""Held-out texts as the two networks saw them."""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

from electra_jax.reporting.numbers import count

SUSPICION = 0.5  # from which on the discriminator calls a token replaced
CONTINUES, BEGINS = "##", "▁"  # marks of word pieces


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


class Shown(NamedTuple):
    """A token on the page.

    Attributes:
      text: its letters.
      joined: whether it continues the word before.
      special: whether it is [CLS] or another token that is not text.
      marked: whether there is anything to say of it.
      original: what stood there; "" where the same token stands there.
      share: what the discriminator thinks.
      outcome: "caught", "missed", "false alarm", or "" for an original that was let pass.
      tint: from 0 to 10, how suspicious it is.
    """

    text: str
    joined: bool
    special: bool
    marked: bool
    masked: bool
    original: str
    share: str
    outcome: str
    tint: int


class ShownSample(NamedTuple):
    """A text on the page, and what became of its replaced tokens."""

    tokens: list[Shown]
    summary: str


def show(sample: Sample) -> ShownSample:
    """A sample as the page shows it."""
    spaced = any(token.original.startswith(BEGINS) for token in sample.tokens)
    shown = [_show(token, spaced) for token in sample.tokens]
    for index in range(1, len(shown)):
        if shown[index - 1].special:
            shown[index] = shown[index]._replace(joined=False)
    outcomes = [token.outcome for token in shown]
    parts = [f"{sum(token.masked for token in shown)} masked"]
    parts += [f"{n} {name}" for name in ("caught", "missed") if (n := outcomes.count(name))]
    if alarms := outcomes.count("false alarm"):
        parts.append(count(alarms, "false alarm"))
    return ShownSample(shown, ", ".join(parts))


def _show(token: SampleToken, spaced: bool) -> Shown:
    piece, joined = _letters(token.piece, spaced)
    known = not math.isnan(token.probability)
    suspected = known and token.probability >= SUSPICION
    outcome = ""
    if token.replaced:
        outcome = "caught" if suspected else "missed"
    elif suspected:
        outcome = "false alarm"
    return Shown(
        text=piece,
        joined=joined,
        special=token.piece.startswith("[") and token.piece.endswith("]") and not token.masked,
        marked=token.masked or suspected or token.replaced,
        masked=token.masked,
        original=_letters(token.original, spaced)[0] if token.replaced else "",
        share=f"{token.probability:.0%}" if known else "",
        outcome=outcome,
        tint=round(10 * token.probability) if known else 0,
    )


def _letters(piece: str, spaced: bool) -> tuple[str, bool]:
    """A piece without its mark, and whether it continues a word."""
    if spaced:
        return piece.removeprefix(BEGINS) or piece, not piece.startswith((BEGINS, "["))
    if piece.startswith(CONTINUES) and piece != CONTINUES:
        return piece.removeprefix(CONTINUES), True
    return piece, False
