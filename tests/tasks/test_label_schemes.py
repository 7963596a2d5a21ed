"""Labels of words are read as what they are, or refused by name."""

import pytest
from tiny_encoder import TOKENIZER

from electra_jax.data.labelled import Row
from electra_jax.errors import UsageError
from electra_jax.tasks import find_task
from electra_jax.tasks.label_schemes import guess_scheme


def tagging(*sentences, name="tagging", **fields):
    """A task, and its records of sentences of labels."""
    kind = find_task(name)
    task = kind(kind.Config(words="words", label="tags", **fields), TOKENIZER)
    return task, [
        task.parse(Row("data:1", {"words": ["a"] * len(x), "tags": x, "intent": "i"}), True)
        for x in sentences
    ]


@pytest.mark.parametrize(
    ("sentences", "label"),
    [
        (["B_PER I_PER O"], "B_PER"),
        (["B_PER O"], "B_PER"),
        (["B:PER I:PER O"], "B:PER"),
        (["B_PER I_PER OTHER O"], "B_PER"),
        (["PER-B PER-I O"], "PER-B"),
        (["PER_B O LOC_B"], "PER_B"),
        (["b-per i-per o"], "b-per"),
        (["B I O"], "B"),
        (["B E S M"], "B"),
        (["(PER*) * (LOC* *)"], "(PER*)"),
    ],
)
def test_other_marks_are_refused_by_name(sentences, label):
    """Read as kinds of their own, each word would be a span, and F1 an accuracy."""
    task, records = tagging(*map(str.split, sentences))
    with pytest.raises(UsageError) as refused:
        task.fit(records)
    assert f"data:1: label {label!r} seems to mark a span in another way" in str(refused.value)
    task, records = tagging(*map(str.split, sentences), scheme="none")
    task.fit(records)
    assert task.labels == sorted({label for x in sentences for label in x.split()})


@pytest.mark.parametrize(
    ("labels", "doubtful"),
    [("E-mail O S-Bahn", "E-mail"), ("S-Bahn O", "S-Bahn"), ("B-X I-X S-Bahn O", "S-Bahn")],
)
def test_names_that_only_look_marked_are_refused(labels, doubtful):
    task, records = tagging(labels.split())
    with pytest.raises(UsageError, match=f"label '{doubtful}' seems marked, but no label begins"):
        task.fit(records)


def test_such_names_are_read_whole_if_asked_for():
    task, records = tagging(["E-mail", "O", "S-Bahn"], scheme="IO")
    task.fit(records)
    assert task.truth(records[0]) == ["B-E-mail", "O", "B-S-Bahn"]


@pytest.mark.parametrize(
    "labels",
    [
        "P-X O C-X", "OBJ O", "building-hotel O", "NOUN VERB", "vitamin-B vitamin-C O",
        "B-vitamin-B I-vitamin-B B-vitamin-E",
    ],
)  # fmt: skip
def test_other_names_are_names(labels):
    task, records = tagging(labels.split())
    task.fit(records)
    kinds = {label.removeprefix("B-").removeprefix("I-") for label in task.labels}
    assert kinds == {label.removeprefix("B-").removeprefix("I-") for label in labels.split()}


@pytest.mark.parametrize(
    ("labels", "bio"),
    [
        ("B-X M-X E-X O S-X", "B-X I-X I-X O B-X"),
        ("B-X I-X L-X O U-X", "B-X I-X I-X O B-X"),
        ("I-X E-X E-X O", "B-X I-X B-X O"),
    ],
)
def test_kin_of_bioes_is_read(labels, bio):
    assert guess_scheme([labels.split()]) == "BIOES"
    task, records = tagging(labels.split())
    task.fit(records)
    assert task.truth(records[0]) == bio.split()


@pytest.mark.parametrize(
    ("train", "dev", "bio"),
    [
        ("B-X I-X O", "B-X E-X S-X", "B-X I-X B-X"),
        ("B-X I-X O", "I-X I-X O", "B-X I-X O"),
        ("I-X O I-Y B-Y", "B-X I-X B-X", "B-X I-X B-X"),
    ],
)
def test_a_file_in_another_scheme_is_read_by_its_marks(train, dev, bio):
    task, records = tagging(train.split(), dev.split())
    task.fit(records[:1])
    assert task.truth(records[1]) == bio.split()


def test_a_label_of_no_scheme_is_refused_wherever_it_is():
    task, records = tagging(["B-X", "I-X", "O"], ["B_X", "O"])
    task.fit(records[:1])
    with pytest.raises(UsageError, match="data:1: label 'B_X' is neither O nor marked as BIO"):
        task.examples(records[1:], 16, True, False)
    task, records = tagging(["B-X", "E-mail", "O"], scheme="BIO")
    with pytest.raises(UsageError, match="data:1: label 'E-mail' is neither"):
        task.fit(records)


@pytest.mark.parametrize("name", ["tagging", "intent_slots"])
@pytest.mark.parametrize("numbers", [[0, 5, 0], ["0", "1", "2"], [0.0, 1.0, 2.0], [-100, 0, 1]])
def test_numbers_of_classes_need_names(name, numbers):
    task, records = tagging(numbers, name=name)
    with pytest.raises(UsageError, match="data:1: labels are numbers .*--config.task.label_names="):
        task.fit(records)


def test_numbers_of_classes_get_their_names():
    names = "O, B-PER, I-PER"
    task, records = tagging([1, 2, 0], ["B-PER", "1.0", "0"], label_names=names)
    task.fit(records)
    assert task.state["scheme"] == "BIO"
    assert [task.truth(r) for r in records] == [["B-PER", "I-PER", "O"], ["B-PER", "B-PER", "O"]]
    for wrong in (3, -1, "LOC"):
        with pytest.raises(UsageError, match=f"label '{wrong}' is none of the 3 classes"):
            tagging([wrong], label_names=names)
    with pytest.raises(UsageError, match="task.label_names='O,O' must be two or more different"):
        tagging(label_names="O,O")


def test_what_has_no_spans_has_no_f1():
    task, records = tagging(["NOUN", "VERB", "NOUN"])
    task.fit(records)
    assert task.metric == "accuracy"
    answers = [{"labels": ["NOUN", "NOUN", "NOUN"]}]
    assert task.score(answers, records) == {"accuracy": pytest.approx(2 / 3)}
    spans, records = tagging(["B-X", "O"])
    spans.fit(records)
    assert spans.metric == "f1"
    assert "f1" in spans.score([{"labels": ["B-X", "O"]}], records)


@pytest.mark.parametrize(("labels", "figure"), [("NOUN VERB", "accuracy"), ("B-x O", "f1")])
def test_slots_without_spans_have_no_f1(labels, figure):
    task, records = tagging(labels.split(), name="intent_slots")
    super(type(task), task).fit(records)
    answers = [{"labels": task.truth(records[0]), "intent": "i"}]
    metrics = task.score(answers, records)
    assert metrics[f"slot_{figure}"] == 1 and task.metric == "exact"
    assert ("slot_f1" in metrics) == (figure == "f1")
