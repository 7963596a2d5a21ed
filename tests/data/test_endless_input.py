"""Files of a few kilobytes that unfold to more than memory holds are refused before it is full."""

import gzip

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from electra_jax.data import json_values, labelled, text_files
from electra_jax.data.labelled import read_rows
from electra_jax.data.parquet_files import read_parquet, read_parquet_rows
from electra_jax.errors import UsageError


@pytest.fixture
def small(monkeypatch):
    """Limits that a test reaches quickly."""
    monkeypatch.setattr(text_files, "_LONGEST", 1 << 16)
    monkeypatch.setattr(json_values, "_LONGEST", 1 << 18)
    monkeypatch.setattr(labelled, "LONGEST_CELL", 1 << 18)
    monkeypatch.setattr(labelled, "LONGEST_SENTENCE", 1000)


@pytest.mark.parametrize(
    "kind, start, line",
    [
        ("jsonl", b'{"text": "', b"x" * 1000),
        ("json", b'{"text": "', b"x" * 1000),
        ("json", b'[{"text": "a"}, {"text": [', b"[1, 2], " * 100),
        ("squad", b'{"data": [{"paragraphs": ["', b"x" * 1000),
        ("csv", b'text\n"', b"x" * 1000 + b"\n"),
        ("csv", b"text\n", b"x" * 1000),
        ("tsv", b"text\n", b"x" * 1000),
        ("conll", b"", b"word O\n" * 100),
        ("lines", b"", b"x" * 1000),
    ],
)
def test_what_never_ends_is_refused(tmp_path, small, kind, start, line):
    file = tmp_path / "rows.gz"
    with gzip.open(file, "wb", 1) as stream:
        stream.write(start)
        for _ in range(20):
            stream.write(line * 1000)
    taken = 0

    def rows():
        nonlocal taken
        for row in read_rows(f"{kind}:{file}"):
            taken += 1
            yield row

    with pytest.raises(UsageError, match=r"over|limit|no blank line"):
        list(rows())
    assert taken <= 1


@pytest.mark.parametrize("read", [lambda p: read_parquet(p, "text"), read_parquet_rows])
def test_a_text_that_many_rows_share_is_in_memory_for_few(tmp_path, read):
    """A file of some hundred bytes, in whose rows are eight gigabytes."""
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 2000, pa.int32()), ["x" * (4 << 20)])
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": text}), path, compression="zstd", store_schema=False)
    assert path.stat().st_size < 2000
    held = []
    for _ in zip(read(path), range(8), strict=False):
        held.append(pa.total_allocated_bytes())
    assert max(held) < 100 << 20
