"""Documents: every format and compression, the order, what is dropped, and every error."""

import bz2
import dataclasses
import gzip
import inspect
import io
import json
import lzma
import os
import pickle
import random
import subprocess
import sys
import tarfile
import tracemalloc
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from tfds_data import write_tfds

from electra_jax.data import documents, installed_docs, prose, text_files
from electra_jax.data.documents import DocumentOptions, Documents
from electra_jax.errors import UsageError

TEXT = "First line.\nSecond line, caf\u00e9.\n\n\n  Another document.\r\n"
READ = ["First line.\nSecond line, caf\u00e9.", "Another document."]

COMPRESS = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}


def write(path, data):
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def numbers(count):
    """Short documents that hardly compress."""
    generator = random.Random(0)
    return "".join(f"{generator.random()}\n\n" for _ in range(count))


def error_of(source, **options):
    with pytest.raises(UsageError) as caught:
        list(Documents([str(source)], DocumentOptions(**options)))
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- formats ---


@pytest.mark.parametrize("suffix", COMPRESS)
def test_text_and_json_lines_read_alike_in_every_compression(tmp_path, suffix):
    rows = "".join(json.dumps({"id": i, "text": text}) + "\n" for i, text in enumerate(READ))
    text = write(tmp_path / f"a.txt{suffix}", COMPRESS[suffix](TEXT.encode()))
    jsonl = write(tmp_path / f"a.jsonl{suffix}", COMPRESS[suffix](rows.encode()))
    assert list(Documents([f"text:{text}"])) == READ
    assert list(Documents([f"jsonl:{jsonl}"])) == READ


@pytest.mark.parametrize("padding", [0, 8])
@pytest.mark.parametrize("suffix", [".gz", ".xz", ".bz2", ".zst"])
def test_concatenated_compressed_streams_are_read_to_the_end(tmp_path, suffix, padding):
    one, two, three = (COMPRESS[suffix](b"%d\n\n" % n) for n in (1, 2, 3))
    path = write(tmp_path / f"a.txt{suffix.upper()}", one + bytes(padding) + two + three)
    assert list(Documents([f"text:{path}"])) == ["1", "2", "3"]


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".bz2", ".zst"])
@pytest.mark.parametrize("place", ["start", "inside", "end"])
def test_a_damaged_later_stream_is_not_the_end_of_the_file(tmp_path, suffix, place):
    one, two, three = (COMPRESS[suffix](b"Document %d\n\n" % n) for n in (1, 2, 3))
    at = {"start": 0, "inside": len(two) // 2, "end": len(two) - 1}[place]
    if suffix == ".zst":  # without a checksum, other bytes may be other text
        at = {"start": 0, "inside": 4, "end": 6}[place]
    damaged = bytearray(two)
    damaged[at] ^= 0xFF
    path = write(tmp_path / f"a.txt{suffix}", one + damaged + three)
    assert f"{path}: corrupt or truncated" in error_of(f"text:{path}")


def test_frames_of_zstandard_that_are_to_be_skipped_are_skipped(tmp_path):
    """pzstd puts one before each frame."""
    skip = b"\x50\x2a\x4d\x18\x04\0\0\0size"
    one, two = (COMPRESS[".zst"](b"%d\n\n" % n) for n in (1, 2))
    path = write(tmp_path / "a.zst", skip + one + skip + two)
    assert list(Documents([f"text:{path}"])) == ["1", "2"]


def test_compressed_files_without_an_ending_are_known_by_their_first_bytes(tmp_path):
    for suffix in (".gz", ".xz", ".bz2", ".zst"):
        path = write(tmp_path / "blob", COMPRESS[suffix](b"one\n"))
        assert list(Documents([f"text:{path}"])) == ["one"]
    path = write(tmp_path / "a.txt", b"BZh9 is how such files begin\n")
    assert list(Documents([f"text:{path}"])) == ["BZh9 is how such files begin"]


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".bz2", ".zst"])
def test_a_compressed_file_of_nothing_is_damaged(tmp_path, suffix):
    path = write(tmp_path / f"a.txt{suffix}", b"")
    assert f"{path}: corrupt or truncated" in error_of(f"text:{path}")


