"""Answers to a file, and what is said of them at the end."""

import json

import pytest
from tiny_encoder import TOKENIZER

from electra_jax.inference import files
from electra_jax.inference.finetuned import FinetunedModel
from electra_jax.tasks import find_task


class Echo(FinetunedModel):
    """Answers each question with itself, after its examples are made."""

    def answer_rows(self, rows):
        records = [self.task.parse(row, False) for row in rows]
        self.task.examples(records, 24, False, False)
        return [{"text": record.question} for record in records]


@pytest.mark.parametrize("lines", [3, 1100])
def test_one_long_question_among_many_is_cut_and_counted(tmp_path, monkeypatch, capsys, lines):
    """Not each time that some are answered, but once, and no answer is lost."""
    kind = find_task("question_answering")
    model = Echo(None, kind(kind.Config(), TOKENIZER), None, {}, 0)
    monkeypatch.setattr(files, "load", lambda *_: model)
    questions = ["good", "a bad " * 40, *["猫 \u2028 é"] * (lines - 2)]
    rows = [json.dumps({"question": question, "context": "good"}) for question in questions]
    (tmp_path / "in.jsonl").write_text("\n".join(rows))
    output = tmp_path / "out.jsonl"
    files.predict_file("model", str(tmp_path / "in.jsonl"), str(output), "", "best")
    written = output.read_text("utf-8").split("\n")[:-1]
    assert [json.loads(line)["text"] for line in written] == questions
    said = capsys.readouterr().err
    assert said.count("1 questions are cut to 10 tokens, half of train.length=24") == 1
