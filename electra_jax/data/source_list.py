r"""Lists of paths in one text, as configs and flags have them: "a.csv,b.csv", "a:0.7,b:0.3".

A comma or a colon that belongs to a name is written `\,` or `\:`. What exists as it is written
needs no backslash: a file called "cats, dogs.csv" is that file.
"""

import re
from collections.abc import Callable

_SEPARATOR = re.compile(r"(?<!\\),")
_ESCAPED = re.compile(r"\\([,:])")


def split_list(text: str, exists: Callable[[str], bool] = lambda part: False) -> list[str]:
    """The parts between commas, stripped; empty ones are left out.

    Backslashes stay (see `unescape`): a part may consist of a path and something else.

    Args:
      text: the list.
      exists: whether a part, with commas in it perhaps, is there as it is written; the longest
        that is there is one part.
    """
    pieces = _SEPARATOR.split(text)
    parts = []
    start = 0
    while start < len(pieces):
        end = len(pieces)
        while end > start + 1 and not exists(",".join(pieces[start:end]).strip()):
            end -= 1
        parts.append(",".join(pieces[start:end]).strip())
        start = end
    return [part for part in parts if part]


def unescape(text: str) -> str:
    r"""`text` with "," and ":" for "\," and "\:"."""
    return _ESCAPED.sub(r"\1", text)


def escape(text: str) -> str:
    r"""The inverse of `unescape`."""
    return re.sub(r"([,:])", r"\\\1", text)


def split_last_colon(text: str) -> tuple[str, str | None]:
    r"""What stands before and after the last colon that has no backslash; None: there is none."""
    found = list(re.finditer(r"(?<!\\):", text))
    return (text[: found[-1].start()], text[found[-1].end() :]) if found else (text, None)