def archive(kind):
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w") as file:
            file.writestr("a.txt", "one")
        return buffer.getvalue()
    formats = {"tar": tarfile.PAX_FORMAT, "ustar": tarfile.USTAR_FORMAT, "v7": tarfile.GNU_FORMAT}
    with tarfile.open(fileobj=buffer, mode="w", format=formats[kind]) as file:
        member = tarfile.TarInfo("a.txt")
        member.size = 3
        file.addfile(member, io.BytesIO(b"one"))
    return buffer.getvalue()


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("kind", ["zip", "tar", "ustar", "v7"])
def test_archives_are_refused_with_what_to_do(tmp_path, kind, suffix):
    path = write(tmp_path / f"a.txt{suffix}", COMPRESS[suffix](archive(kind)))
    for scheme in ("text", "jsonl"):
        message = error_of(f"{scheme}:{path}")
        assert f"{path} is a {kind if kind == 'zip' else 'tar'} archive" in message
        assert "unpack it" in message


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("one\n".encode("utf-16"), "is UTF-16: convert it with `iconv"),
        ("one\n".encode("utf-16-be"), "zero bytes; if it is UTF-16"),
        (b"%PDF-1.7\n", "is a PDF file"),
        (b"\x1f\x9d\x90", "unpack it with `gzip -d`"),
    ],
)
def test_other_formats_are_refused_by_name(tmp_path, content, expected):
    assert expected in error_of(f"text:{write(tmp_path / 'a.txt', content)}")


def test_byte_order_marks_are_not_text(tmp_path):
    """Where files were joined, each had one."""
    path = write(tmp_path / "a.txt", b"\xef\xbb\xbfone\n\n\xef\xbb\xbftwo\n")
    assert list(Documents([f"text:{path}"])) == ["one", "two"]


def test_carriage_returns_end_lines_too(tmp_path):
    path = write(tmp_path / "a.txt", b"one\rtwo\r\rthree\r\n\r\nfour")
    assert list(Documents([f"text:{path}"])) == ["one\ntwo", "three", "four"]


def test_an_array_of_json_is_read_element_by_element(tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "_LONGEST", 64)
    rows = [{"text": f"caf\u00e9 {n}"} for n in range(100)] + [{"text": float("nan")}]
    path = write(tmp_path / "a.jsonl", json.dumps(rows, ensure_ascii=False))
    read = Documents([f"jsonl:{path}"])
    assert list(read) == [row["text"] for row in rows[:-1]]
    assert read.dropped["empty"] == 1


PARQUET_TEXT = {
    "string": pa.string(), "large": pa.large_string(), "view": pa.string_view(),
    "binary": pa.binary(), "binary view": pa.binary_view(),
    "dictionary": pa.dictionary(pa.int32(), pa.string()),
}  # fmt: skip


@pytest.mark.parametrize("kind", PARQUET_TEXT.values(), ids=PARQUET_TEXT)
def test_parquet_reads_the_chosen_column_over_row_groups(tmp_path, kind):
    values = [f"document {i}" for i in range(1000)] + [None]
    array = pa.array([v and v.encode() for v in values] if "binary" in str(kind) else values, kind)
    table = pa.table({"id": range(1001), "body": array})
    try:
        pq.write_table(table, tmp_path / "a.parquet", row_group_size=300)
    except pa.ArrowNotImplementedError:
        pytest.skip(f"this version of pyarrow does not write {kind}")
    read = Documents([f"parquet:{tmp_path}/*.parquet"], DocumentOptions(column="body"))
    assert list(read) == values[:-1]
    assert read.dropped["empty"] == 1


def test_lone_surrogates_of_json_become_encodable(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"text": "half \\ud83d, whole \\ud83d\\ude00"}\n')
    assert list(Documents([f"jsonl:{path}"])) == ["half ?, whole \U0001f600"]


# --- several sources ---


def test_sources_are_read_in_the_order_given_and_files_in_the_order_of_names(tmp_path):
    for name in ("b", "a", "c"):
        write(tmp_path / f"{name}.txt", name)
    write(tmp_path / "z.jsonl", '{"text": "z"}\n')
    read = Documents([f"jsonl:{tmp_path}/*.jsonl", f"text:{tmp_path}/*.txt"])
    assert list(read) == list(read) == ["z", "a", "b", "c"]


