"""Predictions are read back by the readers that they are written for."""

import json

from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiny_encoder import TOKENIZER

from electra_jax.data.labelled import Row, read_rows
from electra_jax.data.labelled_row import MISSING
from electra_jax.inference.files import open_output
from electra_jax.tasks import find_task
from electra_jax.tasks.classification import write_submission
from electra_jax.tasks.tagging import Record, as_cell
from electra_jax.tasks.task import one_cell

QUICK = settings(max_examples=80, deadline=None, derandomize=True, database=None)
TEXTS = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=6),
    st.sampled_from(
        ["", " ", "\t", "a\tb", "c\r\nd", "\xa0", "New York", '5" disk', "C:\\temp", "-DOCSTART-",
         "-DOCEND-x", " a ", "#", "a\u2028b", "\ufeffx", "\x1c", "'"]
    ),
)  # fmt: skip
LABELS = TEXTS.filter(lambda text: one_cell(text).strip() and "\ufeff" not in text)


def make_task(name):
    kind = find_task(name)
    return kind(kind.Config(), TOKENIZER)


@QUICK
@given(st.lists(st.lists(st.tuples(TEXTS, LABELS), max_size=3), min_size=1, max_size=3))
def test_tags_are_read_back(tmp_path_factory, sentences):
    """A word and its label stay one of each, and sentences with words stay apart."""
    path = tmp_path_factory.getbasetemp() / "out.conll"
    records = [Record("", [word for word, _ in sentence], None) for sentence in sentences]
    answers = [{"labels": [label for _, label in sentence]} for sentence in sentences]
    make_task("tagging").write(answers, records, path)
    assert b"\r" not in path.read_bytes()
    kept = [sentence for sentence in sentences if sentence]
    rows = list(read_rows(str(path))) if kept else []
    assert [row.texts("0") for row in rows] == [[as_cell(w) for w, _ in x] for x in kept]
    assert [row.texts("-1") for row in rows] == [[one_cell(y) for _, y in x] for x in kept]


def test_words_that_are_cells_stay_as_they_are(tmp_path, caplog):
    words = ["café", "New York", "a\xa0b", '"', "#", "\\", "_"]
    assert [as_cell(word) for word in words] == words
    make_task("tagging").write([{"labels": ["O"] * 7}], [Record("", words, None)], tmp_path / "x")
    assert not caplog.text
    records = [Record("", ["", "a\tb", "c\nd"], None), Record("", [], None)]
    path = tmp_path / "out.conll"
    make_task("tagging").write([{"labels": ["B-X", "O", "O"]}, {"labels": []}], records, path)
    assert path.read_bytes() == b"_\tB-X\na b\tO\nc d\tO\n"
    assert "3 words do not fit a cell" in caplog.text
    assert "1 sentences have no words" in caplog.text


@QUICK
@given(st.lists(LABELS, min_size=1, max_size=4))
@example(["nan"])
def test_labels_are_read_back_from_a_submission(tmp_path_factory, labels):
    path = tmp_path_factory.getbasetemp() / "out.tsv"
    write_submission(labels, path)
    assert b"\r" not in path.read_bytes()
    rows = list(read_rows(str(path)))
    cells = [None if one_cell(label) in MISSING else one_cell(label) for label in labels]
    assert [row.fields for row in rows] == [
        {"index": str(number), "prediction": cell} for number, cell in enumerate(cells)
    ]


def test_a_submission_has_no_quotes_or_escapes(tmp_path):
    write_submission(['5" disk', "C:\\temp", "a\tb"], tmp_path / "x.tsv")
    expected = b'index\tprediction\n0\t5" disk\n1\tC:\\temp\n2\ta b\n'
    assert (tmp_path / "x.tsv").read_bytes() == expected


@QUICK
@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=3, unique_by=lambda pair: pair[0]))
def test_answers_are_read_back(tmp_path_factory, pairs):
    folder = tmp_path_factory.getbasetemp()
    answers = [{"id": id, "text": text} for id, text in pairs]
    make_task("question_answering").write(answers, [], folder / "out.json")
    assert json.loads((folder / "out.json").read_bytes()) == dict(pairs)
    make_task("choice").write(answers, [], folder / "out.jsonl")
    assert [row.fields for row in read_rows(f"{folder}/out.jsonl")] == answers
    with open_output(f"{folder}/two.jsonl") as file:  # of `predict`
        file.writelines(json.dumps(answer, ensure_ascii=False) + "\n" for answer in answers)
    assert [row.fields for row in read_rows(f"{folder}/two.jsonl")] == answers
    assert b"\r" not in (folder / "two.jsonl").read_bytes()


def test_rows_of_its_own_file_train_the_task_again(tmp_path):
    task = make_task("tagging")
    records = [task.parse(Row("x", {"0": ["a", "", "b\tc"], "-1": ["B-X", "I-X", "O"]}), True)]
    task.fit(records)
    path = tmp_path / "out.conll"
    task.write([{"labels": task.truth(record)} for record in records], records, path)
    again = task.read(str(path))
    assert [task.truth(record) for record in again] == [["B-X", "I-X", "O"]]
