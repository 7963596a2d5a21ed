"""Parquet files, streamed: a column of text or of ids, or rows as JSON would have them."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet

from electra_jax.data.compression import READ_SIZE
from electra_jax.data.text_files import first_line, no_column
from electra_jax.errors import UsageError

_ROWS = 256  # decoded at once
_MOST_UNFOLDED = 100  # bytes for each of a file; where there are more, rows are decoded singly
_TEXT_TYPES = (
    pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view,
    pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_null,
)  # fmt: skip


def _open(path: Path) -> pyarrow.parquet.ParquetFile:
    try:
        # A buffer makes column chunks come in pieces; without it they are read whole.
        return pyarrow.parquet.ParquetFile(path, buffer_size=READ_SIZE)
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"{path}: not a readable parquet file: {first_line(error)}") from error


def _rows_at_once(file: pyarrow.parquet.ParquetFile, path: Path) -> int:
    """How many rows are decoded together: a text that many rows share is in memory for each."""
    metadata = file.metadata
    groups = map(metadata.row_group, range(metadata.num_row_groups))
    unfolded = sum(group.total_byte_size for group in groups)
    return 1 if unfolded > _MOST_UNFOLDED * path.stat().st_size else _ROWS


def open_parquet(path: Path, column: str) -> pyarrow.parquet.ParquetFile:
    """Opens a parquet file whose `column` is text: strings of any layout, or bytes.

    Raises:
      UsageError: it is not.
    """
    file = _open(path)
    try:
        check_text_column(file.schema_arrow, column, path)
    except UsageError:
        file.close()
        raise
    return file


def check_text_column(schema: pa.Schema, column: str, path: Path) -> None:
    """Refuses a schema whose `column` is not text: strings of any layout, or bytes.

    Raises:
      UsageError: names the file.
    """
    if schema.names.count(column) != 1:
        raise UsageError(
            f"{path}: two columns are called {column!r}"
            if column in schema.names
            else f"{path}: {no_column(column, schema.names)}"
        )
    kind = schema.field(column).type
    while pa.types.is_dictionary(kind) or isinstance(kind, pa.BaseExtensionType):
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind.storage_type
    if not any(is_text(kind) for is_text in _TEXT_TYPES):
        raise UsageError(f"{path}: column {column!r} is not text but {kind}")


def read_parquet(path: Path, column: str) -> Iterator[tuple[str, int]]:
    """Yields the text of each row's `column`, "" for null, and about the bytes read so far."""
    row = 0
    try:
        with open_parquet(path, column) as file:
            size, rows = path.stat().st_size, max(1, file.metadata.num_rows)
            rows_at_once = _rows_at_once(file, path)
            for batch in file.iter_batches(batch_size=rows_at_once, columns=[column]):
                for value in batch.column(0):
                    row += 1
                    text = value.as_py() or ""
                    yield text if isinstance(text, str) else text.decode(), size * row // rows
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: row {row}: not valid UTF-8: {error.reason}") from error
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"{path}: corrupt after row {row}: {first_line(error)}") from error


def read_parquet_lists(path: Path, column: str) -> Iterator[tuple[np.ndarray, float]]:
    """Yields the whole numbers in each row's `column`, and the share of the rows that is read.

    Null is an empty list.

    Raises:
      UsageError: the file is damaged, or has no such column of lists of whole numbers.
    """
    row = 0
    try:
        with _open(path) as file:
            schema = file.schema_arrow
            if schema.names.count(column) != 1:
                raise UsageError(f"{path}: {no_column(column, schema.names)}")
            kind = schema.field(column).type
            if not _is_list(kind) or not pa.types.is_integer(kind.value_type):
                raise UsageError(f"{path}: column {column!r} is not lists of ids but {kind}")
            rows = max(1, file.metadata.num_rows)
            for batch in file.iter_batches(batch_size=_rows_at_once(file, path), columns=[column]):
                lists = batch.column(0)
                lengths = pa.compute.fill_null(pa.compute.list_value_length(lists), 0)
                values = lists.flatten()  # without those under null
                if values.null_count:
                    raise UsageError(f"{path}: column {column!r} has a null among its ids")
                ends = np.cumsum(lengths.to_numpy(zero_copy_only=False))
                for ids in np.split(values.to_numpy(zero_copy_only=False), ends)[:-1]:
                    row += 1
                    yield ids, row / rows
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"{path}: corrupt after row {row}: {first_line(error)}") from error


def _is_list(kind: pa.DataType) -> bool:
    types = pa.types
    return types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)


def read_parquet_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields where each row stands and its columns; numbers of classes become their names.

    Raises:
      UsageError: the file is damaged, has two columns of one name, or text that is not UTF-8.
    """
    row = 0
    try:
        with _open(path) as file:
            names = file.schema_arrow.names
            if double := [name for name in names if names.count(name) > 1]:
                raise UsageError(f"{path}: two columns are called {double[0]!r}")
            features = _features(file.schema_arrow.metadata or {})
            for batch in file.iter_batches(batch_size=_rows_at_once(file, path)):
                for fields in batch.to_pylist():
                    row += 1
                    yield (
                        f"{path}, row {row}",
                        {key: plain(value, features.get(key)) for key, value in fields.items()},
                    )
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: row {row + 1}: not valid UTF-8: {error.reason}") from error
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"{path}: corrupt after row {row}: {first_line(error)}") from error


def _features(metadata: dict[bytes, bytes]) -> dict[str, Any]:
    """The features that the datasets library writes into a schema; {} if there are none."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    return features if isinstance(features, dict) else {}


def plain(value: Any, feature: Any) -> Any:
    """A value of Arrow as JSON has it; a class as its name, or None if it is -1."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(feature, list):  # of one feature: a list
        feature = {"feature": feature[0]} if feature else None
    feature = feature if isinstance(feature, dict) else {}
    if isinstance(value, list):
        return [plain(part, feature.get("feature", feature)) for part in value]
    if isinstance(value, dict):
        inner = feature.get("feature", feature)
        return {key: plain(part, inner.get(key)) for key, part in value.items()}
    if isinstance(value, float) and math.isnan(value):
        return None
    names = feature.get("names")
    if feature.get("_type") == "ClassLabel" and isinstance(value, int) and isinstance(names, list):
        return str(names[value]) if 0 <= value < len(names) else None
    return value