def test_length_filters_and_deduplication_count_what_they_drop(tmp_path):
    write(tmp_path / "a.txt", "four\n\nfive5\n\nfour\n\nlonger\n\nsix\n")
    write(tmp_path / "b.jsonl", '{"text": " five5 "}\n{"text": "  "}\n')
    options = DocumentOptions(min_characters=4, max_characters=5, deduplicate=True)
    read = Documents([f"text:{tmp_path}/a.txt", f"jsonl:{tmp_path}/b.jsonl"], options)
    assert list(read) == ["four", "five5"]
    assert read.dropped == {"empty": 1, "too short": 1, "too long": 1, "duplicate": 2}
    assert list(read) == ["four", "five5"]  # nothing is remembered from one pass to the next


def test_seen_finds_duplicates_before_and_after_its_merges():
    seen = documents._Seen(fewest_merged=100)
    numbers = random.Random(0).choices(range(4000), k=8000)
    fresh = [number for number in numbers if seen.add(str(number))]
    assert fresh == list(dict.fromkeys(numbers))
    assert len(seen._sorted) > 1000


def test_seen_keeps_hashes_that_end_in_zero_bytes(monkeypatch):
    class Hash:
        def __init__(self, text, digest_size):
            self.text = text

        def digest(self):
            return {b"a": b"x" + b"\0" * 15, b"b": b"xy" + b"\0" * 14}[self.text]

    monkeypatch.setattr(documents.hashlib, "blake2b", Hash)
    seen = documents._Seen(fewest_merged=1)
    assert [seen.add("a"), seen.add("b"), seen.add("a"), seen.add("b")] == [
        True,
        True,
        False,
        False,
    ]


def test_fraction_rises_to_one_over_all_sources(tmp_path):
    table = pa.table({"text": [f"document {i}" for i in range(1000)]})
    pq.write_table(table, tmp_path / "a.parquet")
    lines = numbers(200_000)
    write(tmp_path / "a.txt.gz", gzip.compress(lines.encode(), 1))
    read = Documents([f"parquet:{tmp_path}/a.parquet", f"text:{tmp_path}/a.txt.gz"])
    assert read.fraction is None
    fractions = [read.fraction for _ in read]
    assert fractions == sorted(fractions)
    assert fractions[0] < 0.01 and any(0.4 < fraction < 0.6 for fraction in fractions)
    assert read.fraction == 1.0


def test_description_tells_inputs_apart_and_is_json(tmp_path):
    path = write(tmp_path / "a.txt", "one\n")

    def describe(**options):
        return json.dumps(Documents([f"text:{path}"], DocumentOptions(**options)).describe())

    before = describe()
    assert before == describe() == describe(data_dir="elsewhere")
    os.utime(path, (0, 0))
    assert before == describe()
    assert before != describe(min_characters=1)
    write(path, "two\n")  # of the same size
    assert before != describe()


def test_what_exists_as_it_is_written_is_not_a_pattern(tmp_path):
    folder = tmp_path / "data [v2], 14:43"
    folder.mkdir()
    for name in ("a*.txt", "ab.txt"):
        write(folder / name, name)
    assert list(Documents([f"text:{folder}/a*.txt"])) == ["a*.txt"]
    assert list(Documents([f"text:{folder}/*b.txt"])) == ["ab.txt"]


# --- memory ---


@pytest.mark.slow
def test_memory_stays_flat_on_text_that_unfolds_to_much(tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "_LONGEST", 1 << 20)
    block = b"some words of a paragraph without any end, " * 4096
    for suffix, compress in COMPRESS.items():
        if suffix:
            data = b"".join([compress(block + b"\n\n") * 80, compress(block * 80)])
            write(tmp_path / f"a.txt{suffix}", data)
    for source in tmp_path.iterdir():
        tracemalloc.start()
        length = longest = 0
        for text in Documents([f"text:{source}"]):
            length += len(text)
            longest = max(longest, len(text))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert length > 160 * 0.99 * len(block)
        assert longest <= 1 << 20
        assert peak < 20 << 20, source.name  # of 27 MiB of text; the window of xz takes 8


