"""Rot in a token store is noticed: where it is opened, where it is read, or by `verify`."""

import json
import shutil

import numpy as np
import pytest

from electra_jax.data import rows
from electra_jax.data.array_cache import keep_arrays
from electra_jax.data.array_files import map_array
from electra_jax.data.mixture import Mixture
from electra_jax.data.sampler import DataConfig
from electra_jax.data.token_store import TokenStore, prepare
from electra_jax.data.tokenizer_training import train_tokenizer
from electra_jax.errors import UsageError

TEXTS = [f"Document number {n} speaks of {'cats and dogs ' * (n % 17)}." for n in range(2000)]
HEADER = 128  # bytes


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, kind="wordpiece", vocab_size=200)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tokenizer):
    path = tmp_path_factory.mktemp("whole") / "store"
    prepare(TEXTS, tokenizer, path, workers=1, validation_share=0.1, progress=False)
    return path


@pytest.fixture
def store(tmp_path, whole):
    return shutil.copytree(whole, tmp_path / "store")


def flip(file, byte, bit=0):
    with file.open("r+b") as stream:
        stream.seek(byte)
        value = stream.read(1)[0]
        stream.seek(byte)
        stream.write(bytes([value ^ 1 << bit]))


def sampler(path, layout="packed"):
    config = DataConfig(store=str(path), layout=layout, length=32)
    return Mixture.open(str(path)).sampler("train", config, 16, seed=0)


def refused(read, named):
    """Whether `read` refuses in one line that names a file; else it must read."""
    try:
        read()
    except UsageError as error:
        assert named in str(error) and "\n" not in str(error)
        return True
    return False


