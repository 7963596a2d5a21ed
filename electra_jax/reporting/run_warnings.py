"""The warnings of a run, from the lines of its log."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from electra_jax.training.metrics import WARNINGS


class Warned(NamedTuple):
    """A warning of a run; one that was not over at the end has no last step."""

    name: str
    text: str
    first_step: int
    last_step: int | None


def warnings(lines: Sequence[Mapping[str, Any]]) -> list[Warned]:
    """The warnings of a run in the order in which they began."""
    found: list[Warned] = []
    current: dict[str, int] = {}  # index of a warning that is not over, by name
    for line in lines:
        for name, text in line.get(WARNINGS, {}).items():
            if name in current:
                index = current.pop(name)
                found[index] = found[index]._replace(last_step=line["step"])
            if text is not None:
                current[name] = len(found)
                found.append(Warned(name, text, line["step"], None))
    return found
