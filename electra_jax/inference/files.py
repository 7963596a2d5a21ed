"""Files and streams of rows through a model: answers and vectors."""

import codecs
import contextlib
import json
import queue
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import numpy as np

from electra_jax.data.labelled import FORMATS, Row, kind_of, parse_rows, read_file
from electra_jax.data.source_list import split_list, unescape
from electra_jax.data.text_files import decode
from electra_jax.errors import UsageError
from electra_jax.inference.finetuned import CHUNK, FinetunedModel, as_row, chunked, load
from electra_jax.system.atomic_files import output_path
from electra_jax.system.progress import Progress
from electra_jax.system.streams import Nowhere

STANDARD_INPUT = "-"
LINES = "lines"  # the format where nothing tells another: a text each


def read_input(path: str, kind: str, columns: Sequence[str] = ()) -> Iterator[Row]:
    """The rows of a file, or of standard input, as they come.

    Args:
      path: a file, or "-".
      kind: its format; empty for what its ending tells, or else a text a line.
      columns: of csv and tsv without a header.

    Raises:
      UsageError: no such file or format, or a line breaks the format.
    """
    if kind and kind not in FORMATS:
        raise UsageError(f"--format={kind} is unknown; use {', '.join(FORMATS)}")
    if path == STANDARD_INPUT:
        if kind == "parquet":
            raise UsageError("parquet is not read from a pipe: name the file")
        lines = ((n, decode(x, "stdin", n)) for n, x in read_stdin())
        return parse_rows(lines, kind or LINES, "stdin", columns)
    return read_file(Path(path), kind or kind_of(path) or LINES, columns)


def read_stdin() -> Iterator[tuple[int, bytes]]:
    """Numbered lines, without the mark that some programs put before the first."""
    try:
        # Not sys.stdin itself, which Python could not close while a thread waits for a line.
        stream: BinaryIO = open(sys.stdin.fileno(), "rb", closefd=False)  # noqa: SIM115
    except (OSError, ValueError):  # not a file
        stream = sys.stdin.buffer
    for number, line in enumerate(stream, start=1):
        yield number, line.removeprefix(codecs.BOM_UTF8) if number == 1 else line


def predict_file(model_dir: str, path: str, output: str, kind: str, checkpoint: str) -> None:
    """Answers each row of a file in JSON lines, as they come; says how fast.

    Raises:
      UsageError: no fine-tuned model, or the input cannot be read.
    """
    model = load(model_dir, checkpoint)
    if not isinstance(model, FinetunedModel):
        raise UsageError(f"{model_dir} is not fine-tuned: see `electra-jax finetune`")
    rows = read_input(path, kind, model.task.column_names)
    if (kind or kind_of(path) or LINES) == LINES:
        rows = (as_row(model.task, split_line(model, row), row.where) for row in rows)
    chunks = arriving(rows) if path == STANDARD_INPUT else chunked(rows)
    start, count = time.monotonic(), 0
    with open_output(output) as file, Progress(unit="rows") as bar:
        for chunk in chunks:
            answers = model.answer_rows(chunk)
            for answer in answers:
                file.write(json.dumps(answer, ensure_ascii=False) + "\n")
            file.flush()
            count += len(answers)
            bar.add(len(answers))
    seconds = time.monotonic() - start
    print(f"{count:,} rows in {seconds:.1f} s, {count / seconds:,.0f} a second", file=sys.stderr)
    if model.full_rows:
        length = model.config.train.length
        print(
            f"{model.full_rows:,} fill {length} tokens: they are cut, or go on in further rows",
            file=sys.stderr,
        )
    for what, number in model.task.cut.items():
        print(f"{number:,} {what}", file=sys.stderr)
    if model.empty_rows:
        count, first = len(model.empty_rows), model.empty_rows[0]
        print(f"{count:,} have no text (the first: {first})", file=sys.stderr)


def arriving(rows: Iterator[Row]) -> Iterator[list[Row]]:
    """Rows as they come: all that are there, so that whoever writes them slowly gets answers."""
    waiting: queue.Queue[Row | BaseException | None] = queue.Queue(CHUNK)

    def read() -> None:
        last: BaseException | None = None
        try:
            for row in rows:
                waiting.put(row)
        except BaseException as error:  # to be raised by the one who waits for rows
            last = error
        waiting.put(last)

    threading.Thread(target=read, daemon=True).start()
    while True:
        items = [waiting.get()]
        while len(items) < CHUNK and not waiting.empty():
            items.append(waiting.get())
        if chunk := [item for item in items if isinstance(item, Row)]:
            yield chunk
        end = items[-1]
        if isinstance(end, BaseException):
            raise end
        if end is None:
            return


def split_line(model: FinetunedModel, row: Row) -> Any:
    """A line as the task's input; tabs part its columns where it takes several."""
    text = row.fields["text"]
    return text if len(model.task.input_columns) == 1 else text.split("\t")


def embed_file(
    model_dir: str, path: str, output: str, kind: str, column: str, pooling: str, checkpoint: str
) -> tuple[int, ...]:
    """Writes the vectors of a file's texts as a NumPy array; returns its shape.

    A text may be of several columns, joined by commas: it is them with a space between.

    Raises:
      UsageError: no model, the input cannot be read, or is empty, or the output cannot be written.
    """
    if not Path(output).parent.is_dir():
        raise UsageError(f"{output} cannot be written: there is not a folder {Path(output).parent}")
    model = load(model_dir, checkpoint)
    columns = [unescape(name) for name in split_list(column)]
    texts = [" ".join(map(row.text, columns)).strip() for row in read_input(path, kind)]
    if not texts:
        raise UsageError(f"{path}: there is no text in it")
    vectors = model.embed(texts, pooling, progress=True)
    with _writing(output), output_path(output) as place, place.open("wb") as file:
        # Neither to a path, to which NumPy would add an ending, nor to a file, in which it would
        # look for its place: a pipe has none.
        np.lib.format.write_array(Written(file), vectors)
    return vectors.shape


class Written:
    """A file, or a pipe, that is written and nothing else."""

    def __init__(self, file: BinaryIO) -> None:
        self.write = file.write


@contextlib.contextmanager
def open_output(path: str) -> Iterator[TextIO]:
    """A file that takes its name when it is whole, or standard output."""
    if path == STANDARD_INPUT:
        if isinstance(sys.stdout, Nowhere):
            raise UsageError("standard output is closed: give --output FILE")
        if hasattr(sys.stdout, "reconfigure"):  # whatever the locale says
            sys.stdout.reconfigure(encoding="utf-8", newline="\n")
        yield sys.stdout
        return
    with (
        _writing(path),
        output_path(path) as place,
        place.open("w", encoding="utf-8", newline="\n") as file,
    ):
        yield file


@contextlib.contextmanager
def _writing(path: str) -> Iterator[None]:
    """Errors of the file system, as one line."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from error