def test_documents_come_before_the_file_has_been_read(tmp_path):
    lines = numbers(200_000)
    path = write(tmp_path / "a.txt.gz", gzip.compress(lines.encode(), 1)[:-100])
    read = iter(Documents([f"text:{path}"]))
    assert next(read) == numbers(1).strip()
    with pytest.raises(UsageError, match="corrupt or truncated"):
        list(read)


def test_a_long_line_is_cut_at_a_space_or_between_characters(tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "_LONGEST", 64)
    words = " ".join(f"word{i}" for i in range(50))
    characters = "\u8a9e" * 100
    path = write(tmp_path / "a.txt", f"{words}\n\n{characters}\n\nend\n")
    read = list(Documents([f"text:{path}"]))
    assert all(len(text.encode()) <= 64 for text in read)
    assert " ".join(text for text in read if "word" in text) == words
    assert "".join(text for text in read if "\u8a9e" in text) == characters
    assert read[-1] == "end"


# --- errors ---


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("txt:a", "did you mean text:a?"),
        ("json:a", "did you mean jsonl:a?"),
        ("nothing", "a source starts with text:"),
        ("text:/no/such/*.txt", "text:/no/such/*.txt matches no file"),
        ("docs:no_such_package_", "docs:no_such_package_: no installed package"),
    ],
)
def test_sources_are_checked_before_anything_is_read(source, expected):
    with pytest.raises(UsageError) as caught:
        Documents([source])
    assert expected in str(caught.value)


def test_a_bare_path_is_told_its_scheme(tmp_path):
    path = write(tmp_path / "a.txt", "one")
    assert f"did you mean text:{path}?" in error_of(path)
    assert "add /*" in error_of(f"text:{tmp_path}")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b'{"text": "caf\xe9"}', "not valid UTF-8"),
        (b'{"text": "a"', "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b'"text"', "not a JSON object"),
        (b'{"body": "a", "id": 1}', "no column 'text'; there are: body, id"),
        (b'{"text": 1}', "column 'text' is not text but int"),
    ],
)
def test_errors_in_json_lines_name_file_and_line(tmp_path, line, expected):
    path = write(tmp_path / "a.jsonl", b'{"text": "a"}\n\n' + line + b"\n")
    assert f"{path}:3: {expected}" in error_of(f"jsonl:{path}")


def test_broken_utf8_names_file_and_line(tmp_path):
    path = write(tmp_path / "a.txt", b"one\n\ntwo\ncaf\xe9\n")
    assert f"{path}:4: not valid UTF-8" in error_of(f"text:{path}")


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".bz2", ".zst"])
@pytest.mark.parametrize("fault", ["truncated", "corrupt", "another format"])
def test_damaged_compressed_files_are_named(tmp_path, suffix, fault):
    lines = numbers(20_000)
    whole = COMPRESS[suffix](lines.encode())
    half = len(whole) // 2
    data = {
        "truncated": whole[:half],
        "corrupt": whole[:half] + bytes(64) + whole[half + 64 :],
        "another format": b"plain text",
    }[fault]
    path = write(tmp_path / f"a.txt{suffix}", data)
    assert f"{path}: corrupt or truncated {suffix} file" in error_of(f"text:{path}")


def test_parquet_errors_name_the_file_before_anything_is_read(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"id": [1], "body": ["a"]}), path)
    missing = f"{path}: no column 'text'; there are: id, body"
    assert missing in error_of(f"parquet:{path}")
    assert f"{path}: column 'id' is not text but int64" in error_of(f"parquet:{path}", column="id")
    write(path, path.read_bytes()[:-20])
    assert f"{path}: not a readable parquet file" in error_of(f"parquet:{path}")


def test_damage_inside_parquet_is_found_while_reading(tmp_path):
    path = tmp_path / "a.parquet"
    texts = [f"document {random.Random(i).random()}" for i in range(5000)]
    pq.write_table(pa.table({"text": texts}), path, compression="zstd", use_dictionary=False)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 4096] = bytes(4096)
    write(path, bytes(data))
    assert f"{path}: corrupt after row" in error_of(f"parquet:{path}")


def test_no_documents_at_all_is_an_error_that_says_why(tmp_path):
    path = write(tmp_path / "a.txt", "\n\n")
    assert error_of(f"text:{path}") == f"no documents in text:{path}"
    write(path, "short\n")
    assert "1 too short" in error_of(f"text:{path}", min_characters=100)


