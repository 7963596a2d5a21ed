"""Token stores: their bytes, what is refused, and what an interruption leaves behind."""

import json
import math

import numpy as np
import pytest

from electra_jax.data import chunks, token_store
from electra_jax.data.documents import Documents
from electra_jax.data.mixture import Mixture
from electra_jax.data.token_store import TokenStore, prepare
from electra_jax.data.tokenizer_training import train_tokenizer
from electra_jax.errors import UsageError
from electra_jax.system.atomic_files import MARK

TEXTS = [f"Document number {n} speaks of {'cats and dogs ' * (n % 7)}." for n in range(400)]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, kind="wordpiece", vocab_size=200)


def make(path, tokenizer, texts=TEXTS, **options):
    options = {"workers": 1, "validation_share": 0.1, "progress": False, **options}
    return prepare(texts, tokenizer, path, **options)


def contents(path):
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }


def test_splits_hold_every_document_once(tmp_path, tokenizer):
    store = make(tmp_path / "store", tokenizer)
    found = []
    for name in token_store.SPLITS:
        split = store.split(name)
        starts = split.documents
        assert starts[0] == 0 and starts[-1] == len(split.tokens)
        found += [split.tokens[a:b].tolist() for a, b in zip(starts, starts[1:], strict=False)]
    assert sorted(found) == sorted(tokenizer.encode(TEXTS))
    assert 10 < len(store.split("validation").documents) - 1 < 90
    assert store.split("train").tokens.dtype == np.uint16


