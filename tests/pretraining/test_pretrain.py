"""The pretraining run: its first losses, its end, and going on after any kind of stop."""

import contextlib
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny_run
from compiling import FAST
from orbax.checkpoint import CheckpointManager
from tiny_run import TINY, logged, make_store, tiny

from electra_jax import cli
from electra_jax.config import build_objective, load_config, pretrain_config
from electra_jax.data.mixture import Mixture
from electra_jax.data.token_store import TokenStore, prepare
from electra_jax.errors import Stopped, UsageError
from electra_jax.evaluation import evaluate
from electra_jax.inference.pretrained import load_pretrained
from electra_jax.models.electra import init_params
from electra_jax.objectives.replaced_token import ReplacedTokenDetection
from electra_jax.pretraining.pretrain import pretrain
from electra_jax.training import loop
from electra_jax.training.checkpoint import SaveFailed
from electra_jax.training.loop import Clock
from electra_jax.training.metrics import read_metrics

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("data") / "store")


@pytest.fixture(scope="module", autouse=True)
def one_device():
    with tiny_run.one_device():
        yield


@pytest.fixture(scope="module")
def straight(store, tmp_path_factory):
    """A run that nothing interrupted."""
    workdir = tmp_path_factory.mktemp("straight") / "run"
    pretrain(tiny(store, "checkpoint.keep=3"), workdir)
    return workdir


@pytest.fixture
def finished(straight, tmp_path):
    """A copy of it, to be changed."""
    return shutil.copytree(straight, tmp_path / "run")


def assert_same_run(one, other):
    assert logged(one) == logged(other)
    first, second = (load_pretrained(path, "last") for path in (one, other))
    assert first.step == second.step
    jax.tree.map(np.testing.assert_array_equal, first.params, second.params)


@pytest.mark.parametrize("layers", [1, pytest.param(12, marks=pytest.mark.full)])
def test_first_losses_of_small_are_those_of_chance(store, layers):
    """ln 30522 for the generator, and ln 2 for a discriminator without an opinion."""
    fields = [f"data.store={store}", "model.vocab_size=30522", "model.scan=true"]
    fields.append(f"model.layers={layers}")
    config = pretrain_config(load_config("pretrain/small", fields).to_dict())
    opened = TokenStore.open(store)
    objective = build_objective(config, opened.tokenizer)
    batch = Mixture((opened,), (1.0,)).sampler("train", config.data, 16, 0).batch(0)
    # Random words, for the few of the store may have been given odd logits by chance.
    words = np.random.default_rng(0).integers(100, 30522, batch["tokens"].shape, np.int32)
    batch["tokens"] = np.where(batch["tokens"] > 4, words, batch["tokens"])

    @jax.jit
    def losses(key, opinion):
        params = init_params(objective.electra, key)
        params["discriminator"]["classifier"]["kernel"] *= opinion
        prepared = objective.prepare(batch, key)
        return objective.losses(params, prepared, None, 0, False)[1]

    def first_losses(opinion):
        return objective.summarise(jax.device_get(losses(jax.random.key(0), opinion)))

    figures = first_losses(opinion=0.0)
    assert figures["generator_loss"] == pytest.approx(10.33, abs=0.1)
    assert figures["discriminator_loss"] == pytest.approx(np.log(2), abs=1e-4)
    assert figures["loss"] == pytest.approx(44.98, abs=0.1)
    # As initialised the classifier has an opinion, and so a loss a little above chance.
    assert 0.6 < first_losses(opinion=1.0)["discriminator_loss"] < 1.2


