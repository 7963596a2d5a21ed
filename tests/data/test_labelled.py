"""Labelled files are read as people have them; what breaks them is named by its line."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tfds_data import write_tfds

from electra_jax.data import json_values, text_files
from electra_jax.data.labelled import read_rows
from electra_jax.data.labelled_row import warn_of_joined_labels, with_labels
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


def question(id):
    return {"id": id, "question": "q", "answers": [{"text": "a", "answer_start": 0}]}


def test_squad_on_one_line_may_be_of_any_size(tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "_LONGEST", 1 << 12)
    monkeypatch.setattr(text_files, "PIECE_OF_JSON", 1 << 9)
    monkeypatch.setattr(json_values, "_PIECE", 1 << 9)
    articles = [
        {"paragraphs": [{"context": "caf\u00e9 " * 300, "qas": [question(str(n))]}]}
        for n in range(40)
    ]
    for order in ({"version": "1", "data": articles}, {"data": articles, "version": "1"}):
        rows = read(tmp_path, "a.json", json.dumps(order, ensure_ascii=False))
        assert [row.fields["id"] for row in rows] == [str(n) for n in range(40)]
        assert rows[0].fields["context"] == "caf\u00e9 " * 300


def test_rows_taken_for_squad_are_told_their_format(tmp_path):
    (tmp_path / "a.json").write_text('[{"text": "a"}]')
    with pytest.raises(UsageError, match="not in SQuAD's format; for rows, write json:PATH"):
        list(read_rows(f"squad:{tmp_path}/a.json"))


def test_squad_without_answers_has_no_such_column(tmp_path):
    asked = {"id": "1", "question": "q"}
    content = {"data": [{"paragraphs": [{"context": "a", "qas": [asked]}]}]}
    [row] = read(tmp_path, "a.json", json.dumps(content))
    with pytest.raises(UsageError, match="no column 'answers'"):
        row.value("answers")
    asked["is_impossible"] = True
    [row] = read(tmp_path, "a.json", json.dumps(content))
    assert row.value("answers") == []


ROWS = [{"text": "good", "label": "a"}, {"text": "caf\u00e9", "label": "b"}]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("lines.json", "\ufeff" + "".join(json.dumps(row) + "\n" for row in ROWS)),
        ("array.json", json.dumps(ROWS)),
        ("array.jsonl", json.dumps(ROWS, indent=1)),
        ("several.json", "\n".join(json.dumps(row, indent=1) for row in ROWS)),
        ("data.json", json.dumps({"data": ROWS, "version": "1"})),
        ("UPPER.JSON", json.dumps(ROWS)),
        ("joined.csv", "\ufefftext , label\ngood,a\n\ufeffcaf\u00e9,b\n"),
        ("cr.tsv", "text\tlabel\ngood\ta\r\ncaf\u00e9\tb\r\n"),
    ],
)
def test_tables_are_read_in_all_their_variants(tmp_path, name, content):
    assert [row.fields for row in read(tmp_path, name, content)] == ROWS


def test_json_lines_with_a_list_called_data_are_rows(tmp_path):
    rows = [{"data": [1, 2], "text": "a"}, {"data": [], "text": "b"}]
    content = "".join(json.dumps(row) + "\n" for row in rows)
    assert [row.fields for row in read(tmp_path, "a.json", content)] == rows
    of_objects = json.dumps({"data": [{"x": 1}], "text": "a"})
    with pytest.raises(UsageError, match="write jsonl:"):
        read(tmp_path, "a.json", f"{of_objects}\n{of_objects}\n")
    rows = list(read_rows(f"jsonl:{tmp_path}/a.json"))
    assert rows[1].fields == json.loads(of_objects)


def test_line_breaks_and_no_break_spaces_stay_in_cells(tmp_path):
    [row] = read(tmp_path, "a.csv", '"text"\n"a\rb\r\nc\xa0"\n')
    assert row.text("text") == "a\rb\r\nc\xa0"
    [row] = read(tmp_path, "a.tsv", "text\tlabel\na\rb\xa0\tx\n")
    assert row.fields == {"text": "a\rb\xa0", "label": "x"}


def test_conll_keeps_empty_words_and_no_break_spaces(tmp_path):
    content = "#\thttp://a.b [2009-10-17]\n1\tDie\tO \n2\t\tO\n3\t\xa0\tB-LOC\n\n\tx\tO\n"
    rows = read(tmp_path, "a.conll", content)
    assert [row.fields["1"] for row in rows] == [["Die", "", "\xa0"], ["x"]]
    assert [row.fields["-1"] for row in rows] == [["O", "O", "B-LOC"], ["O"]]
    assert rows[1].fields["0"] == [""]
    [row] = read(tmp_path, "a.conll", "# O\na\xa0b B-x\n")  # a word, and no comment
    assert row.fields["0"] == ["#", "a\xa0b"]


def test_parquet_has_the_names_of_classes_and_no_numbers_that_are_none(tmp_path):
    names = {"names": ["no", "yes"], "_type": "ClassLabel"}
    features = {"label": names, "tags": {"feature": names, "_type": "Sequence"}}
    table = pa.table(
        {
            "text": pa.array([b"caf\xc3\xa9", None, b"c"], pa.binary()),
            "label": [1, 0, -1],
            "tags": [[0, 1], [1], [-1]],
            "score": [0.5, float("nan"), None],
        }
    )
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "a.parquet")
    first, second, third = read_rows(str(tmp_path / "a.parquet"))
    assert first.fields == {
        "text": "caf\u00e9", "label": "yes", "tags": ["no", "yes"], "score": 0.5
    }  # fmt: skip
    assert second.fields == {"text": None, "label": "no", "tags": ["yes"], "score": None}
    assert third.fields["label"] is None and third.texts("tags") == [""]
    assert third.where.endswith("a.parquet, row 3")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", '{"text": "a", "label": NaN}'),
        ("a.jsonl", '{"text": "a", "label": null}'),
        ("a.jsonl", '{"text": "a", "label": "\u00a0\ufeff"}'),
        ("a.csv", "text,label\na,NaN\n"),
        ("a.csv", "text,label\na,\n"),
        ("a.tsv", "text\tlabel\na\tNULL\n"),
    ],
)
def test_a_missing_label_is_none_in_every_format(tmp_path, name, content):
    [row] = read(tmp_path, name, content)
    with pytest.raises(UsageError, match="no label in column 'label'"):
        row.label("label")
    with pytest.raises(UsageError, match="no label in column 'label', nor"):
        with_labels([row], ["label"])


def test_rows_without_a_label_are_left_out_and_counted(tmp_path, caplog):
    rows = read(tmp_path, "a.csv", "text,label\na,x\nb,\nc,NaN\nd,y\n")
    assert [row.text("text") for row in with_labels(rows, ["label"])] == ["a", "d"]
    assert "2 of 4 rows have no label and are left out" in caplog.text


def test_labels_that_look_equal_are_one_and_it_is_logged(tmp_path, caplog):
    rows = read(tmp_path, "a.csv", "text,label\na,caf\u00e9\nb,cafe\u0301 \nc, \xa0x\n")
    assert [row.label("label") for row in rows] == ["caf\u00e9", "caf\u00e9", "x"]
    warn_of_joined_labels(row.text("label") for row in rows)
    assert "1 labels are written in several ways" in caplog.text


def test_files_with_commas_and_colons_in_their_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run_14:43").mkdir()
    for name in ("cats, dogs.csv", "run_14:43/a.csv", "b.csv"):
        (tmp_path / name).write_text("text\nx\n")
    (tmp_path / "b.txt").write_text("text\nb.txt\n")

    def found(sources):
        return [row.where.rpartition(":")[0] for row in read_rows(sources)]

    everything = "cats, dogs.csv,run_14:43/a.csv, b.csv,csv:b.txt"
    assert found(everything) == ["cats, dogs.csv", "run_14:43/a.csv", "b.csv", "b.txt"]
    assert found("csv:run_14:43/a.csv") == ["run_14:43/a.csv"]
    assert found(r"csv:cats\, dogs.csv,run_14\:43/a.csv") == ["cats, dogs.csv", "run_14:43/a.csv"]
    with pytest.raises(UsageError, match="an archive: unpack it"):
        found("a.csv.zip")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", '{"text": "a"}\n{"text"\n', "a.json:3: not valid JSON"),
        ("a.json", '[{"text": "a"}, 1]', "a.json:1: not a JSON object"),
        ("a.json", '[{"text": "a"}', "a.json:1: not valid JSON: ',' or ']' is missing"),
        ("a.jsonl", '{\n"text": "a"}', "a.jsonl:1: not valid JSON: .*write json:PATH"),
        ("a.json", "7", "a.json:1: not a JSON object, nor an array"),
        ("a.csv", "text,label\na\rb,x\n", "a.csv:2: not valid csv: .*a carriage return"),
        ("a.parquet", "PAR1", "not a readable parquet file"),
        ("a.csv", b"PAR1\x15\x04", "is a parquet file: write parquet:PATH"),
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


@pytest.mark.slow
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
