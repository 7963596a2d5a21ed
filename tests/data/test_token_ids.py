"""Token ids that exist: the same store as of their text, and every refusal."""

import logging

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from electra_jax.api import prepare
from electra_jax.cli import main
from electra_jax.data import token_ids
from electra_jax.data.documents import DocumentOptions, Documents
from electra_jax.data.tokenizer_training import train_tokenizer
from electra_jax.errors import UsageError

TEXTS = [f"Document number {n} speaks of {'cats and dogs ' * (n % 7)}." for n in range(200)]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer = train_tokenizer(TEXTS, kind="wordpiece", vocab_size=200)
    tokenizer.save(folder)
    tokenizer.folder = folder
    return tokenizer


@pytest.fixture(scope="module")
def ids(tokenizer):
    return tokenizer.encode(TEXTS)


def documents_of(store):
    found = []
    for name in ("train", "validation"):
        split = store.split(name)
        ends = split.documents
        found += [split.tokens[a:b].tolist() for a, b in zip(ends, ends[1:], strict=False)]
    return sorted(found)


def flat(tokenizer, ids):
    return np.concatenate([[tokenizer.cls_id, *one, tokenizer.sep_id] for one in ids])


def write_bin(path, dtype):
    def write(tokenizer, ids):
        flat(tokenizer, ids).astype(dtype).tofile(path)

    return write


def write_parquet(path, kind):
    def write(tokenizer, ids):
        # As the tokenizers of others leave them; and a row without a value.
        rows = [[tokenizer.cls_id, *one, tokenizer.sep_id, tokenizer.pad_id] for one in ids]
        rows.insert(3, None)
        pq.write_table(pa.table({"input_ids": pa.array(rows, kind)}), path, row_group_size=50)

    return write


def write_rows(path):
    def write(tokenizer, ids):
        rows = np.full((len(ids), max(map(len, ids))), tokenizer.pad_id, np.int64)
        for row, one in zip(rows, ids, strict=True):
            row[: len(one)] = one
        np.save(path, rows)

    return write


WRITERS = {
    "a.npy": lambda path: lambda tokenizer, ids: np.save(path, flat(tokenizer, ids)),
    "rows.npy": write_rows,
    "a.bin": lambda path: write_bin(path, "<u2"),
    "a.uint32.bin": lambda path: write_bin(path, "<u4"),
    "a.parquet": lambda path: write_parquet(path, pa.list_(pa.int32())),
    "b.parquet": lambda path: write_parquet(path, pa.large_list(pa.uint16())),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_store_holds_the_documents_of_every_kind_of_file(tmp_path, tokenizer, ids, name):
    WRITERS[name](tmp_path / name)(tokenizer, ids)
    store = prepare(
        f"ids:{tmp_path}/{name}", tokenizer.folder, tmp_path / "store", validation_share=0.1
    )
    assert documents_of(store) == sorted(ids)
    assert 0 < store.manifest["splits"]["validation"]["documents"] < 60


def test_where_blocks_and_chunks_end_changes_nothing(tmp_path, tokenizer, ids, monkeypatch):
    np.save(tmp_path / "a.npy", flat(tokenizer, ids))
    source = f"ids:{tmp_path}/a.npy"
    whole = prepare(source, tokenizer.folder, tmp_path / "one")
    monkeypatch.setattr(token_ids, "_BLOCK", 7)
    monkeypatch.setattr(token_ids, "_CHUNK", 50)
    assert prepare(source, tokenizer.folder, tmp_path / "two").identity == whole.identity


def test_a_document_without_end_is_cut(tmp_path, tokenizer, ids, monkeypatch, caplog):
    np.save(tmp_path / "a.npy", np.concatenate(ids))
    monkeypatch.setattr(token_ids, "_BLOCK", 64)
    monkeypatch.setattr(token_ids, "LONGEST", 128)
    with caplog.at_level(logging.WARNING, "electra_jax"):
        store = prepare(f"ids:{tmp_path}/a.npy", tokenizer.folder, tmp_path / "store")
    found = documents_of(store)
    assert max(map(len, found)) == 128
    assert sorted(sum(found, [])) == sorted(sum(ids, []))
    assert "none is the separator [SEP]" in caplog.text


def test_the_store_is_kept_and_changed_ids_are_refused(tmp_path, tokenizer, ids):
    np.save(tmp_path / "a.npy", flat(tokenizer, ids))
    arguments = f"ids:{tmp_path}/a.npy", tokenizer.folder, tmp_path / "store"
    first = prepare(*arguments)
    assert prepare(*arguments).identity == first.identity
    np.save(tmp_path / "a.npy", flat(tokenizer, ids[::-1]))
    with pytest.raises(UsageError, match="a.npy was changed"):
        prepare(*arguments)


REFUSED = {
    "too large": ("a.npy", np.array([5, 200]), "the id 200, and the vocabulary .* has 200"),
    "negative": ("a.npy", np.array([5, -1]), "the id -1"),
    "floats": ("a.npy", np.array([5.0]), "not ids: 1 dimensions of type float64"),
    "objects": ("a.npy", np.array([{}]), "not a readable array"),
    "not an array": ("a.npy", b"text", "not a readable array"),
    "half a number": ("a.uint32.bin", b"123456", "2 bytes are left over"),
    "wrong type": ("a.bin", np.array([5, 70_000], np.uint32), "of another type"),
    "no parquet": ("a.parquet", b"text", "not a readable parquet file"),
    "no column": ("a.parquet", {"ids": [[5]]}, "no column 'input_ids'; there are: ids"),
    "text": ("a.parquet", {"input_ids": ["x"]}, "is not lists of ids but string"),
    "null id": ("a.parquet", {"input_ids": [[5, None]]}, "a null among its ids"),
    "a large row": ("a.parquet", {"input_ids": [[5], [300]]}, "row 2: there is the id 300"),
    "ending": ("a.txt", b"5 6", "a.txt: ids are read from .npy, .bin, .parquet"),
    "empty": ("a.bin", b"", "no document has a token"),
    "absent": ("", b"", "matches no file"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_files_are_refused_in_one_line(tmp_path, tokenizer, case, capsys):
    name, content, message = REFUSED[case]
    if isinstance(content, dict):
        pq.write_table(pa.table(content), tmp_path / name)
    elif isinstance(content, bytes):
        (tmp_path / (name or "other")).write_bytes(content)
    elif name.endswith(".bin"):
        content.tofile(tmp_path / name)
    else:
        np.save(tmp_path / name, content)
    with pytest.raises(UsageError, match=message):
        prepare(f"ids:{tmp_path}/{name or 'absent'}", tokenizer.folder, tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_what_is_of_text_is_refused(tmp_path, tokenizer, ids, capsys):
    np.save(tmp_path / "a.npy", flat(tokenizer, ids))
    source = f"ids:{tmp_path}/a.npy"
    rest = tokenizer.folder, tmp_path / "store"
    with pytest.raises(UsageError, match="--min-characters is of text"):
        prepare(source, *rest, options=DocumentOptions(min_characters=2))
    with pytest.raises(UsageError, match="prepare a store of each"):
        prepare([source, "docs:"], *rest)
    with pytest.raises(UsageError, match="holds token ids, not text"):
        Documents([source])
    command = ["prepare", "--input", source, "--tokenizer", str(rest[0]), "--output", str(rest[1])]
    assert main([*command, "--beam"]) == 2
    assert "--beam tokenizes text" in capsys.readouterr().err
    assert main(command) == 0
