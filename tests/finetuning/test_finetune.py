"""The fine-tuning run: resumes, stops early, keeps the best, answers, refuses."""

import io
import json
import queue
import shutil
import signal
import sys

import jax
import numpy as np
import pytest
import tiny_run
from tiny_encoder import TOKENIZER, WORDS

from electra_jax.cli import main
from electra_jax.config import finetune_config, load_config
from electra_jax.data.labelled import Row
from electra_jax.errors import PREEMPTED, UsageError
from electra_jax.finetuning import sweep
from electra_jax.finetuning.finetune import finetune, is_enough, starting_encoder
from electra_jax.finetuning.resume import describe_files
from electra_jax.finetuning.sweep import parse_axis, run_all
from electra_jax.inference.files import arriving
from electra_jax.inference.finetuned import load
from electra_jax.parallel.mesh import make_mesh
from electra_jax.tasks.question_answering import QuestionAnswering, QuestionAnsweringConfig
from electra_jax.training import loop as loop_module
from electra_jax.training.loop import NonFiniteLoss
from electra_jax.training.metrics import read_metrics


@pytest.fixture(scope="module", autouse=True)
def on_one_device():
    with tiny_run.one_device():
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Texts whose label is told by one word."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("data")
    for name, count in (("train", 60), ("dev", 21)):
        lines = ["text,label"]
        for _ in range(count):
            label = rng.choice(["good", "bad"])
            words = [*rng.choice(WORDS, rng.integers(2, 9)), label]
            lines.append(f"{' '.join(rng.permutation(words))},{label}")
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")
    return folder


def fields(encoder_dir, data, *more):
    return [
        f"init.from={encoder_dir}", f"task.train={data}/train.csv",
        f"task.validation={data}/dev.csv", "train.length=16", "train.batch_size=16",
        "train.eval_batch_size=8", "optimizer.learning_rate=3e-3", "train.epochs=4",
        # One step of warming up for any number of epochs: all runs are of one program.
        "train.warmup_share=0.05", "train.dropout=0.1", *more,
    ]  # fmt: skip


def config(*args):
    return finetune_config(load_config("finetune/classification", fields(*args)))