def test_a_run_learns_and_leaves_everything_behind(store, tmp_path, capsys):
    workdir = tmp_path / "run"
    pairs = make_pairs(tmp_path / "pairs.jsonl")
    fields = ["train.steps=60", "eval.every_steps=30"]
    pretrain(tiny(store, *fields, f"eval.minimal_pairs={pairs}"), workdir)
    names = {path.name for path in workdir.iterdir()}
    assert {"config.json", "checkpoints", "metrics.jsonl", "tensorboard", "tokenizer"} <= names
    lines = read_metrics(workdir)
    train = [line["train/generator_loss"] for line in lines if "train/loss" in line]
    assert len(train) == 12 and train[-1] < 0.8 * train[0]
    evaluations = [line for line in lines if "eval/loss" in line]
    assert [line["step"] for line in evaluations] == [30, 60]
    assert {"eval/discriminator_auc", "eval/generator_accuracy_baseline"} <= set(evaluations[0])
    assert evaluations[0]["eval/minimal_pairs_baseline"] == 0.5
    assert any((workdir / "tensorboard").iterdir())

    # What a finished run is for, by the commands a user would give.
    assert cli.main(["evaluate", "--workdir", str(workdir), "--checkpoint", "last", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["step"] == 60
    # All of the split is no more than the evaluations in training read.
    assert figures["loss"] == pytest.approx(evaluations[-1]["eval/loss"], rel=1e-4)
    flags = ["--model", str(workdir), "--checkpoint", "last", "--minimal-pairs", str(pairs)]
    assert cli.main(["evaluate", *flags, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["minimal_pairs"] == evaluations[-1]["eval/minimal_pairs"]
    assert (found["step"], found["pairs"]) == (60, 12)
    assert cli.main(["evaluate", *flags, "--pairs-per-paradigm", "2"]) == 0
    assert "step 60, 2 pairs" in capsys.readouterr().out
    assert cli.main(["inspect", "--model", str(workdir), "--json", "the cat eats the dog ."]) == 0
    tokens = json.loads(capsys.readouterr().out)["tokens"]
    assert [token["piece"] for token in tokens] == ["the", "cat", "eats", "the", "dog", "."]
    assert all(0 <= token["replaced"] <= 1 and len(token["suggestions"]) == 3 for token in tokens)
    assert cli.main(["report", "--workdir", str(workdir)]) == 0
    page = (workdir / "report" / "index.html").read_text()
    assert "discriminator_auc" in page and 'class="sample"' in page
    assert "Minimal pairs" in page.split('id="curves"')[0]
    assert '<section id="pairs"' in page and "word_order" in page

    # Again, without the pairs: done is done.
    before = logged(workdir)
    pretrain(tiny(store, *fields), workdir)
    assert logged(workdir) == before


def make_pairs(path):
    """Pairs of word order, in the words of the store."""
    nouns, verbs = ["cat", "dog", "bird", "fish"], ["eats", "sees", "likes"]
    rows = [
        {"sentence_good": f"the {noun} {verb} the cow .", "UID": "verb_last",
         "sentence_bad": f"the {noun} the cow {verb} .", "linguistics_term": "word_order"}
        for noun in nouns for verb in verbs
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_pairs_are_scored_where_no_text_is_held_out(store, tmp_path):
    texts, whole = ["the cat eats the dog and sees the fish ."] * 60, tmp_path / "store"
    tokenizer = TokenStore.open(store).tokenizer
    prepare(texts, tokenizer, whole, workers=1, validation_share=0, progress=False)
    fields = ["train.steps=2", "eval.every_steps=1", "eval.minimal_pairs_per_paradigm=3"]
    pairs = make_pairs(tmp_path / "pairs.jsonl")
    pretrain(tiny(whole, *fields, f"eval.minimal_pairs={pairs}"), tmp_path / "run")
    lines = [x for x in read_metrics(tmp_path / "run") if "eval/minimal_pairs" in x]
    assert [x["step"] for x in lines] == [1, 2] and "eval/loss" not in lines[0]
    assert load_pretrained(tmp_path / "run").step == 2


@pytest.mark.parametrize(
    ("words", "message"), [("", "matches no file"), ("cat " * 31, "pairs.jsonl:1: the text has 31")]
)
def test_wrong_pairs_are_told_before_a_run_begins(store, words, message, tmp_path):
    pairs = tmp_path / "pairs.jsonl"
    if words:
        pairs.write_text(json.dumps({"sentence_good": words, "sentence_bad": "a cat"}))
    with pytest.raises(UsageError, match=message):
        pretrain(tiny(store, f"eval.minimal_pairs={pairs}"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_objective_without_scores_is_told_before_a_run_begins(store, tmp_path, monkeypatch):
    monkeypatch.delattr(ReplacedTokenDetection, "score_tokens")
    pairs = make_pairs(tmp_path / "pairs.jsonl")
    with pytest.raises(UsageError, match="objective.name=electra does not score sentences"):
        pretrain(tiny(store, f"eval.minimal_pairs={pairs}"), tmp_path / "run")


def test_evaluation_is_exact_on_a_partial_batch(store, finished):
    figures = evaluate(finished)
    config = json.loads((finished / "config.json").read_text())
    sampler = Mixture.open(str(store)).sampler("validation", tiny(store).data, 16, 0)
    assert sampler.rows % 16
    config["eval"]["batch_size"] = sampler.rows  # no row of padding at all
    (finished / "config.json").write_text(json.dumps(config))
    whole = evaluate(finished)
    # Masks differ with the shape of a batch; the share of originals nearly does not.
    for name in ("discriminator_accuracy_baseline", "generator_loss"):
        assert whole[name] == pytest.approx(figures[name], rel=0.02)


def test_a_time_budget_ends_a_run_and_its_schedule(store, tmp_path):
    config = tiny(store, "train.time_budget=2s", "train.log_every=1000", "eval.every_steps=100000")
    pretrain(config, tmp_path / "run")
    line = read_metrics(tmp_path / "run")[-1]
    # Compiling counts, the budget is of the whole run: it may leave time for a single step.
    assert line["seconds"] >= 2 and line["step"] >= 1


def test_the_clock_of_a_resumed_run_has_the_time_spent(store, tmp_path, monkeypatch):
    clocks = []
    monkeypatch.setattr(
        "electra_jax.pretraining.pretrain.Clock",
        lambda before: clocks.append(before) or Clock(before),
    )
    for _ in range(2):
        pretrain(tiny(store, "train.steps=2"), tmp_path / "run")
    assert clocks[0] == 0 and clocks[1] >= read_metrics(tmp_path / "run")[0]["seconds"] > 0


def test_compiling_first_takes_no_time_and_changes_nothing(store, tmp_path, monkeypatch, caplog):
    module = sys.modules["electra_jax.pretraining.pretrain"]
    monkeypatch.setattr(
        module, "Clock", lambda before: module.log.warning("the clock starts") or Clock(before)
    )
    config = tiny(store, "train.steps=10")
    with jax.log_compiles():
        pretrain(config, tmp_path / "first", compile_first=True)
    before, after = caplog.text.split("the clock starts")
    assert "Compiling jit(train_step)" in before and "Compiling jit(train_step)" not in after
    pretrain(config, tmp_path / "later")
    assert_same_run(tmp_path / "first", tmp_path / "later")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.learning_rate=1", "optimizer.learning_rate"),
        ("train.batch_size=32", "train.batch_size"),
        ("train.steps=40", "train.steps"),
    ],
)
def test_a_run_does_not_go_on_as_another(store, finished, override, message):
    before = logged(finished)
    with pytest.raises(UsageError, match=f"holds a run with {message}"):
        pretrain(tiny(store, override), finished)
    assert logged(finished) == before
    pretrain(tiny(store, "train.log_every=3"), finished)


def truncate(checkpoint):
    for file in checkpoint.rglob("*"):
        if file.is_file() and file.stat().st_size > 1000:
            file.write_bytes(file.read_bytes()[:500])


def test_a_truncated_checkpoint_makes_way_for_the_one_before(store, straight, finished, caplog):
    truncate(finished / "checkpoints" / "20")
    pretrain(tiny(store, "checkpoint.keep=3"), finished)
    assert "checkpoint 20 cannot be read" in caplog.text
    # What may be readable on another day is kept.
    assert (finished / "unreadable-checkpoints" / "20" / "params").is_dir()
    assert_same_run(finished, straight)


def test_a_run_none_of_whose_checkpoints_can_be_read_keeps_them(store, finished):
    before = sorted((finished / "checkpoints").glob("[0-9]*"))
    for checkpoint in before:
        truncate(checkpoint)
    with pytest.raises(UsageError, match="no checkpoint in .* can be read"):
        pretrain(tiny(store), finished)
    with pytest.raises(UsageError, match="checkpoints/20/.* cannot be read"):
        load_pretrained(finished, "last")
    assert sorted((finished / "checkpoints").glob("[0-9]*")) == before


def test_opening_a_model_writes_nothing(finished):
    shutil.rmtree(finished / "checkpoints")
    with pytest.raises(UsageError, match="holds no checkpoint yet"):
        load_pretrained(finished)
    assert not (finished / "checkpoints").exists()


def test_a_loss_that_is_no_number_stops_the_run(store, tmp_path):
    config = tiny(store, "optimizer.learning_rate=1e38", "optimizer.name=adamw")
    with pytest.raises(loop.NonFiniteLoss, match="the loss is .* at step"):
        pretrain(config, tmp_path / "run")


def test_parameters_that_are_no_numbers_are_not_saved(store, tmp_path, monkeypatch):
    """At a save between two lines of the log, when no loss has been looked at."""
    real = loop.Loop.run

    def run(self, state, key):
        step = self.train_step

        def train_step(state, *args):
            state = step(state, *args)
            broken = jax.tree.map(lambda x: x * np.nan, state.params)
            return state.replace(params=broken) if state.step == 7 else state

        self.train_step = train_step
        return real(self, state, key)

    monkeypatch.setattr(loop.Loop, "run", run)
    monkeypatch.setattr(jax, "transfer_guard_host_to_device", lambda _: contextlib.nullcontext())
    config = tiny(store, "checkpoint.every_steps=7", "train.log_every=20", "eval.every_steps=3")
    with pytest.raises(loop.NonFiniteLoss, match="a parameter is not a number at step 7"):
        pretrain(config, tmp_path / "run")
    assert load_pretrained(tmp_path / "run", "last").step == 6


def command(store, workdir, *overrides):
    flags = [f"--config.{field}" for field in [*TINY, f"data.store={store}", *overrides]]
    return ["pretrain", "--config", "pretrain/tiny", "--workdir", str(workdir), *flags]


def start(arguments, program=("-m", "electra_jax")):
    """A run in a process of its own, as a user starts it."""
    return subprocess.Popen(
        [sys.executable, *program, *arguments], cwd=ROOT, env={**os.environ, "XLA_FLAGS": FAST},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


KILLED = """
import os, signal, sys
from electra_jax import cli
from electra_jax.training import loop
from electra_jax.training.checkpoint import Checkpoints

save = Checkpoints.save

def killed(self, step, *args):
    save(self, step, *args)  # returns before all is written
    if step == 10:
        os.kill(os.getpid(), signal.SIGKILL)

Checkpoints.save = killed
sys.exit(cli.main())
"""


def test_a_run_killed_in_a_save_and_then_interrupted_goes_on_bit_for_bit(
    store, straight, tmp_path, monkeypatch, capsys
):
    workdir = tmp_path / "run"
    arguments = command(store, workdir, "checkpoint.keep=3")
    process = start(arguments, program=("-c", KILLED))
    output, _ = process.communicate(timeout=240)
    assert process.returncode == -signal.SIGKILL, output
    assert read_metrics(workdir)[-1]["step"] == 10

    real = loop.Loop.run

    def run(self, state, key):
        step = self.train_step

        def train_step(state, *args):
            if state.step == 12:
                signal.raise_signal(signal.SIGINT)
            return step(state, *args)

        self.train_step = train_step
        return real(self, state, key)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Loop, "run", run)
        patch.setattr(jax, "transfer_guard_host_to_device", lambda _: contextlib.nullcontext())
        assert cli.main(arguments) == cli.INTERRUPTED
    assert "rerun the command to resume" in capsys.readouterr().out
    assert load_pretrained(workdir, "last").step == 13
    assert cli.main(arguments) == 0
    assert_same_run(workdir, straight)


def wait_for(path, process):
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.full
def test_a_run_killed_at_any_moment_goes_on_bit_for_bit(store, tmp_path):
    overrides = ("train.steps=1500", "checkpoint.every_steps=100", "eval.every_steps=500")
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    process = start(command(store, killed, *overrides))
    wait_for(killed / "checkpoints" / "300", process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    process = start(command(store, killed, *overrides))
    wait_for(killed / "checkpoints" / "700", process)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == cli.INTERRUPTED, output
    assert "rerun the command to resume" in output and "Traceback" not in output
    assert max(line["step"] for line in read_metrics(killed)) < 1500
    for workdir in (killed, straight):
        process = start(command(store, workdir, *overrides))
        output, _ = process.communicate(timeout=240)
        assert process.returncode == 0, output
    assert_same_run(killed, straight)


def test_sigterm_in_an_evaluation_waits_for_its_end_and_saves(
    store, straight, tmp_path, monkeypatch
):
    module = sys.modules["electra_jax.pretraining.pretrain"]
    real = module.make_evaluate

    def make_evaluate(*args):
        evaluate = real(*args)

        def stopped(params):
            signal.raise_signal(signal.SIGTERM)
            return evaluate(params)

        return stopped

    monkeypatch.setattr(module, "make_evaluate", make_evaluate)
    with pytest.raises(Stopped) as stop:
        pretrain(tiny(store), tmp_path / "run")
    assert stop.value.signal == signal.SIGTERM
    assert load_pretrained(tmp_path / "run", "last").step == 11  # one step after the evaluation
    monkeypatch.undo()
    pretrain(tiny(store), tmp_path / "run")
    assert_same_run(tmp_path / "run", straight)


def test_a_save_that_fails_stops_the_run_with_its_reason(store, tmp_path, monkeypatch):
    real = CheckpointManager.save

    def save(self, step, *args, **kwargs):
        if step > 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, step, *args, **kwargs)

    monkeypatch.setattr(CheckpointManager, "save", save)
    with pytest.raises(SaveFailed, match="No space left on device.*resume from the last one"):
        pretrain(tiny(store), tmp_path / "run")
    assert load_pretrained(tmp_path / "run", "last").step == 5


def test_a_mixture_is_judged_by_what_is_held_out_and_keeps_its_weights(store, tmp_path, caplog):
    whole = tmp_path / "whole"
    texts = [f"the cat sees the {word} ." for word in ("dog", "cow", "fish")] * 99
    prepare(texts, TokenStore.open(store).tokenizer, whole, workers=1, validation_share=0.0,
            progress=False)  # fmt: skip
    workdir = tmp_path / "run"
    pretrain(tiny(store, "train.steps=2", f"data.store={store}:3,{whole}:1"), workdir)
    assert f"{whole} holds nothing out" in caplog.text
    assert "eval/loss" in read_metrics(workdir)[-1]
    pretrain(tiny(store, "train.steps=2", f"data.store={store}:0.75,{whole}:0.25"), workdir)
    for other in (f"{store}:1,{whole}:3", f"{store}:7501,{whole}:2499"):  # one row in 10,000
        with pytest.raises(UsageError, match="whose weights are others"):
            pretrain(tiny(store, "train.steps=2", f"data.store={other}"), workdir)


def test_a_workdir_that_is_a_file_is_left_alone(store, tmp_path):
    (tmp_path / "run").write_text("mine")
    with pytest.raises(UsageError, match="run cannot be made a run directory"):
        pretrain(tiny(store), tmp_path / "run")
    assert (tmp_path / "run").read_text() == "mine"


def test_a_store_that_was_moved_is_told(store, finished, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(store, moved)
    # The same store elsewhere is the same store.
    pretrain(tiny(moved), finished)
    shutil.rmtree(moved)
    with pytest.raises(UsageError, match="not a token store"):
        pretrain(tiny(moved), finished)
    with pytest.raises(UsageError, match="if it was moved, give --data STORE"):
        evaluate(finished)
    assert evaluate(finished, str(store))["loss"] > 0


def test_a_run_finds_its_store_from_any_folder(store, tmp_path, monkeypatch):
    monkeypatch.chdir(store.parent)
    pretrain(tiny(store.name, "train.steps=1"), tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    assert evaluate(tmp_path / "run")["step"] == 1


def test_a_run_whose_save_fails_is_gone_at_once(store, tmp_path):
    """Orbax's threads wait for minutes for those that have failed."""
    workdir = tmp_path / "run"
    process = start(command(store, workdir, "train.steps=100000", "eval.every_steps=100000"))
    wait_for(workdir / "checkpoints" / "10", process)
    (workdir / "checkpoints").rename(workdir / "before")
    (workdir / "checkpoints").write_text("")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1, output
    assert "electra-jax: a checkpoint could not be saved in" in output.splitlines()[-1]
    assert "Not a directory; mend that" in output and "Traceback" not in output


def edit(workdir, old, new):
    file = workdir / "config.json"
    content = file.read_text()
    assert old in content
    file.write_text(content.replace(old, new, 1))
    return content


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ('"mask_rate": 0.', '"mask_rate": 0.9', "objective.mask_rate"),
        ('"seed": 0', '"seed": 8', "train.seed"),
        ('"heads": 2', '"heads": 4', "model.heads"),
        ('"optimizer": {', '"optimizer": [', "cannot be read"),
    ],
)
def test_a_config_that_is_not_its_checkpoints_is_named_and_mended(
    store, finished, old, new, field, caplog
):
    """Not believed by those who load the model, and written anew by its own command."""
    before = edit(finished, old, new)
    with pytest.raises(UsageError, match=rf"config\.json.*{field.split('.')[-1]}") as caught:
        load_pretrained(finished)
    assert "put that value back" in str(caught.value) or "writes it anew" in str(caught.value)
    pretrain(tiny(store, "checkpoint.keep=3"), finished)
    assert field.split(".")[-1] in caplog.text and "the checkpoints are believed" in caplog.text
    assert (finished / "config.json").read_text() == before
    load_pretrained(finished)


def test_fields_that_change_nothing_may_be_edited(finished):
    edit(finished, '"log_every": 5', '"log_every": 6')
    load_pretrained(finished)


def test_a_rotten_checkpoint_makes_way_for_the_one_before(store, straight, finished, caplog):
    """A bit of its arrays that zstd and JSON do not notice: figures would be others."""
    data = max((finished / "checkpoints/20/rest").rglob("d/*"), key=lambda x: x.stat().st_size)
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 4
    data.write_bytes(bytes(content))
    pretrain(tiny(store, "checkpoint.keep=3"), finished)
    assert "checkpoint 20 cannot be read" in caplog.text
    assert_same_run(finished, straight)
