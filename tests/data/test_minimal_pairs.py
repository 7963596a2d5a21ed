"""Minimal pairs as they are read."""

import gzip
import json

import pytest

from electra_jax.data.minimal_pairs import MinimalPair, fingerprint, read_minimal_pairs
from electra_jax.errors import UsageError

ROW = {"sentence_good": "A cat sleeps.", "sentence_bad": "A cat sleep.", "UID": "agreement_1",
       "linguistics_term": "agreement", "pairID": "0"}  # fmt: skip


def write(path, rows):
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return str(path)


@pytest.mark.parametrize("name", ["pairs.jsonl", "pairs.jsonl.gz", "pairs.txt"])
def test_pairs_come_with_their_groups_and_places(name, tmp_path):
    path = write(tmp_path / name, [ROW, {**ROW, "UID": "agreement_2"}])
    first, second = read_minimal_pairs(path)
    where = f"{path}:1"
    assert first == MinimalPair("A cat sleeps.", "A cat sleep.", "agreement_1", "agreement", where)
    assert second.paradigm == "agreement_2"


def test_pairs_without_groups_are_one(tmp_path):
    bare = {name: ROW[name] for name in ("sentence_good", "sentence_bad")}
    [pair] = read_minimal_pairs(write(tmp_path / "a.jsonl", [bare]))
    assert (pair.paradigm, pair.phenomenon) == ("all", "all")


def test_only_the_first_of_each_paradigm(tmp_path):
    rows = [{**ROW, "UID": uid, "sentence_good": f"{uid} {n}."} for n in range(3) for uid in "ab"]
    pairs = read_minimal_pairs(write(tmp_path / "a.jsonl", rows), per_paradigm=2)
    assert [pair.good for pair in pairs] == ["a 0.", "b 0.", "a 1.", "b 1."]


def test_files_of_a_glob_in_the_order_of_their_names(tmp_path):
    for name in "ba":
        write(tmp_path / f"{name}.jsonl", [{**ROW, "UID": name}])
    pattern = f"{tmp_path}/*.jsonl"
    assert [pair.paradigm for pair in read_minimal_pairs(pattern)] == ["a", "b"]
    before = fingerprint(pattern)
    assert fingerprint(pattern) == before
    write(tmp_path / "b.jsonl", [{**ROW, "UID": "c"}])
    assert fingerprint(pattern) != before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "there is no pair in "),
        ("\n\n", "there is no pair in "),
        ("{", "a.jsonl:1: not valid JSON"),
        ("[1]", "a.jsonl:1: not a JSON object"),
        ('{"sentence_good": "A."}', "a.jsonl:1: no column 'sentence_bad'; there are: sentence_go"),
        ('\n{"sentence_good": 1, "sentence_bad": "A."}', "a.jsonl:2: sentence_good is not a sente"),
        ('{"sentence_good": "A.", "sentence_bad": " "}', "sentence_bad is not a sentence but ' '"),
        ('{"sentence_good": "A.", "sentence_bad": "B.", "UID": [1]}', "column 'UID' is not text"),
        (b"\xff", "not valid UTF-8"),
    ],
)
def test_what_is_not_a_pair_is_refused_with_its_place(content, message, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UsageError, match=message.replace("[", r"\[")):
        read_minimal_pairs(str(path))


@pytest.mark.parametrize("read", [read_minimal_pairs, fingerprint])
def test_a_file_that_is_not_there(read, tmp_path):
    with pytest.raises(UsageError, match="no_such.jsonl matches no file"):
        read(f"{tmp_path}/no_such.jsonl")
