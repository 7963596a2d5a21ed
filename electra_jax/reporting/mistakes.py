"""What a fine-tuned model gets wrong: which labels it takes for which, and its worst mistakes."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from electra_jax.tasks.task import Judgement

MOST_LABELS = 12  # of a whole table; of more labels only those that are confused most are shown
MOST_PAIRS = 12
MOST_EXAMPLES = 12
LONGEST_TEXT = 400  # characters


class Cell(NamedTuple):
    """How often a gold label got an answer.

    Attributes:
      times: of all its labels.
      tint: from 0 to 10, the share of the gold label's.
      right: whether the answer is the gold label.
    """

    times: int
    tint: int
    right: bool


class Confused(NamedTuple):
    """Two labels of which one is taken for the other."""

    gold: str
    answer: str
    times: int
    of: int  # labels that are gold


class Mistakes(NamedTuple):
    """The mistakes of a model on validation rows.

    Attributes:
      rows, wrong: how many were answered, and how many of them not right.
      labels, table: the confusion table; empty where there are no labels, or too many.
      pairs: the labels that are confused most.
      examples: the worst mistakes: wrong answers, the most certain first.
    """

    rows: int
    wrong: int
    labels: list[str]
    table: list[tuple[str, list[Cell]]]
    pairs: list[Confused]
    examples: list[Judgement]


def mistakes(judgements: Sequence[Judgement]) -> Mistakes | None:
    """Counts and sorts judgements; None if there are none."""
    if not judgements:
        return None
    counts = Counter(pair for judgement in judgements for pair in judgement.labels)
    gold: Counter[str] = Counter()
    for (label, _), count in counts.items():
        gold[label] += count
    labels = sorted({label for pair in counts for label in pair})
    confused = [
        Confused(one, other, count, gold[one])
        for (one, other), count in counts.most_common()
        if one != other
    ]
    small = len(labels) <= MOST_LABELS
    wrong = [judgement for judgement in judgements if not judgement.right]
    worst = sorted(wrong, key=lambda one: -one.certainty)[:MOST_EXAMPLES]
    return Mistakes(
        rows=len(judgements),
        wrong=len(wrong),
        labels=labels if small else [],
        table=[(one, _cells(one, labels, counts, gold[one])) for one in labels] if small else [],
        pairs=confused[:MOST_PAIRS],
        examples=[_shortened(one) for one in worst],
    )  # fmt: skip


def _cells(
    gold: str, labels: Sequence[str], counts: Counter[tuple[str, str]], total: int
) -> list[Cell]:
    found = [counts[gold, answer] for answer in labels]
    return [
        Cell(count, round(10 * count / max(total, 1)), answer == gold)
        for answer, count in zip(labels, found, strict=True)
    ]


def _shortened(one: Judgement) -> Judgement:
    return one._replace(
        text=_shorten(one.text), gold=_shorten(one.gold), answer=_shorten(one.answer)
    )


def _shorten(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else f"{text[: LONGEST_TEXT - 1]}…"
