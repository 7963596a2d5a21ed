"""Answers as spans: of the characters of a text, and of the tokens of its windows."""

import unicodedata

import numpy as np

from electra_jax.data.examples import Example


def cut_windows(size: int, room: int, stride: int) -> list[slice]:
    """Windows of at most `room` out of `size` tokens, until the last token is in one.

    Each shares at least half of its tokens with the one before, however large the stride.
    """
    stride = max(1, min(stride, room // 2))
    count = 1 + max(0, -(-(size - room) // stride))
    return [slice(index * stride, index * stride + room) for index in range(count)]


def token_span(offsets: np.ndarray, characters: tuple[int, int]) -> tuple[int, int] | None:
    """The first and last token that stand for characters [start, end); None if none does.

    At its ends an answer may have characters that the tokenizer drops, such as accents.
    """
    start, end = characters
    covered = np.flatnonzero((offsets[:, 0] < end) & (offsets[:, 1] > start))
    return (int(covered[0]), int(covered[-1])) if len(covered) else None


def answer_text(context: str, example: Example, first: int, last: int) -> str:
    """The text of tokens `first` to `last`, with the characters at its ends that belong to it.

    These are marks on the last letter, and characters that cannot be seen, which no token stands
    for, between the text and what is not a word.
    """
    starts, ends = (example.targets[f"{side}_character"] for side in ("first", "last"))
    start, end = int(starts[first]), int(ends[last])
    if start >= end:
        return ""

    def category(place: int) -> str:
        return unicodedata.category(context[place]) if 0 <= place < len(context) else "Zs"

    def is_attached(place: int) -> bool:
        kind = category(place)[0]
        return kind == "M" or (kind == "C" and not context[place].isspace())

    while category(end)[0] == "M":
        end += 1
    following = int(starts[last + 1]) if starts[last + 1] >= 0 else len(context)
    reach = end
    while reach < following and is_attached(reach):
        reach += 1
    end = end if category(reach)[0] in "LN" else reach
    before = max(0, int(ends[first - 1]))
    reach = start
    while reach > before and is_attached(reach - 1):
        reach -= 1
    start = start if category(reach - 1)[0] in "LN" else reach
    return context[start:end]