@pytest.fixture(scope="module")
def finished(encoder_dir, data, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("finished") / "run"
    finetune(config(encoder_dir, data, f"task.test={data}/dev.csv"), workdir)
    return workdir


@pytest.mark.full
def test_the_mesh_changes_no_loss(finished, encoder_dir, data, tmp_path, monkeypatch):
    """`finished` is on one device."""
    monkeypatch.setattr(sys.modules["electra_jax.finetuning.finetune"], "make_mesh", make_mesh)
    mesh = ("mesh.data=2", "mesh.fsdp=2", "mesh.tensor=2")
    finetune(config(encoder_dir, data, *mesh), tmp_path / "run")
    before, after = (read_metrics(path) for path in (finished, tmp_path / "run"))
    assert len(before) == len(after) > 4
    for one, other in zip(before, after, strict=True):
        losses = [{k: v for k, v in x.items() if k.endswith("loss")} for x in (one, other)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.slow
def test_sigterm_saves_and_the_run_goes_on(finished, encoder_dir, data, tmp_path, monkeypatch):
    """In an evaluation, which comes to its end first."""
    module = sys.modules["electra_jax.finetuning.finetune"]
    real = module.make_judge

    def make_judge(*args):
        judge = real(*args)
        return lambda params: (signal.raise_signal(signal.SIGTERM), judge(params))[1]

    monkeypatch.setattr(module, "make_judge", make_judge)
    flags = [f"--config.{field}" for field in fields(encoder_dir, data)]
    config, workdir = "finetune/classification", str(tmp_path / "run")
    command = ["finetune", "--config", config, "--workdir", workdir]
    assert main([*command, *flags]) == PREEMPTED
    monkeypatch.undo()
    assert main([*command, *flags]) == 0
    one, other = (json.loads((path / "results.json").read_text())["metrics"]
                  for path in (finished, tmp_path / "run"))  # fmt: skip
    assert one == other


@pytest.mark.slow
def test_a_killed_run_goes_on_bit_for_bit(finished, encoder_dir, data, tmp_path, monkeypatch):
    """Killed within the second epoch, past a save."""
    real = loop_module.Loop.run

    class Killed(Exception):
        pass

    def dies(self, state, key):
        step, calls = self.train_step, []

        def train_step(*args):
            calls.append(1)
            if len(calls) > 7:
                self.checkpoints.wait()
                raise Killed
            return step(*args)

        self.train_step = train_step
        return real(self, state, key)

    wanted = config(encoder_dir, data, "checkpoint.every_steps=3", f"task.test={data}/dev.csv")
    monkeypatch.setattr(loop_module.Loop, "run", dies)
    with pytest.raises(Killed):
        finetune(wanted, tmp_path / "run")
    monkeypatch.setattr(loop_module.Loop, "run", real)
    finetune(wanted, tmp_path / "run")
    for which in ("best", "last"):
        ours, theirs = load(tmp_path / "run", which), load(finished, which)
        assert ours.step == theirs.step
        jax.tree.map(np.testing.assert_array_equal, ours.params, theirs.params)
    assert (tmp_path / "run" / "results.json").read_text() == (
        finished / "results.json"
    ).read_text()


@pytest.mark.slow
def test_a_run_goes_on_as_itself_alone(finished, encoder_dir, data):
    with pytest.raises(UsageError, match="holds a run with train.epochs=4.0, not 5.0"):
        finetune(config(encoder_dir, data, "train.epochs=5"), finished)


@pytest.mark.slow
def test_the_best_is_kept_and_answers(finished, data):
    """Figures are those of the best evaluation; answers those of any batch."""
    results = json.loads((finished / "results.json").read_text())
    history = {
        line["step"]: line["eval/accuracy"]
        for line in read_metrics(finished)
        if "eval/accuracy" in line
    }
    assert results["metrics"]["accuracy"] == max(history.values()) == history[results["step"]]
    model = load(finished)
    texts = [line.split(",")[0] for line in (data / "dev.csv").read_text().splitlines()[1:]]
    together = [answer["label"] for answer in model.predict(texts)]
    alone = [model.predict([text])[0]["label"] for text in texts[:4]]
    assert alone == together[:4]
    written = (finished / "predictions" / "test.tsv").read_text().splitlines()
    assert written[0] == "index\tprediction" and len(written) == 22
    assert [line.split("\t")[1] for line in written[1:]] == together
    vectors = model.embed(texts)
    assert vectors.shape == (21, 32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(vectors[:1], model.embed(texts[:1]), atol=1e-5)


def test_enough_is_when_the_last_ones_bring_no_gain(tmp_path):
    values = [0.1, 0.3, 0.2, 0.3]
    for count, expected in ((1, False), (2, False), (3, False), (4, True)):
        lines = [{"step": i, "eval/f1": v} for i, v in enumerate(values[:count])]
        (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
        assert is_enough(tmp_path, "f1", 2) is expected
    assert not is_enough(tmp_path, "f1", 0)


@pytest.mark.slow
def test_a_run_that_ended_early_is_at_its_end(encoder_dir, data, tmp_path, monkeypatch):
    """Started again, as for test data, it answers and does not train on."""
    module = sys.modules["electra_jax.finetuning.finetune"]
    monkeypatch.setattr(module, "is_enough", lambda *_: True)
    first = finetune(config(encoder_dir, data), tmp_path / "run")
    steps = load(tmp_path / "run", "last").step
    assert steps == 4
    broken = tmp_path / "broken.csv"
    broken.write_text("texts\ngood\n")
    with pytest.raises(UsageError, match="no column 'text'"):
        finetune(config(encoder_dir, data, f"task.test={broken}"), tmp_path / "run")
    assert json.loads((tmp_path / "run" / "results.json").read_text()) == first
    finetune(config(encoder_dir, data, f"task.test={data}/dev.csv"), tmp_path / "run")
    assert load(tmp_path / "run", "last").step == steps
    assert (tmp_path / "run" / "predictions" / "test.tsv").exists()


@pytest.mark.slow
def test_another_model_is_not_overwritten(encoder_dir, data, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(encoder_dir, folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(UsageError, match="model holds another model: choose another --workdir"):
        finetune(config(encoder_dir, data), folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.slow
def test_seeds_sweeps_and_the_baseline_share_a_table(encoder_dir, data, tmp_path):
    overrides = fields(encoder_dir, data, "train.epochs=1", "task.train_rows=20")
    args = ("finetune/classification", overrides, tmp_path, 2, ["learning_rate=3e-3"], True)
    table = run_all(*args)
    assert "| pretrained learning_rate=3e-3 |" in table
    assert "| not-pretrained learning_rate=3e-3 |" in table
    assert "| baseline |" in table and "of 2 seeds" in table
    folder = tmp_path / "not-pretrained" / "learning_rate=3e-3" / "seed-1"
    before = (folder / "results.json").stat().st_mtime_ns
    assert run_all(*args) == table
    assert (folder / "results.json").stat().st_mtime_ns == before
    # One run beside the others in the same directory.
    for _ in range(2):
        run_all("finetune/classification", overrides, tmp_path)
    assert run_all(*args) == table
    assert "metrics" in json.loads((tmp_path / "results.json").read_text())
    assert len(json.loads((tmp_path / "runs.json").read_text())) == 2


@pytest.mark.slow
def test_a_run_that_diverges_stands_in_the_table(encoder_dir, data, tmp_path):
    overrides = fields(encoder_dir, data, "train.epochs=1", "train.log_every=1")
    sweep = ["learning_rate=3e-3,1e38"]
    table = run_all("finetune/classification", overrides, tmp_path, sweep=sweep)
    assert "| learning_rate=1e38 | diverged |" in table
    with pytest.raises(UsageError, match="train.epochs must be at least 0, not -1"):
        run_all("finetune/classification", overrides, tmp_path / "b", sweep=["epochs=1,-1"])
    assert not (tmp_path / "b").exists()


def test_a_seed_that_diverges_leaves_the_others(monkeypatch, tmp_path):
    def finetune(config, workdir):
        if config.train.seed != 1:
            raise NonFiniteLoss(f"seed {config.train.seed}")
        return {"metric": "accuracy", "metrics": {"accuracy": 1.0}, "trivial": {"accuracy": 0.5}}

    monkeypatch.setattr(sweep, "finetune", finetune)
    table = run_all("finetune/classification", [], tmp_path, seeds=3)
    assert "| fine-tuned (1 of 3 seeds; others diverged) | 100.0 |" in table
    with pytest.raises(NonFiniteLoss, match="seed 5"):
        sweep.run_group("finetune/classification", ["train.seed=4"], tmp_path / "b", 2)


def test_a_collection_is_known_by_its_content(tmp_path):
    (tmp_path / "qrels").mkdir()
    (tmp_path / "corpus.jsonl").write_text("abc")
    (tmp_path / "qrels" / "test.tsv").write_text("de")
    source = f"beir:{tmp_path}:test"
    before = describe_files(source)
    assert before[source]["bytes"] == 5
    (tmp_path / "corpus.jsonl").write_text("abd")
    assert describe_files(source) != before


@pytest.mark.slow
def test_other_data_under_the_same_name_is_another_run(encoder_dir, data, tmp_path):
    copy = tmp_path / "data"
    shutil.copytree(data, copy)
    overrides = fields(encoder_dir, copy, "train.epochs=1")
    run_all("finetune/classification", overrides, tmp_path / "run")
    with (copy / "train.csv").open("a") as file:
        file.write("bal bad,bad\n")
    with pytest.raises(UsageError, match="train.csv has .* bytes, and had"):
        run_all("finetune/classification", overrides, tmp_path / "run")
    text = (data / "train.csv").read_text()
    (copy / "train.csv").write_text(text.replace("good", "goud"))
    with pytest.raises(UsageError, match="train.csv was changed since"):
        run_all("finetune/classification", overrides, tmp_path / "run")


@pytest.mark.slow
def test_rows_longer_than_any_before_are_said(encoder_dir, data, tmp_path, caplog):
    encoder = starting_encoder(config(encoder_dir, data))
    assert "longer than" not in caplog.text
    with pytest.MonkeyPatch.context() as patch:
        model = load(encoder_dir)
        patch.setattr(type(model), "encoder", encoder._replace(length=12))
        starting_encoder(config(encoder_dir, data))
    assert "rows of up to 16 tokens are longer than the 12" in caplog.text


def test_a_sweep_names_one_field():
    names = ["optimizer.learning_rate", "train.epochs", "optimizer.name", "task.name"]
    assert parse_axis("epochs=1,2", names) == ("train.epochs", ["1", "2"])
    for text, message in (("name=a,b", "may be"), ("epoch=1", "no such"), ("epochs", "write")):
        with pytest.raises(UsageError, match=message):
            parse_axis(text, names)


def command(encoder_dir, data, tmp_path, *more):
    overrides = [f"--config.{field}" for field in fields(encoder_dir, data, *more)]
    return ["finetune", "--config", "finetune/classification", "--workdir", str(tmp_path / "w"),
            *overrides]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("task.train=none.csv", "none.csv: there is no such file"),
        ("task.text=sentence", "no column 'sentence'; there are: text, label"),
        ("task.label=text", "is none of"),
        ("task.head=other", "task.head='other' is unknown; use default, official"),
        ("task.metric=f2", "task.metric='f2' is unknown"),
        ("task.metric=in_scope_accuracy", "cannot be had of this data; there are accuracy"),
        ("init.from=nowhere", "nowhere is not a run directory"),
        ("init.from=", "init.from is empty"),
        ("train.length=4", "train.length must be at least 8"),
        ("task.both_orders=true", "needs a second text"),
        ("task.lable=x", "did you mean --config.task.label"),
        ("train.accumulate=3", "does not divide"),
        ("task.validation={data}/other.csv", "other.csv:2: label 'Good' is none of bad, good"),
    ],
)
def test_wrong_input_is_one_line(encoder_dir, data, tmp_path, capsys, field, message):
    (data / "other.csv").write_text("text,label\nbal,Good\n")
    assert main(command(encoder_dir, data, tmp_path, field.replace("{data}", str(data)))) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert error[-1].startswith("electra-jax: ") and message in error[-1]
    assert not (tmp_path / "w" / "task.json").exists()


def test_retrieval_refuses_to_cut_its_batch(encoder_dir, tmp_path, capsys):
    (tmp_path / "p.jsonl").write_text('{"query": "good", "positive": "bad"}\n')
    overrides = [f"init.from={encoder_dir}", f"task.train={tmp_path}/p.jsonl",
                 "train.accumulate=2", "train.length=16"]  # fmt: skip
    flags = ["--config", "finetune/retrieval", "--workdir", str(tmp_path / "w")]
    assert main(["finetune", *flags, *(f"--config.{field}" for field in overrides)]) == 2
    assert "train.accumulate must be 1" in capsys.readouterr().err


def test_answers_that_are_not_in_their_context_are_said(tmp_path, caplog):
    rows = [
        {"id": "1", "question": "good ?", "context": "a good .",
         "answers": [{"text": "good", "answer_start": 2}]},
        {"id": "2", "question": "bad ?", "context": "a good .",
         "answers": [{"text": "bad", "answer_start": 2}]},
    ]  # fmt: skip
    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = QuestionAnswering(QuestionAnsweringConfig(), TOKENIZER)
    records = task.read(str(file))
    assert len(task.examples(records, 32, True, True)) == 1
    assert "1 answers are not in their contexts, not trained on" in caplog.text
    assert len(task.examples(records, 32, True, False)) == 2


@pytest.mark.slow
def test_labelled_rows_are_evaluated(finished, data, tmp_path, capsys):
    results = json.loads((finished / "results.json").read_text())
    assert main(["evaluate", "--workdir", str(finished), "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out)
    assert metrics == {"step": results["step"], **results["metrics"]}
    others = tmp_path / "others.csv"
    others.write_text("text,label\nbal good,bad\nbal good,bad\n")
    assert main(["evaluate", "--workdir", str(finished), "--data", str(others), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] == 0.0


def test_rows_are_answered_as_they_come():
    asked = queue.Queue()
    rows = (Row(str(n), {}) for n in iter(asked.get, None))
    chunks = arriving(rows)
    asked.put(1)
    assert [row.where for row in next(chunks)] == ["1"]
    asked.put(2)
    assert [row.where for row in next(chunks)] == ["2"]
    asked.put(None)
    assert list(chunks) == []


def test_what_comes_before_a_broken_row_is_answered():
    def rows():
        yield Row("1", {})
        raise UsageError("broken")

    chunks = arriving(rows())
    assert [row.where for row in next(chunks)] == ["1"]
    with pytest.raises(UsageError, match="broken"):
        next(chunks)


@pytest.mark.slow
def test_predict_and_embed_from_files(finished, tmp_path, capsys, monkeypatch):
    source = tmp_path / "in.txt"
    source.write_text("good good\nbad\n")
    assert main(["predict", "--model", str(finished), "--input", str(source)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert [set(json.loads(line)) for line in out] == [{"label", "score", "scores"}] * 2
    flags = ["--model", str(finished), "--input", str(source), "--format", "lines"]
    assert main(["predict", *flags]) == 0
    assert capsys.readouterr().out.splitlines() == out
    source.write_text("good " * 30 + "\nbad\n")
    assert main(["predict", "--model", str(finished), "--input", str(source)]) == 0
    assert "1 fill 16 tokens" in capsys.readouterr().err
    source.write_text("good\n\n")
    assert main(["predict", "--model", str(finished), "--input", str(source)]) == 0
    assert f"1 have no text (the first: {source}:2)" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xef\xbb\xbftext\nbad\n")))
    assert main(["predict", "--model", str(finished), "--input", "-", "--format", "csv"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    with pytest.raises(UsageError, match="predict takes a list"):
        load(finished).predict("good")
    target = tmp_path / "vectors"  # as it is named, without an ending
    flags = ["--model", str(finished), "--input", str(source), "--output", str(target)]
    assert main(["embed", *flags]) == 0
    assert np.load(target).shape == (2, 32)
    source.write_bytes(b"ok\n\xff\n")
    assert main(["predict", "--model", str(finished), "--input", str(source)]) == 2
    assert "in.txt:2: not valid UTF-8" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "new"),
    [('"good"', '"gold"'), ('"version": 1', '"version": 0'), ('"checksum"', '"chekcsum"')],
)
def test_a_damaged_label_is_noticed(finished, tmp_path, old, new):
    workdir = shutil.copytree(finished, tmp_path / "run")
    file = workdir / "task.json"
    content = file.read_text()
    assert old in content
    file.write_text(content.replace(old, new, 1))
    with pytest.raises(UsageError, match="task.json"):
        load(workdir)
    # As version 0.1 wrote it.
    plain = json.loads(content)
    del plain["checksum"]
    file.write_text(json.dumps(plain))
    load(workdir)


def test_a_config_that_is_not_its_checkpoints_is_named(finished, tmp_path):
    workdir = shutil.copytree(finished, tmp_path / "run")
    file = workdir / "config.json"
    file.write_text(file.read_text().replace('"length": 16', '"length": 17', 1))
    with pytest.raises(UsageError, match=r"config\.json says train\.length=17.* made with 16"):
        load(workdir)