def test_bytes_do_not_depend_on_workers(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK_CHARACTERS", 500)
    make(tmp_path / "one", tokenizer)
    make(tmp_path / "two", tokenizer, workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_the_unigram_entropy_is_that_of_the_training_tokens(tmp_path, tokenizer):
    store = make(tmp_path / "store", tokenizer)
    tokens = store.split("train").tokens.tolist()
    shares = [tokens.count(token) / len(tokens) for token in set(tokens)]
    direct = -sum(share * math.log(share) for share in shares)
    assert store.manifest["splits"]["train"]["unigram_entropy"] == pytest.approx(direct)
    assert token_store.entropy(np.zeros(3, int)) == 0 == token_store.entropy(np.array([0, 7]))


def test_a_mixture_has_the_mean_of_its_stores_entropies(tmp_path, tokenizer):
    """The weights are shares of its rows; an older store does not know its own."""
    make(tmp_path / "a", tokenizer)
    make(tmp_path / "b", tokenizer, ["cats and dogs " * 9] * 30)
    entropies = [Mixture.open(str(tmp_path / name)).unigram_entropy for name in "ab"]
    text = f"{tmp_path}/a:1,{tmp_path}/b:3"
    assert Mixture.open(text).unigram_entropy == pytest.approx(entropies @ np.array([0.25, 0.75]))
    assert entropies[1] < entropies[0] - 0.1
    file = tmp_path / "b" / "manifest.json"
    manifest = json.loads(file.read_text())
    identity = TokenStore.open(tmp_path / "b").identity
    del manifest["splits"]["train"]["unigram_entropy"], manifest["checksum"]
    file.write_text(json.dumps(manifest))
    assert Mixture.open(text).unigram_entropy is None
    assert TokenStore.open(tmp_path / "b").identity == identity


def test_a_document_is_held_out_whatever_stands_around_it(tmp_path, tokenizer):
    store = make(tmp_path / "all", tokenizer)
    reverse = make(tmp_path / "reverse", tokenizer, TEXTS[::-1])
    held_out = [len(s.split("validation").tokens) for s in (store, reverse)]
    assert held_out[0] == held_out[1]


def test_the_same_again_is_kept_and_other_settings_are_refused(tmp_path, tokenizer):
    path = tmp_path / "store"
    store = make(path, tokenizer, source={"a": (1, 2)})
    before = contents(path)
    assert make(path, tokenizer, [], source={"a": (1, 2)}).identity == store.identity
    for changed, options in (
        ("validation_share", {"validation_share": 0.2, "source": {"a": (1, 2)}}),
        ("source", {"source": {"a": (1, 3)}}),
    ):
        with pytest.raises(UsageError, match=f"another {changed}"):
            make(path, tokenizer, **options)
    assert contents(path) == before


def test_text_changed_in_place_is_noticed(tmp_path, tokenizer):
    path = tmp_path / "store"
    text = tmp_path / "a.txt"

    def prepared(content):
        text.write_text(content)
        documents = Documents([f"text:{text}"])
        return make(path, tokenizer, documents, source=documents.describe())

    before = prepared("Teh cats\n").identity
    assert prepared("Teh cats\n").identity == before
    with pytest.raises(UsageError, match=r"another source \(a.txt was changed\)"):
        prepared("The cats\n")


def test_a_store_of_before_that_knows_sizes_alone_is_kept(tmp_path, tokenizer):
    path = tmp_path / "store"
    known = {"sources": [{"files": [{"name": "a.txt", "bytes": 9}]}]}
    store = make(path, tokenizer, source=known)
    file = known["sources"][0]["files"][0]
    file["sha256"] = "x"
    assert make(path, tokenizer, [], source=known).identity == store.identity
    file["bytes"] = 8
    with pytest.raises(UsageError, match="a.txt was changed"):
        make(path, tokenizer, source=known)


@pytest.mark.parametrize("share", [0.5, 0.999])
def test_one_document_is_trained_on_even_if_its_hash_holds_it_out(tmp_path, tokenizer, share):
    for n in range(6):
        store = make(tmp_path / str(n), tokenizer, [f"cats {n}"], validation_share=share)
        expected = tokenizer.encode([f"cats {n}"])[0]
        assert store.split("train").tokens.tolist() == expected
        assert store.split("train").documents.tolist() == [0, len(expected)]
        assert not len(store.split("validation").tokens)
        assert store.manifest["splits"]["train"]["most_frequent"]["share"] > 0
        store.verify()


def test_a_failure_leaves_nothing_and_a_kill_is_cleared_away(tmp_path, tokenizer):
    def broken():
        yield from TEXTS[:50]
        raise UsageError("the text ends in the middle")

    path = tmp_path / "store"
    with pytest.raises(UsageError, match="in the middle"):
        make(path, tokenizer, broken())
    assert not any(tmp_path.iterdir())
    left = tmp_path / ".store.partial" / "train"
    left.mkdir(parents=True)
    (left / "tokens.npy").write_bytes(b"half a file")
    (left / "junk").write_bytes(b"x")
    with pytest.raises(UsageError, match="was not made by this program"):
        make(path, tokenizer)
    assert (left / "junk").exists()
    (left.parent / MARK).write_text("[]")
    make(path, tokenizer)
    assert [entry.name for entry in tmp_path.iterdir()] == ["store"]
    assert not (path / "train" / "junk").exists()


def test_two_at_once_are_refused(tmp_path, tokenizer):
    path = tmp_path / "store"

    def meanwhile():
        with pytest.raises(UsageError, match="by this process already"):
            make(path, tokenizer)
        yield from TEXTS

    make(path, tokenizer, meanwhile())


def test_damage_is_named(tmp_path, tokenizer):
    path = tmp_path / "store"
    make(path, tokenizer)
    file = path / "train" / "tokens.npy"
    whole = file.read_bytes()
    file.write_bytes(whole[:-2])
    with pytest.raises(UsageError, match=r"tokens.npy has .* bytes"):
        TokenStore.open(path)
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(UsageError, match=r"tokens.npy is damaged"):
        TokenStore.open(path).verify()
    file.unlink()
    with pytest.raises(UsageError, match=r"tokens.npy is missing"):
        TokenStore.open(path)


@pytest.mark.parametrize("version", [99, "missing"])
def test_a_manifest_that_cannot_be_read_is_refused(tmp_path, tokenizer, version):
    path = tmp_path / "store"
    make(path, tokenizer)
    file = path / "manifest.json"
    manifest = json.loads(file.read_text())
    del manifest["version"]
    if version != "missing":
        manifest["version"] = version
    file.write_text(json.dumps(manifest))
    with pytest.raises(UsageError, match="upgrade|cannot be read"):
        TokenStore.open(path)


def test_text_without_tokens_and_outputs_of_other_kinds_are_refused(tmp_path, tokenizer):
    with pytest.raises(UsageError, match="no document has a token"):
        make(tmp_path / "store", tokenizer, [" ", "\n"])
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="not a token store"):
        make(tmp_path / "full", tokenizer)
    assert (tmp_path / "full" / "thesis.txt").read_text() == "mine"


def test_unknown_tokens_are_counted_and_their_characters_named(tmp_path, tokenizer, caplog):
    strange = [*TEXTS, *["中文 中文 ж and cats"] * 60]
    store = make(tmp_path / "store", tokenizer, strange)
    assert store.manifest["splits"]["train"]["unknown_of_both_splits"] == {
        "tokens": 5 * 60, "characters": {"中": 120, "文": 120, "ж": 60},
    }  # fmt: skip
    text = store.describe_unknown()
    tokens = sum(len(store.split(name).tokens) for name in token_store.SPLITS)
    assert f"unknown tokens: {300 / tokens:.2%}" in text and "'中' 120" in text
    assert "of the tokens are unknown" in caplog.text
    caplog.clear()
    plain = make(tmp_path / "plain", tokenizer)
    assert plain.describe_unknown() == "unknown tokens: 0.00%" and "unknown" not in caplog.text


def test_stores_of_before_do_not_tell_of_unknown_tokens(tmp_path, tokenizer):
    store = make(tmp_path / "store", tokenizer)
    del store.manifest["splits"]["train"]["unknown_of_both_splits"]
    assert store.describe_unknown() == ""


def test_few_tokens_held_out_are_told(tmp_path, tokenizer, caplog, monkeypatch):
    texts = [f"the cat number {i}" for i in range(200)]
    store = prepare(texts, tokenizer, tmp_path / "a", workers=1, validation_share=0.1)
    count = store.manifest["splits"]["validation"]["tokens"]
    assert f"only {count:,} tokens are held out" in caplog.text
    caplog.clear()
    monkeypatch.setattr(token_store, "FEW_HELD_OUT", count)
    prepare(texts, tokenizer, tmp_path / "b", workers=1, validation_share=0.1)
    assert "held out" not in caplog.text
