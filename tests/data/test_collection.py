"""Collections in BEIR's layout are read as they are met; rankings are written for trec_eval."""

import json
import re
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from electra_jax.data.collection import read_collection, write_run
from electra_jax.errors import UsageError

TEXTS = {"d1": "Cats sleep.", "d2": "Dogs run."}


def write_collection(folder, judgments, documents=TEXTS, queries=("q1", "q2")):
    (folder / "qrels").mkdir()
    rows = [{"_id": id, "title": "", "text": text} for id, text in documents.items()]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rows = [{"_id": id, "text": "what?"} for id in queries]
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = ["query-id\tcorpus-id\tscore", *judgments]
    (folder / "qrels" / "test.tsv").write_text("".join(f"{line}\n" for line in lines))
    return f"beir:{folder}"


def test_a_judged_document_that_is_missing_counts_as_never_found(tmp_path, caplog):
    source = write_collection(tmp_path, ["q1\td1\t1", "q2\td2\t1", "q2\td9\t2", "q2\td8\t0"])
    relevant = read_collection(source).relevant
    assert relevant == {"q1": {"d1": 1}, "q2": {"d2": 1, "d9": 2}}
    assert "1 judgments name a document that is missing" in caplog.text
    assert "test.tsv:4: 'd9'" in caplog.text


def test_a_judged_query_that_is_missing_is_left_out(tmp_path, caplog):
    source = write_collection(tmp_path, ["q1\td1\t1", "q7\td1\t1"])
    collection = read_collection(source)
    assert collection.relevant == {"q1": {"d1": 1}} and list(collection.queries) == ["q1"]
    assert "1 judgments are left out, since their query is missing" in caplog.text


def test_grades_are_whole_numbers_however_they_are_written(tmp_path):
    source = write_collection(tmp_path, ["q1\td1\t2.0", "q1\td2\t-1"])
    assert read_collection(source).relevant == {"q1": {"d1": 2}}


@pytest.mark.parametrize(
    ("judgments", "message"),
    [
        (["q1\td9\t1"], "no document is judged relevant"),
        (["q1\td1\t0"], "no document is judged relevant"),
        (["q1\td1\tyes"], "test.tsv:2: score 'yes' is not a whole number"),
        (["q1\td1\t0.5"], "test.tsv:2: score '0.5' is not a whole number"),
        (["q1\td1\tinf"], "test.tsv:2: score 'inf' is not a whole number"),
    ],
)
def test_judgments_of_nothing_are_refused(tmp_path, judgments, message):
    with pytest.raises(UsageError, match=message):
        read_collection(write_collection(tmp_path, judgments))


def test_a_document_without_an_identifier_is_refused(tmp_path):
    with pytest.raises(UsageError, match="corpus.jsonl:1: no identifier"):
        read_collection(write_collection(tmp_path, ["q1\td1\t1"], {" ": "x"}))


IDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(st.dictionaries(IDS, st.lists(st.tuples(IDS, st.floats(-1e6, 1e6)), max_size=3), max_size=3))
def test_a_run_has_six_fields_a_line(tmp_path_factory, rankings):
    path = tmp_path_factory.getbasetemp() / "run.trec"
    write_run(rankings, path, "retrieval")
    content = path.read_bytes()
    assert b"\r" not in content and content.count(b"\n") == sum(map(len, rankings.values()))
    lines = [line.split() for line in content.decode().split("\n")[:-1]]
    expected = [
        (query, document, rank, score)
        for query, ranking in rankings.items()
        for rank, (document, score) in enumerate(ranking, start=1)
    ]
    for fields, (query, document, rank, score) in zip(lines, expected, strict=True):
        assert fields[1::2] == ["Q0", str(rank), "retrieval"]
        assert float(fields[4]) == pytest.approx(score, abs=1e-6)
        for written, id in ((fields[0], query), (fields[2], document)):
            assert written == id or unquote(written) == unquote(id) and re.search(r"\s", id)
