"""Readers on generated input: what is written is read back, and nothing ends in a traceback."""

import bz2
import csv
import gzip
import io
import json
import lzma
import unicodedata

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from electra_jax.data import json_values
from electra_jax.data.documents import Documents
from electra_jax.data.labelled import ENDINGS, FORMATS, read_rows
from electra_jax.data.labelled_row import MISSING, clean_label
from electra_jax.data.sampler import parse_stores
from electra_jax.data.source_list import split_list, unescape
from electra_jax.data.text_files import read_lines
from electra_jax.errors import UsageError

quick = settings(
    max_examples=30, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
COMPRESS = {
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
    ".zst": zstandard.ZstdCompressor(write_checksum=True).compress,
}
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff"))
names = st.text("abc,: \\é", min_size=1, max_size=6)


def read_or_refuse(read):
    """What `read` returns, or None if it refuses in one line."""
    try:
        return read()
    except UsageError as error:
        assert "\n" not in str(error)
        return None


# --- compressed files ---


@pytest.mark.parametrize("ending", COMPRESS)
@quick
@given(st.lists(st.binary(max_size=200), min_size=1, max_size=4), st.integers(0, 3))
def test_all_streams_of_a_file_are_read_with_zero_bytes_between_them(
    tmp_path, ending, parts, padding
):
    parts = [part.replace(b"\0", b"x") for part in parts]  # a head of zero bytes is refused
    path = tmp_path / f"a{ending.upper()}"
    path.write_bytes(b"".join(COMPRESS[ending](b"text\n" + p) + bytes(4 * padding) for p in parts))
    lines = b"".join(line for _, line, _ in read_lines(path))
    bom = b"\xef\xbb\xbf"
    assert lines.replace(bom, b"") == b"".join(b"text\n" + p for p in parts).replace(bom, b"")


@pytest.mark.parametrize("ending", COMPRESS)
@quick
@given(st.data())
def test_a_wrong_byte_or_a_cut_is_refused_or_changes_nothing(tmp_path, ending, data):
    streams = [COMPRESS[ending](f"Document {i} on cats.\n\n".encode()) for i in range(3)]
    whole = bytearray(b"".join(streams))
    at = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        whole[at] ^= data.draw(st.integers(1, 255))
    else:
        ends = {0, len(streams[0]), len(streams[0]) + len(streams[1])}
        whole = whole[: at + (at in ends)]  # between streams nothing tells that one is missing
    path = tmp_path / f"a.txt{ending}"
    path.write_bytes(whole)
    read = read_or_refuse(lambda: list(Documents([f"text:{path}"])))
    assert read in (None, [f"Document {i} on cats." for i in range(3)])


# --- what is written is read back ---


@quick
@given(st.lists(st.dictionaries(texts, texts | st.none() | st.integers(), min_size=1), min_size=1))
def test_json_is_read_back_in_every_shape(tmp_path, rows):
    shapes = {
        "lines.jsonl": "".join(json.dumps(row) + "\n" for row in rows),
        "lines.json": "\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows),
        "indented.json": "\n".join(json.dumps(row, indent=1) for row in rows),
        "array.json": json.dumps(rows),
        "array.jsonl": json.dumps(rows, indent=2),
        "data.json": json.dumps({"version": 1, "data": rows, "after": [{}]}),
    }
    for name, content in shapes.items():
        (tmp_path / name).write_text(content, encoding="utf-8-sig", newline="")
        assert [row.fields for row in read_rows(str(tmp_path / name))] == rows, name


@quick
@given(st.recursive(texts | st.none() | st.floats() | st.integers(), st.lists), st.integers(1, 40))
@example([1e16, -1.5e-7], 5)
@example(1e16, 1)
@example(1.25, 2)
def test_json_in_pieces_is_the_same_as_whole(value, size):
    text = json.dumps(value, ensure_ascii=False)
    pieces = [(1, text[i : i + size]) for i in range(0, len(text), size)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_values, "_PIECE", 1)
        assert repr(json_values.JsonText(pieces, "x").value()) == repr(json.loads(text))


@quick
@given(st.lists(st.tuples(texts, texts), min_size=1))
def test_csv_is_read_back_whatever_is_in_a_cell(tmp_path, rows):
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\r\n")
    writer.writerows([("text", "label"), *rows])
    path = tmp_path / "a.CSV"
    path.write_text(buffer.getvalue(), encoding="utf-8-sig", newline="")
    expected = [tuple(None if cell in MISSING else cell for cell in row) for row in rows]
    assert [tuple(row.fields.values()) for row in read_rows(str(path))] == expected


@quick
@given(
    st.lists(
        st.lists(st.tuples(st.text("ab#\xa0\u3000\x1f\"'", max_size=3), st.sampled_from("OB")),
                 min_size=1),
        min_size=1,
    )
)  # fmt: skip
def test_conll_is_read_back_with_empty_words_and_no_break_spaces(tmp_path, sentences):
    path = tmp_path / "a.conll"
    content = ("".join(f"{w}\t{label} \n" for w, label in words) + "\n" for words in sentences)
    path.write_text("".join(content), "utf-8")
    read = [list(zip(*row.fields.values(), strict=True)) for row in read_rows(str(path))]
    assert read == [[(word, label, label) for word, label in words] for words in sentences]


TEXT_TYPES = {
    "string": pa.string(), "large": pa.large_string(), "view": pa.string_view(),
    "binary": pa.binary(), "large binary": pa.large_binary(),
    "dictionary": pa.dictionary(pa.int32(), pa.string()),
}  # fmt: skip


@pytest.mark.parametrize("kind", TEXT_TYPES.values(), ids=TEXT_TYPES)
@quick
@given(st.lists(texts | st.none(), min_size=1))
def test_parquet_is_read_back_in_every_layout_of_text(tmp_path, kind, values):
    path = tmp_path / "a.parquet"
    is_bytes = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    cells = [v.encode() if is_bytes and v is not None else v for v in values]
    try:
        pq.write_table(pa.table({"text": pa.array(cells, kind), "n": range(len(cells))}), path)
    except pa.ArrowNotImplementedError:
        pytest.skip(f"this version of pyarrow does not write {kind}")
    assert [row.fields["text"] for row in read_rows(str(path))] == values
    kept = [text.strip() for text in values if text and text.strip()]
    assert (read_or_refuse(lambda: list(Documents([f"parquet:{path}"]))) or []) == kept


# --- anything at all ---

SNIPPETS = [
    b'{"', b'"}', b'[{"a": ', b"]", b"{", b"}", b",", b":", b"\\ud83d", b'"', b"\t", b"\n", b"\r",
    b"\xef\xbb\xbf", b"\xff", b"\0", b"#", b"text,label\n", b'"data": [', b'"paragraphs": [',
    b'"qas": [', b"NaN", b"1" * 5000, b"-DOCSTART-", b"\xc2\xa0", b"PK\x03\x04", b"\x1f\x8b",
    b"PAR1", b"BZh91AY&SY", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"[" * 2000,
]  # fmt: skip
ANYTHING = st.lists(st.sampled_from(SNIPPETS) | st.binary(max_size=4), max_size=12).map(b"".join)


@pytest.mark.parametrize("kind", FORMATS)
@quick
@given(ANYTHING)
def test_no_rows_end_in_a_traceback(tmp_path, kind, content):
    path = tmp_path / "anything"
    path.write_bytes(content)
    rows = read_or_refuse(lambda: list(read_rows(f"{kind}:{path}"))) or []
    for row in rows:
        for column in row.fields:
            read_or_refuse(lambda column=column, row=row: row.label(column))
            read_or_refuse(lambda column=column, row=row: row.texts(column))


@pytest.mark.parametrize("scheme", ["text", "jsonl", "parquet"])
@pytest.mark.parametrize("ending", ["", *COMPRESS])
@quick
@given(ANYTHING)
def test_no_documents_end_in_a_traceback(tmp_path, scheme, ending, content):
    path = tmp_path / f"anything{ending}"
    path.write_bytes(COMPRESS[ending](content) if ending and len(content) % 2 else content)
    read_or_refuse(lambda: list(Documents([f"{scheme}:{path}"])))


# --- names ---


def escaped(name):
    return name.replace(",", "\\,").replace(":", "\\:")


@quick
@given(st.lists(names.map(str.strip).filter(lambda n: n and not n.endswith("\\")), min_size=1))
def test_escaped_names_and_names_of_files_are_taken_as_they_are(found):
    found = [name for name in found if "\\," not in name and "\\:" not in name]
    assert [unescape(part) for part in split_list(",".join(map(escaped, found)))] == found
    existing = set(found)
    if len(found) == 1:
        assert split_list(found[0], existing.__contains__) == found


@quick
@given(names.filter(lambda n: n.strip() == n and n[-1] != "\\"), st.floats(0.1, 9))
def test_a_store_may_be_called_anything(tmp_path, name, weight):
    folder = tmp_path / name
    folder.mkdir(exist_ok=True)
    assert parse_stores(str(folder)) == [(str(folder), 1.0)]
    (tmp_path / "b").mkdir(exist_ok=True)
    both = [(str(folder), weight), (str(tmp_path / "b"), 1.0)]
    assert parse_stores(f"{folder}:{weight},{tmp_path}/b:1") == both


@quick
@given(texts)
def test_labels_that_look_equal_are_equal(text):
    forms = {clean_label(unicodedata.normalize(form, f" {text}\xa0")) for form in ("NFC", "NFD")}
    assert len(forms) == 1


def test_every_ending_names_a_format():
    assert set(ENDINGS.values()) <= set(FORMATS)
