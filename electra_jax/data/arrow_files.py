"""Arrow files, streamed: a column of text, as `datasets` caches and `save_to_disk` leave it."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc

from electra_jax.data.parquet_files import check_text_column
from electra_jax.data.text_files import first_line
from electra_jax.errors import UsageError

_FILE_START = b"ARROW1"  # of the file format; what the datasets library writes is a stream
_ROWS = 256  # decoded at once


def check_arrow(path: Path, column: str) -> None:
    """Refuses an Arrow file whose `column` is not text.

    Raises:
      UsageError: says what it is instead.
    """
    try:
        with pa.memory_map(str(path)) as source:
            check_text_column(_open(source)[0], column, path)
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"{path}: not a readable Arrow file: {first_line(error)}") from error


def read_arrow(path: Path, column: str) -> Iterator[tuple[str, int]]:
    """Yields the text of each row's `column`, "" for null, and about the bytes read so far."""
    check_arrow(path, column)
    row = 0
    try:
        size = path.stat().st_size
        with pa.memory_map(str(path)) as source:
            _, batches, number = _open(source)
            for index, batch in enumerate(batches, start=1):
                values = batch.column(column)
                # A stream does not say how many batches there are, but where it is.
                consumed = size * index // number if number else source.tell()
                for start in range(0, len(values), _ROWS):
                    for value in values[start : start + _ROWS]:
                        row += 1
                        text = value.as_py() or ""
                        yield text if isinstance(text, str) else text.decode(), consumed
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: row {row}: not valid UTF-8: {error.reason}") from error
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"{path}: corrupt after row {row}: {first_line(error)}") from error


def _open(source: pa.MemoryMappedFile) -> tuple[pa.Schema, Iterator[pa.RecordBatch], int]:
    """The schema of a file, its batches, and their number; 0 if that is not known."""
    start = source.read(len(_FILE_START))
    source.seek(0)
    if start == _FILE_START:
        file = pyarrow.ipc.open_file(source)
        number = file.num_record_batches
        return file.schema, map(file.get_batch, range(number)), number
    stream = pyarrow.ipc.open_stream(source)
    return stream.schema, iter(stream), 0