@pytest.mark.slow
def test_parts_sent_elsewhere_hold_the_same_in_the_same_order(tmp_path):
    for name in ("b.txt", "a.txt", "c.txt"):
        write(tmp_path / name, f"{name} one\n\n{name} two\n")
    write(tmp_path / "d.jsonl", json.dumps({"body": "a row"}))
    sources = [f"jsonl:{tmp_path}/*.jsonl", f"text:{tmp_path}/*.txt", "docs:packaging"]
    read = Documents(sources, DocumentOptions(column="body"))
    parts = pickle.loads(pickle.dumps(read.parts()))
    assert len(parts) == 5
    assert [text for part in parts for text, _ in part.read()] == list(read)
    elsewhere = dataclasses.replace(parts[-1], description={"packages": {"packaging": "1"}})
    with pytest.raises(UsageError, match="docs:packaging is not the same on all machines"):
        list(elsewhere.read())


# --- TensorFlow data sets ---


@pytest.fixture(scope="module")
def tfds_folder(tmp_path_factory):
    splits = {"train": [f"caf\u00e9 {i}" for i in range(20)], "test": ["held out"]}
    return write_tfds(
        tmp_path_factory.mktemp("tfds"),
        "notes/short",
        lambda features: {"body": features.Text(), "id": features.Scalar(np.int32)},
        {
            split: [{"body": text, "id": i} for i, text in enumerate(texts)]
            for split, texts in splits.items()
        },
    )


@pytest.mark.slow
def test_a_prepared_data_set_is_read_by_name(tfds_folder, monkeypatch):
    options = DocumentOptions(column="body", data_dir=tfds_folder)
    read = Documents(["tfds:notes/short"], options)
    assert list(read) == [f"caf\u00e9 {i}" for i in range(20)]
    assert read.fraction == 1.0
    description = read.describe()["sources"][0]
    assert description["dataset"].endswith("/1.0.0")
    assert (description["split"], description["examples"]) == ("train", 20)

    monkeypatch.setenv("TFDS_DATA_DIR", tfds_folder)
    options = DocumentOptions(column="body")
    assert list(Documents(["tfds:notes/short:test"], options)) == ["held out"]
    assert len(list(Documents(["tfds:notes/short:train[:10%]"], options))) == 2


def test_data_set_errors_say_what_there_is_and_how_to_prepare(tfds_folder):
    def error(source, column="body"):
        return error_of(source, column=column, data_dir=tfds_folder)

    # A data set that the library knows and could download is not downloaded.
    assert "prepare it with `tfds build imdb_reviews" in error("tfds:imdb_reviews")
    assert "prepare it with `tfds build no_such" in error("tfds:no_such")
    assert "no split 'dev'; there are: " in error("tfds:notes/short:dev")
    assert "no column 'text'; there are: body, id" in error("tfds:notes/short", "text")
    assert "column 'id' is not text" in error("tfds:notes/short", "id")