@pytest.mark.parametrize("name, dtype", [("tokens", np.uint16), ("documents", np.int64)])
def test_any_damaged_bit_of_a_header_is_refused(store, name, dtype):
    file = store / "validation" / f"{name}.npy"
    length = (file.stat().st_size - HEADER) // np.dtype(dtype).itemsize
    whole = map_array(file, np.dtype(dtype), length).tolist()
    for bit in range(8 * HEADER):
        flip(file, bit // 8, bit % 8)
        assert refused(lambda: map_array(file, np.dtype(dtype), length), str(file)), bit
        flip(file, bit // 8, bit % 8)
    assert map_array(file, np.dtype(dtype), length).tolist() == whole


def test_a_header_that_goes_with_another_size_is_refused(store):
    """Its length is believed by nobody: neither memory nor a map is made of it."""
    file = store / "train" / "tokens.npy"
    content = bytearray(file.read_bytes())
    at = content.index(b"(") + 1
    content[at : at + 12] = b"9" * 12
    file.write_bytes(content)
    with pytest.raises(UsageError, match="tokens.npy"):
        TokenStore.open(store)


@pytest.mark.parametrize("layout", rows.LAYOUTS)
def test_no_damaged_bit_of_the_documents_makes_packing_endless(store, layout):
    file = store / "train" / "documents.npy"
    rng = np.random.default_rng(0)
    for _ in range(60):
        at = int(rng.integers(HEADER, file.stat().st_size))
        bit = int(rng.integers(8))
        flip(file, at, bit)
        assert refused(lambda: sampler(store, layout), "documents.npy"), (at, bit)
        flip(file, at, bit)
    assert sampler(store, layout).rows > 0


@pytest.mark.parametrize("pipeline", ["plain", "tfdata"])
def test_an_id_beyond_the_vocabulary_is_never_handed_out(store, pipeline):
    file = store / "train" / "tokens.npy"
    tokens = len(TokenStore.open(store).split("train").tokens)
    damaged = TokenStore.open(store)  # a map of the file, which changes under it
    flip(file, HEADER + 2 * (tokens // 2) + 1, bit=7)
    with pytest.raises(UsageError, match="tokens.npy is damaged: it holds the id"):
        TokenStore.open(store)
    mixture = Mixture((damaged,), (1.0,))
    config = DataConfig(store=str(store), layout="packed", length=32, pipeline=pipeline)
    found = mixture.sampler("train", config, 16, seed=0)
    with pytest.raises(UsageError, match="tokens.npy is damaged: it holds the id"):
        for batch, _ in zip(found.batches(0), range(found.rows), strict=False):
            assert batch["tokens"].max() < 200


def test_rows_of_an_older_store_are_not_believed(tmp_path, tokenizer, whole, store):
    """A newer store copied over it leaves the tables of rows that lay in it."""
    newer = tmp_path / "newer"
    prepare(TEXTS[::-1][:900], tokenizer, newer, workers=1, validation_share=0.1, progress=False)
    expected = sampler(newer).batch(0)
    sampler(store).batch(0)
    assert list((store / "train").glob("rows-*"))
    for file in newer.rglob("*"):
        if file.is_file() and not file.name.startswith("rows-"):
            shutil.copy(file, store / file.relative_to(newer))
    for name, values in sampler(store).batch(0).items():
        np.testing.assert_array_equal(values, expected[name])


def test_a_damaged_table_of_rows_is_made_anew(store, caplog):
    expected = [sampler(store, layout).batch(3) for layout in rows.LAYOUTS]
    rng = np.random.default_rng(0)
    for layout, batch in zip(rows.LAYOUTS, expected, strict=True):
        [cache] = (store / "train").glob(f"rows-{layout}-*")
        content = cache.read_bytes()
        damages = [
            content[:-1],
            content[:100],
            b"",
            content + b"x",
            b"[1]\n",
            b"{}\n",
            b"\xff" * 99,
        ]
        for _ in range(40):
            damaged = bytearray(content)
            damaged[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))
            damages.append(bytes(damaged))
        for damaged in damages:
            caplog.clear()
            cache.write_bytes(damaged)
            for name, values in sampler(store, layout).batch(3).items():
                np.testing.assert_array_equal(values, batch[name])
            assert cache.read_bytes() == content
            assert "is made anew" in caplog.text


@pytest.mark.parametrize(
    "change",
    [
        {"first": [0, 2, 1]}, {"first": [1, 2, 3]}, {"first": [0]}, {"starts": [-1, 0, 0]},
        {"starts": [2**62] * 3}, {"lengths": [2**30] * 3}, {"lengths": [0, 1, 1]},
    ],
    ids=str,
)  # fmt: skip
def test_a_table_that_reaches_beyond_its_split_is_made_anew(store, change):
    """Its checksum is right: whoever wrote it meant harm, or had a fault."""
    split = TokenStore.open(store).split("train")
    table = {"first": [0, 1, 2], "starts": [0, 1, 2], "lengths": [1, 1, 1], **change}
    arrays = {name: np.array(table[name], kind) for name, kind in rows.KINDS.items()}
    origin = {"documents": split.checksum, "layout": "packed", "length": 32}
    keep_arrays(split.folder / "rows-packed-32-v2.bin", origin, arrays)
    assert rows.row_table(split, 32, "packed").rows > 3


def test_verify_names_the_damaged_file(store):
    whole = TokenStore.open(store)
    whole.verify()
    for name in whole.manifest["files"]:
        at = (store / name).stat().st_size // 2 & ~7
        flip(store / name, at)
        assert refused(lambda: TokenStore.open(store).verify(), name)
        flip(store / name, at)
    flip(store / "tokenizer" / "vocab.txt", 100)
    assert refused(lambda: TokenStore.open(store).verify(), "tokenizer")


def test_any_damaged_bit_of_a_manifest_is_noticed(store):
    file = store / "manifest.json"
    content = file.read_bytes()
    before = json.loads(content)
    for at in range(0, len(content), 3):
        damaged = bytearray(content)
        damaged[at] ^= 1 << at % 8
        file.write_bytes(damaged)
        if not refused(lambda: TokenStore.open(store), str(store)):
            assert json.loads(damaged) == before, at  # another white space
    file.write_bytes(content)


@pytest.mark.parametrize(
    "part, value",
    [
        ("version", "1"), ("version", None), ("splits", []), ("splits", {"train": 3}),
        ("files", {"../../etc/passwd": {"bytes": 1, "sha256": ""}}), ("files", []),
        ("tokenizer", "wordpiece"), ("tokenizer", {"vocab_size": 1e400, "identity": ""}),
        ("tokenizer", {"vocab_size": True, "identity": ""}),
    ],
)  # fmt: skip
def test_manifests_of_other_kinds_are_refused(store, part, value):
    file = store / "manifest.json"
    manifest = json.loads(file.read_text())
    del manifest["checksum"]
    file.write_text(json.dumps(manifest | {part: value}))
    assert refused(lambda: TokenStore.open(store), str(file))


def test_verify_names_a_record_that_is_gone(store):
    """The vocabulary alone gives the same ids, and yet something is lost."""
    record = store / "tokenizer" / "electra_jax_tokenizer.json"
    record.unlink()
    assert TokenStore.open(store).tokenizer.vocab_size
    assert refused(lambda: TokenStore.open(store).verify(), record.name)
