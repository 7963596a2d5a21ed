"""JSON decoded value by value, as its text arrives: files of any size, on one line or many."""

import itertools
import json
import re
from collections.abc import Generator, Iterable, Iterator
from typing import Any

from electra_jax.errors import UsageError

_PIECE = 1 << 16  # characters that are asked for at once, at least
_LONGEST = 1 << 28  # characters of a value
_LONGEST_ATOM = 16  # characters: a number or a word that is cut off at the end may be valid
_WHITE_SPACE = re.compile(r"[ \t\n\r]*")
_START_OF_REST = re.compile(r"\.?|[eE][+-]?")  # of a number that is cut off
_DECODER = json.JSONDecoder()


def parse_json(text: str) -> Any:
    """A JSON value.

    Raises:
      ValueError, RecursionError: it is not JSON, or nested too deeply.
    """
    value = json.loads(text)
    return encodable(value) if "\\u" in text else value


def without_surrogates(text: str) -> str:
    r"""Replaces halves of surrogate pairs, which JSON can write (\ud83d) and UTF-8 cannot."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def encodable(value: Any) -> Any:
    """A value without the halves of surrogate pairs that JSON can write and UTF-8 cannot."""
    if isinstance(value, str):
        return without_surrogates(value)
    if isinstance(value, list):
        return [encodable(part) for part in value]
    if isinstance(value, dict):
        return {without_surrogates(key): encodable(part) for key, part in value.items()}
    return value


class JsonText:
    """Text of JSON that is read from its start, as far as is needed for the next value."""

    def __init__(self, lines: Iterable[tuple[int, str]], name: str) -> None:
        """Reads numbered pieces of text; messages call the file `name`."""
        self._lines = iter(lines)
        self._name = name
        self._text = ""
        self._at = 0
        self._line = 1  # at the start of `_text`

    @property
    def where(self) -> str:
        """Such as train.json:12."""
        return f"{self._name}:{self._line + self._text.count(chr(10), 0, self._at)}"

    def error(self, message: str) -> UsageError:
        return UsageError(f"{self.where}: {message}")

    def peek(self) -> str:
        """The next character that is not white space; "" at the end."""
        while True:
            self._at = _WHITE_SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._read_on():
                return ""

    def take(self, expected: str) -> str:
        """The next character, which must be one of `expected`."""
        found = self.peek()
        if not found or found not in expected:
            choice = " or ".join(map(repr, expected))
            raise self.error(f"not valid JSON: {choice} is missing")
        self._at += 1
        return found

    def value(self) -> Any:
        """Decodes the next value."""
        self.peek()
        while True:
            end, problem = len(self._text), None
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except (ValueError, RecursionError) as error:
                problem = error
            # What touches the end of the text read so far may continue behind it: 1, and 1.0e
            if problem is None and not _START_OF_REST.fullmatch(self._text, end):
                break
            if not (problem is None or self._may_be_cut(problem)) or not self._read_on():
                if problem is None:
                    break
                message = getattr(problem, "msg", str(problem))
                self._at = max(self._at, getattr(problem, "pos", 0))
                raise self.error(f"not valid JSON: {message}") from problem
        has_escape = self._text.find("\\u", self._at, end) >= 0
        self._at = end
        return encodable(value) if has_escape else value

    def elements(self) -> Iterator[Any]:
        """Decodes the elements of an array whose bracket comes next, one by one."""
        self.take("[")
        if self.peek() == "]":
            self.take("]")
            return
        while True:
            yield self.value()
            if self.take(",]") == "]":
                return

    def object_keys(self) -> Iterator[str]:
        """The keys of an object whose brace comes next; each key's value must be taken."""
        self.take("{")
        if self.peek() == "}":
            self.take("}")
            return
        while True:
            if self.peek() != '"':
                raise self.error("not valid JSON: a key in double quotes is missing")
            key = self.value()
            self.take(":")
            yield key
            if self.take(",}") == "}":
                return

    def _may_be_cut(self, problem: Exception) -> bool:
        message = getattr(problem, "msg", "")
        near_end = getattr(problem, "pos", -1) >= len(self._text) - _LONGEST_ATOM
        return bool(message) and (near_end or message.startswith("Unterminated string"))

    def _read_on(self) -> bool:
        """Reads about as much again as is held; returns False at the end."""
        held = self._text[self._at :]
        self._line += self._text.count("\n", 0, self._at)
        parts, size = [held], 0
        for _, piece in self._lines:
            parts.append(piece)
            size += len(piece)
            if size >= max(_PIECE, len(held)):
                break
        self._text, self._at = "".join(parts), 0
        if len(held) > _LONGEST:
            raise self.error(f"a value of over {_LONGEST >> 20} million characters")
        return size > 0


def read_records(
    lines: Iterable[tuple[int, str]], name: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a JSON file, and where each stands.

    They are those of an array, of the array `data` of an object (as in SQuAD's format), or stand
    one after another, on a line each or on several.

    Raises:
      UsageError: the text is not JSON, or holds something else.
    """
    text = JsonText(lines, name)
    first = text.peek()
    if first == "[":
        yield from _numbered(text, text.elements(), name)
    elif first == "{":
        is_wrapped = yield from _first_object(text, name)
        if is_wrapped and text.peek():
            raise text.error(f"more follows the object that holds the rows: write jsonl:{name}")
    while text.peek():
        if first != "{":
            raise text.error("not a JSON object, nor an array of objects")
        where = text.where
        yield where, as_object(text.value(), where)


def _first_object(text: JsonText, name: str) -> Generator[tuple[str, dict[str, Any]], None, bool]:
    """The object as a row, or the rows in its array `data`; returns whether it had them."""
    where, fields, is_wrapped = text.where, {}, False
    for key in text.object_keys():
        if key != "data" or text.peek() != "[":
            fields[key] = text.value()
            continue
        elements = text.elements()
        start = list(itertools.islice(elements, 1))
        if start and isinstance(start[0], dict):
            is_wrapped = True
            yield from _numbered(text, itertools.chain(start, elements), name)
        else:
            fields[key] = [*start, *elements]
    if not is_wrapped:
        yield where, fields
    return is_wrapped


def _numbered(
    text: JsonText, values: Iterable[Any], name: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, value in enumerate(values, start=1):
        if not isinstance(value, dict):
            raise text.error("not a JSON object")
        # Rows that share a line are told apart by their numbers.
        yield f"{name}, row {number}", value


def as_object(value: Any, where: str) -> dict[str, Any]:
    """`value`, if it is an object.

    Raises:
      UsageError: it is not.
    """
    if not isinstance(value, dict):
        raise UsageError(f"{where}: not a JSON object")
    return value