def test_reading_files_imports_neither_tensorflow_nor_jax(tmp_path):
    path = write(tmp_path / "a.txt", "one\n")
    program = (
        "import sys; from electra_jax.data.documents import Documents;"
        f"print(list(Documents(['text:{path}'])));"
        "sys.exit(bool({'tensorflow', 'jax', 'tensorflow_datasets'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


# --- installed documentation ---


@pytest.mark.slow
def test_docs_of_a_few_packages_read_as_english_and_name_their_versions():
    read = Documents(["docs:click,einops,optax"])
    texts = list(read)
    assert list(read.describe()["sources"][0]["packages"]) == ["click", "einops", "optax"]
    lines = [line for text in texts for line in text.split("\n")]
    assert sum(map(len, lines)) > 200_000
    assert len({line.lower() for line in lines}) == len(lines)  # no paragraph twice
    markup = (">>>", "```", "::", "https://", ":param", ":class:")
    assert not [line for line in lines if any(mark in line for mark in markup)]
    words = " ".join(lines).split()
    assert sum(word in {"the", "of", "to", "a", "is"} for word in words) > 0.12 * len(words)


@pytest.mark.slow
def test_docs_do_not_depend_on_the_number_of_processes():
    files = installed_docs.find_sources(["click", "einops"])
    alone = list(installed_docs.read_documents(files, workers=1))
    assert alone == list(installed_docs.read_documents(files, workers=2))


DOCSTRING = """Computes the moving average of a series of values over time.

    Uses :func:`~package.module.smooth` from the `guide <https://a.b/c>`_ and **never** looks [1]_
    at what comes later.

    .. versionadded:: 1.2
       This text belongs to the directive and is left out with it.

    .. note:: The result of this function has the same shape as what is given to it.

    Some code follows here, which is not for a reader of the text::

        this_is = code(that, should, not, be, kept)

    Parameters
    ----------
    values : array_like, optional
        The values of the series, one for each of the moments at which it was seen.

    Args:
      window (int): The number of moments that are in the average, at
        least one and at most all of them.

    - An item in a list of things that a reader may want to know.

    =====  =====
    table  value
    =====  =====

    >>> average([1, 2, 3])
    This line is the output of the example and has the form of a sentence.
    """


def test_markup_and_code_are_taken_off_docstrings():
    assert list(prose.paragraphs(inspect.cleandoc(DOCSTRING))) == [
        "Computes the moving average of a series of values over time.",
        "Uses smooth from the guide and never looks at what comes later.",
        "The result of this function has the same shape as what is given to it.",
        "Some code follows here, which is not for a reader of the text:",
        "The values of the series, one for each of the moments at which it was seen.",
        "The number of moments that are in the average, at least one and at most all of them.",
        "An item in a list of things that a reader may want to know.",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "Copyright 2020 The Authors of this package. All of the rights are reserved to them.",
        "For x in range(10): y = x + 1; z = f(y); return {z: x for x in the_list_of_all_of_it}.",
        "Float, int, bool, str, bytes, list, tuple, dict, set, frozenset, complex, None.",
        "Too short to be a paragraph.",
    ],
)
def test_what_is_not_prose_is_left_out(text):
    assert not prose.is_prose(text)


def test_python_source_gives_docstrings_and_comments_in_order(tmp_path):
    source = (
        '"""The first sentence is that of the module, which has a docstring."""\n'
        "# The second sentence is in a comment that is\n# two lines long, after the docstring.\n"
        "x = f'''The pieces {x} of such a string are not whole sentences {y} that may be read.'''\n"
        'def f():\n  """The third sentence is that of the function in this file."""\n'
    )
    path = write(tmp_path / "a.py", source)
    broken = write(tmp_path / "b.py", '"""The file is broken after this sentence.""" (')
    starts = [text.split(" is ")[0] for text, _ in installed_docs.read_documents([path, broken])]
    assert starts == ["The first sentence"]
    [(text, consumed)] = installed_docs.read_documents([path, broken], workers=1)
    assert [line.split(" is ")[0] for line in text.split("\n")] == [
        "The first sentence",
        "The second sentence",
        "The third sentence",
    ]
    assert consumed == path.stat().st_size


def test_a_link_that_leads_nowhere_is_no_documentation(tmp_path, monkeypatch):
    (tmp_path / "there.md").write_text("text")
    (tmp_path / "gone.md").symlink_to(tmp_path / "nowhere.md")
    monkeypatch.setattr(installed_docs, "_folders", lambda name: [tmp_path])
    monkeypatch.setattr(installed_docs, "_descriptions", lambda name: [])
    assert installed_docs.find_sources(["x"]) == [tmp_path / "there.md"]


def test_each_line_is_a_document(tmp_path):
    (tmp_path / "a.txt").write_bytes("one\r\ntwo\n\nthree é\rfour".encode())
    assert list(Documents([f"lines:{tmp_path}/*.txt"])) == ["one", "two", "three é", "four"]


@pytest.mark.parametrize(("end", "is_hinted"), [("\n", True), ("\n\n", False)])
def test_a_file_of_many_lines_that_is_one_document_is_told(tmp_path, caplog, end, is_hinted):
    file = tmp_path / "a.txt"
    file.write_text(end.join(f"line {i}" for i in range(1000)))
    assert len(list(Documents([f"text:{file}"]))) == (1 if is_hinted else 1000)
    assert (f"write lines:{file}" in caplog.text) == is_hinted
