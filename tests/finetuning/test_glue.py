"""GLUE in one go, from its official files."""

import json

import numpy as np
import pytest
from tiny_encoder import WORDS

from electra_jax.cli import main
from electra_jax.errors import UsageError
from electra_jax.finetuning import glue as glue_module
from electra_jax.finetuning.glue import (
    SETS,
    average,
    data_fields,
    find_set_files,
    glue,
    write_submissions,
)
from electra_jax.training.loop import NonFiniteLoss

FEW = ["train.epochs=1", "train.length=16", "train.batch_size=8", "train.eval_batch_size=8"]


def text(rng):
    return " ".join(rng.choice(WORDS, 4))


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    sets = {
        "CoLA": (None, lambda: f"gj\t{rng.integers(2)}\t\t{text(rng)}"),
        "MRPC": ("Quality\t#1 ID\t#2 ID\t#1 String\t#2 String",
                 lambda: f"{rng.integers(2)}\t1\t2\t{text(rng)}\t{text(rng)}"),
        "STS-B": ("index\tsentence1\tsentence2\tscore",
                  lambda: f"0\t{text(rng)}\t{text(rng)}\t{rng.integers(6)}.0"),
    }  # fmt: skip
    for name, (header, row) in sets.items():
        (tmp_path / name).mkdir()
        for part in ("train", "dev"):
            lines = ([header] if header else []) + [row() for _ in range(16)]
            (tmp_path / name / f"{part}.tsv").write_text("\n".join(lines) + "\n")
    (tmp_path / "CoLA" / "test.tsv").write_text(
        "index\tsentence\n" + "".join(f"{i}\t{text(rng)}\n" for i in range(5))
    )
    (tmp_path / "MNLI").mkdir()
    for part in ("train", "dev"):
        rows = [
            {"text_a": text(rng), "text_b": text(rng), "label": str(rng.choice(["x", "y", "z"]))}
            for _ in range(16)
        ]
        (tmp_path / "MNLI" / f"{part}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


@pytest.mark.slow
def test_all_sets_that_are_there(folder, encoder_dir, one_device, tmp_path, caplog):
    table = glue(str(encoder_dir), [str(folder)], tmp_path / "runs", overrides=FEW)
    assert "CoLA (matthews) | MRPC (accuracy) | STS-B (spearman) | MNLI (accuracy)" in table
    assert "| baseline | 0.0 |" in table
    assert "left out: SST-2, QQP" in caplog.text
    lines = (tmp_path / "runs" / "submission" / "CoLA.tsv").read_text().splitlines()
    assert lines[0] == "index\tprediction" and len(lines) == 6
    assert set(line.split("\t")[1] for line in lines[1:]) <= {"0", "1"}
    # Answered again where the test file, or the run that is the best, is another; only there.
    submission = tmp_path / "runs" / "submission" / "CoLA.tsv"
    submission.write_text("old")
    glue(str(encoder_dir), [str(folder)], tmp_path / "runs", overrides=FEW)
    assert submission.read_text() == "old"
    with (folder / "CoLA" / "test.tsv").open("a") as file:
        file.write("5\tbal\n")
    glue(str(encoder_dir), [str(folder)], tmp_path / "runs", overrides=FEW)
    assert submission.read_text().splitlines()[:-1] == lines


def test_a_set_that_diverges_leaves_the_others(folder, tmp_path, monkeypatch):
    def run_group(spec, *_):
        if spec.endswith("mrpc"):
            raise NonFiniteLoss("no number")
        metrics = {"matthews": 0.5, "spearman": 0.5, "accuracy": 0.5}
        return [{"metrics": metrics, "trivial": metrics}]

    monkeypatch.setattr(glue_module, "run_group", run_group)
    monkeypatch.setattr(glue_module, "write_submissions", lambda *_: None)
    table = glue("model", [str(folder)], tmp_path)
    assert "| model | 50.0 | diverged | 50.0 | 50.0 |  |" in table
    assert json.loads((tmp_path / "glue.json").read_text())["model"]["MRPC"] == []


def test_mnli_answers_its_three_files(tmp_path, monkeypatch):
    """The diagnostic set has a folder of its own, and no training data."""
    read = []

    class Model:
        task = property(lambda self: self)

        def read(self, path, labelled):
            read.append(path)
            return []

        def answer(self, records):
            return []

        def write(self, answers, records, path):
            path.write_text("")

    monkeypatch.setattr(glue_module, "load_finetuned", lambda _: Model())
    [mnli] = (one for one in SETS if one.folder == "MNLI")
    for test in ("MNLI/test_matched", "MNLI/test_mismatched", "diagnostic/diagnostic"):
        path = tmp_path / "data" / f"{test}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("index\tsentence1\tsentence2\n")
    results = [{"metrics": {"accuracy": 0.5}, "folder": "run", "step": 1}]
    to = tmp_path / "submission"
    write_submissions(mnli, [str(tmp_path / "data")], results, to)
    assert {path.name for path in to.iterdir()} == {"MNLI-m.tsv", "MNLI-mm.tsv", "AX.tsv"}
    assert len(read) == 3


def test_the_average_leaves_wnli_out():
    assert average({"CoLA": [10.0, 30.0, 20.0], "RTE": [60.0], "WNLI": [0.0]}) == "40.0"
    assert average({"WNLI": [0.0]}) == ""


def test_sets_in_json_lines_name_their_columns(tmp_path):
    (tmp_path / "SST-2").mkdir()
    for part in ("train", "dev"):
        (tmp_path / "SST-2" / f"{part}.jsonl").write_text("{}")
    [sst2, mrpc] = (one for one in SETS if one.folder in ("SST-2", "MRPC"))
    files = find_set_files(sst2, [str(tmp_path)])
    assert "task.text_b=" in data_fields(sst2, files)
    assert "task.text_b=text_b" in data_fields(mrpc, files)


def test_no_set_is_said(tmp_path, capsys):
    with pytest.raises(UsageError, match="there is none of CoLA"):
        glue("model", [str(tmp_path)], tmp_path / "runs")
    flags = ["--model", "model", "--data", str(tmp_path), "--workdir", str(tmp_path)]
    assert main(["glue", *flags]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
