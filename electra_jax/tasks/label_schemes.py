"""How labels of words mark spans: IO, IOB1, BIO, BIOES and their like, and what is refused."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from electra_jax.errors import UsageError

SCHEMES = ("auto", "IO", "IOB1", "BIO", "BIOES", "none")
# What stands before the dash of a label: beginning, inside (or middle), end (or last), single
# (or unit).
MARKS = frozenset("BIMELSU")
_ENDS = frozenset("EL")
_STARTS = frozenset("BSU")
_SINGLE = frozenset("SU")
_NUMBER = re.compile(r"-?\d+(\.0+)?")
# Marks written another way: in small letters, before another sign, or behind the kind.
_OTHER_MARKS = (
    re.compile(r"(?P<mark>[bimelsu])-(?P<kind>.+)"),
    re.compile(r"(?P<mark>[BIMELSUbimelsu])(?P<sign>[_:./|])(?P<kind>.+)"),
    re.compile(r"(?P<kind>.+)(?P<sign>[-_:./|])(?P<mark>[BIMELSUbimelsu])"),
)
_BRACKETS = re.compile(r"\(.+\*\)?")  # of CoNLL-2005
_HINT = "or set --config.task.scheme=none (labels of single words) or IO (each label is a kind)"


def is_marked(label: str) -> bool:
    """Whether a label is O, or has a mark before it, as in B-PER."""
    return label == "O" or (label[:1] in MARKS and label[1:2] == "-" and len(label) > 2)


def check_names(labels: Iterable[tuple[str, str]]) -> None:
    """Refuses labels that are all numbers: their names are not known.

    Args:
      labels: where each stands, and what it is.

    Raises:
      UsageError: they are.
    """
    found = list(labels)
    if found and all(_NUMBER.fullmatch(label) for _, label in found):
        raise UsageError(
            f"{found[0][0]}: labels are numbers of classes ({found[0][1]}, …): name the classes "
            "from 0 by --config.task.label_names=O,B-PER,I-PER,…, or, if they are labels of "
            "single words, set --config.task.scheme=none"
        )


def check_marks(labels: Iterable[tuple[str, str]]) -> None:
    """Refuses labels that would be read as what they are not.

    These are an odd label among marked ones, marks written another way (B_PER, PER-B, b-per, bare
    B and I, brackets), and names that only look marked (E-mail).

    Args:
      labels: where each stands, and what it is.

    Raises:
      UsageError: there is one; names its row.
    """
    first: dict[str, str] = {}
    for where, label in labels:
        first.setdefault(label, where)
    odd = [label for label in first if not is_marked(label)]
    if odd and any(label.startswith("B-") and is_marked(label) for label in first):
        raise UsageError(
            f"{first[odd[0]]}: label {odd[0]!r} is neither O nor marked as others are (B-…): "
            f"correct it, {_HINT}"
        )
    if odd and (other := _other_marks(first)):
        raise UsageError(
            f"{first[other]}: label {other!r} seems to mark a span in another way than B-PER, "
            f"I-PER and O: rewrite the labels, {_HINT}"
        )
    if not odd and (doubtful := _doubtful(first)):
        raise UsageError(
            f"{first[doubtful]}: label {doubtful!r} seems marked, but no label begins what it "
            "ends or stands beside: set --config.task.scheme=IO if it is a name as a whole, or "
            "BIOES"
        )


def _other_marks(labels: Iterable[str]) -> str | None:
    """The first label whose mark is written another way, if all are, or some kind has several."""
    spans = [label for label in labels if label not in ("O", "o")]
    if any(_BRACKETS.fullmatch(label) for label in spans):
        return next(label for label in spans if "*" in label)
    if "B" in spans and all(label in MARKS for label in spans):
        return "B"
    for pattern in _OTHER_MARKS:
        marks: dict[tuple[str, str], set[str]] = {}
        matches = [(label, match) for label in spans if (match := pattern.fullmatch(label))]
        for _, match in matches:
            kind = (match["kind"], match.groupdict().get("sign", ""))
            marks.setdefault(kind, set()).add(match["mark"].upper())
        begins = any("B" in found for found in marks.values())
        several = any("B" in found and found & set("IMEL") for found in marks.values())
        if several or (begins and len(matches) == len(spans)):
            return matches[0][0]
    return None


def _doubtful(labels: Iterable[str]) -> str | None:
    """A label of marked ones that ends what none begins, or is single where nothing has ends."""
    marks: dict[str, set[str]] = {}
    for label in labels:
        mark, _, kind = label.partition("-")
        marks.setdefault(kind, set()).add(mark)
    has_ends = any(found & _ENDS for found in marks.values())
    for label in labels:
        mark, _, kind = label.partition("-")
        if mark in "MEL" and not marks[kind] & {"B", "I"}:
            return label
        if mark in _SINGLE and not has_ends:
            return label
    return None


def guess_scheme(sequences: Sequence[Sequence[str]]) -> str:
    """The scheme of labels, by what occurs in them."""
    marks = {label.partition("-")[0] for labels in sequences for label in labels}
    # Kinds may have dashes of their own (building-hotel): only one after a mark tells.
    if not all(is_marked(label) for labels in sequences for label in labels):
        return "none" if "O" not in marks else "IO"
    if marks & (MARKS - {"B", "I"}):
        return "BIOES"
    if "B" not in marks:
        return "IO"
    # In BIO every span starts with B; in IOB1 only one that follows another of its kind.
    starts_inside = any(
        label.startswith("I-") and (index == 0 or labels[index - 1][1:] != label[1:])
        for labels in sequences
        for index, label in enumerate(labels)
    )
    return "IOB1" if starts_inside else "BIO"


def check_scheme(labels: Sequence[str], scheme: str, accepted: Iterable[str], where: str) -> None:
    """Refuses a label that a scheme does not have.

    Args:
      labels: of one sentence.
      scheme: that they are read by.
      accepted: marks that may stand before the dash.
      where: the sentence.

    Raises:
      UsageError: there is one.
    """
    if scheme in ("none", "IO"):
        return
    for label in labels:
        if not is_marked(label) or (label != "O" and label[0] not in accepted):
            raise UsageError(
                f"{where}: label {label!r} is neither O nor marked as {scheme} marks spans "
                f"(B-…): correct it, {_HINT}"
            )


def to_bio(labels: Sequence[str], scheme: str) -> list[str]:
    """Labels of a scheme as BIO; those of any scheme with marks are told by their marks.

    A label inside a span that none has begun begins one.
    """
    if scheme == "none":
        return list(labels)
    result: list[str] = []
    previous = ""
    for label in labels:
        mark, dash, kind = label.partition("-")
        if label == "O":
            result.append("O")
            previous = ""
            continue
        if scheme == "IO":
            kind = kind if mark == "I" and dash else label
            starts = kind != previous
            ends = False
        else:
            starts = mark in _STARTS or kind != previous
            ends = mark in _ENDS | _SINGLE
        result.append(f"{'B' if starts else 'I'}-{kind}")
        previous = "" if ends else kind
    return result


def spans(words: Sequence[str], labels: Sequence[str]) -> list[dict[str, Any]]:
    """The spans that BIO labels mark: kind, first word, word past the last, text."""
    found: list[dict[str, Any]] = []
    for index, label in enumerate(labels):
        mark, _, kind = label.partition("-")
        goes_on = mark == "I" and found and found[-1]["end"] == index
        if goes_on and found[-1]["kind"] == kind:
            found[-1]["end"] = index + 1
        elif label != "O":
            found.append({"kind": kind, "start": index, "end": index + 1})
    for span in found:
        span["text"] = " ".join(words[span["start"] : span["end"]])
    return found
