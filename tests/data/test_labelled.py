"""Labelled files are read as people have them; what breaks them is named by its line."""

import json

import numpy as np
import pytest
from tfds_data import write_tfds

from electra_jax.data.labelled import read_rows
from electra_jax.errors import UsageError


def read(tmp_path, name, content, **options):
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(read_rows(str(file), **options))


def test_csv_quotes_commas_and_line_breaks(tmp_path):
    rows = read(tmp_path, "a.csv", '\ufefftext,label\n"one, two\nthree",x\r\nfour,y\n')
    assert [row.fields for row in rows] == [
        {"text": "one, two\nthree", "label": "x"}, {"text": "four", "label": "y"}
    ]  # fmt: skip
    assert rows[1].where.endswith("a.csv:4")


def test_a_quote_in_tsv_is_a_character(tmp_path):
    rows = read(tmp_path, "a.tsv", 'text\tlabel\n"one\tx\ntwo"\ty\n')
    assert [row.text("text") for row in rows] == ['"one', 'two"']


def test_named_columns_stand_in_for_a_header_that_may_be_there(tmp_path):
    """CoLA's training file has none, its test file has one."""
    names = ["source", "label", "mark", "sentence"]
    rows = read(tmp_path, "train.tsv", "gj\t1\t\tThey ran.\n", columns=names)
    assert rows[0].text("sentence") == "They ran."
    rows = read(tmp_path, "test.tsv", "index\tsentence\n0\tThey ran.\n", columns=names)
    assert [row.text("sentence") for row in rows] == ["They ran."]


def test_conll_in_its_kinds(tmp_path):
    """A line of a tab parts sentences, too; -DOCSTART- is no word."""
    content = "-DOCSTART- O\n\na B-x\nb O\n\t\nc O\n"
    rows = read(tmp_path, "a.conll", content)
    assert [row.fields["0"] for row in rows] == [["a", "b"], ["c"]]
    assert rows[0].fields["-1"] == ["B-x", "O"]
    assert rows[0].where.endswith(":3")


def test_squad_gives_a_row_for_each_question(tmp_path):
    content = {"data": [{"title": "t", "paragraphs": [{"context": "a b", "qas": [
        {"id": "1", "question": "q", "answers": [{"text": "a", "answer_start": 0}]},
        {"id": "2", "question": "r", "answers": [], "is_impossible": True},
    ]}]}]}  # fmt: skip
    rows = read(tmp_path, "a.json", json.dumps(content))
    assert [row.fields["impossible"] for row in rows] == [False, True]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "text,label\na,b,c\n", "a.csv:2: 3 columns, where 2"),
        ("a.csv", 'text,label\na,"b\n', "a.csv:2: not valid csv"),
        ("a.csv", "text,label\n", "no row"),
        ("a.csv", "", "no row"),
        ("a.csv", b"text,label\nok,1\n\xff\xfe,2\n", "a.csv:3: not valid UTF-8"),
        ("a.jsonl", '{"text": "a"}\n{"text"\n', "a.jsonl:2: not valid JSON"),
        ("a.jsonl", "[1]\n", "a.jsonl:1: not a JSON object"),
        ("a.csv", "text,label,text\na,b,c\n", "a.csv:1: two columns are called 'text'"),
        ("a.conll", "a O\nb\n", "a.conll:2: 1 columns, where 2"),
        ("a.json", "{}", "not in SQuAD's format"),
        ("a.json", "{", "not valid JSON"),
        ("a.doc", "x", "of no known format"),
    ],
)
def test_what_breaks_a_format_is_named(tmp_path, name, content, message):
    with pytest.raises(UsageError, match=message):
        read(tmp_path, name, content)


def test_a_blank_line_of_one_column_is_a_row(tmp_path):
    rows = read(tmp_path, "a.csv", "text\na\n\nb\n")
    assert [row.text("text") for row in rows] == ["a", "", "b"]
    assert len(read(tmp_path, "b.csv", "text,label\na,1\n\nb,2\n")) == 2


def test_words_alone_have_no_labels(tmp_path):
    [row] = read(tmp_path, "a.conll", "a\nb\n")
    assert row.texts("0") == ["a", "b"]
    with pytest.raises(UsageError, match="no column '-1'"):
        row.texts("-1")


def test_few_broken_lines_of_a_large_table_are_left_out_and_said(tmp_path, caplog):
    path = tmp_path / "x.tsv"
    path.write_text("text\tlabel\n" + "a\tb\n" * 1500 + "broken\n" + "a\tb\n" * 500)
    assert len(list(read_rows(str(path), skip_broken=True))) == 2000
    assert f"1 broken lines are left out ({path}:1502: 1 columns, where 2" in caplog.text


def test_a_missing_file_or_column_is_named(tmp_path):
    with pytest.raises(UsageError, match="no such file"):
        list(read_rows(str(tmp_path / "none.csv")))
    with pytest.raises(UsageError, match="did you mean jsonl:"):
        list(read_rows("josnl:x"))
    [row] = read(tmp_path, "a.jsonl", '{"text": [1], "words": "x"}')
    with pytest.raises(UsageError, match="a.jsonl:1: no column 'label'; there are: text, words"):
        row.text("label")
    with pytest.raises(UsageError, match="is not text"):
        row.text("text")
    with pytest.raises(UsageError, match="is not a list"):
        row.texts("words")


def test_tensorflow_data_sets_are_read_as_files_are(tmp_path, monkeypatch):
    """Class numbers become names (-1: none), and SQuAD's answers a list."""
    folder = write_tfds(
        tmp_path,
        "glue/sst2",
        lambda features: {
            "sentence": features.Text(), "label": features.ClassLabel(names=["bad", "good"])
        },
        {
            "train": [{"sentence": "caf\u00e9", "label": 1}],
            "test": [{"sentence": "b", "label": -1}],
        },
    )  # fmt: skip
    write_tfds(
        tmp_path,
        "squad/plain",
        lambda features: {
            "question": features.Text(),
            "answers": features.Sequence(
                {"text": features.Text(), "answer_start": features.Scalar(np.int32)}
            ),
        },
        {"train": [{"question": "q", "answers": [
            {"text": "a", "answer_start": 3}, {"text": "b", "answer_start": 5},
        ]}]},
    )  # fmt: skip
    monkeypatch.setenv("TFDS_DATA_DIR", folder)
    [row] = read_rows("tfds:glue/sst2")
    assert row.fields == {"sentence": "caf\u00e9", "label": "good"}
    [row] = read_rows("tfds:glue/sst2:test")
    assert row.fields["label"] is None
    [row] = read_rows("tfds:squad/plain")
    assert row.fields["answers"] == [
        {"text": "a", "answer_start": 3}, {"text": "b", "answer_start": 5}
    ]  # fmt: skip
    with pytest.raises(UsageError, match="no split 'dev'"):
        list(read_rows("tfds:glue/sst2:dev"))
