"""Trackers beside `metrics.jsonl`: none is worth a run, and a resumed run goes on in its own."""

import importlib.util
import json
import threading

import pytest

from electra_jax.errors import UsageError
from electra_jax.training import trackers
from electra_jax.training.config import TrainConfig
from electra_jax.training.metrics import MetricsWriter, read_metrics
from electra_jax.training.trackers import TRACKERS_FILE, check_trackers


class Fake:
    """A session that keeps what it is given, by the name of its run."""

    runs: dict = {}

    def __init__(self, start):
        self.run = start.run or f"run-{len(self.runs)}"
        self.lines = self.runs.setdefault(self.run, [])
        self.settings = start.settings

    def write(self, step, values, warnings):
        self.lines.append((step, values, warnings))

    def finish(self):
        self.lines.append("finished")


@pytest.fixture
def fake(monkeypatch):
    def use(session):
        monkeypatch.setattr(Fake, "runs", {})
        monkeypatch.setitem(trackers.SESSIONS, "fake", ("json", session))

    return use


def write(workdir, first, steps, names="fake"):
    with MetricsWriter(workdir, first, names) as writer:
        for step in steps:
            writer.write(step, 0.0, {"train/loss": float(step), "x": float("nan")}, {"w": None})


def test_a_resumed_run_goes_on_in_its_own(tmp_path, fake):
    fake(Fake)
    write(tmp_path, 0, (1, 2))
    write(tmp_path, 2, (3,))
    line = [(step, {"train/loss": float(step)}, {"w": None}) for step in (1, 2, 3)]
    assert Fake.runs == {"run-0": [*line[:2], "finished", line[2], "finished"]}
    assert not (tmp_path / "tensorboard").exists()
    (tmp_path / TRACKERS_FILE).write_text("{")
    write(tmp_path, 3, (4,))
    assert set(Fake.runs) == {"run-0", "run-1"}
    assert json.loads((tmp_path / TRACKERS_FILE).read_text()) == {"fake": "run-1"}


@pytest.mark.parametrize("where", ["__init__", "write", "finish"])
def test_a_tracker_that_fails_is_given_up(where, tmp_path, fake, caplog, monkeypatch):
    def fail(self, *args):
        raise SystemExit("no network")

    fake(Fake)
    monkeypatch.setattr(Fake, where, fail)
    write(tmp_path, 0, range(1, 50))
    assert caplog.text.count("the run goes on without it") == 1
    assert len(read_metrics(tmp_path)) == 49


def test_a_tracker_that_hangs_holds_nothing_up(tmp_path, fake, caplog, monkeypatch):
    """Neither at a line, nor with a full queue, nor at the end."""
    release = threading.Event()

    class Hanging(Fake):
        def __init__(self, start):
            super().__init__(start)
            release.wait()

    monkeypatch.setattr(trackers, "CLOSE_SECONDS", 0.01)
    for waiting in (5, 1000):
        fake(Hanging)
        monkeypatch.setattr(trackers, "WAITING_LINES", waiting)
        caplog.clear()
        write(tmp_path / str(waiting), 0, range(1, 50), "tensorboard,fake")
        assert caplog.text.count("the run goes on without it") == 1
        assert len(read_metrics(tmp_path / str(waiting))) == 49
    release.set()


def test_names_are_checked(monkeypatch):
    for name in ("", "tensorboard", "wandb, mlflow"):
        TrainConfig(trackers=name)
    with pytest.raises(UsageError, match=r"train\.trackers: 'wandn' .* did you mean wandb"):
        TrainConfig(trackers="tensorboard,wandn")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    check_trackers("tensorboard")
    with pytest.raises(UsageError, match=r"pip install '\.\[mlflow\]'"):
        check_trackers("tensorboard,mlflow")


@pytest.mark.full
def test_wandb_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for first in (0, 2):
        write(tmp_path, first, (first + 1, first + 2), "wandb")
    run = json.loads((tmp_path / TRACKERS_FILE).read_text())["wandb"]
    files = list((tmp_path / "wandb").glob(f"offline-run-*-{run}/*.wandb"))
    assert len(files) == 2 and all(file.stat().st_size > 100 for file in files)


@pytest.mark.full
def test_mlflow_in_files(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
    for first in (0, 2):
        write(tmp_path, first, (first + 1, first + 2), "mlflow")
    run = json.loads((tmp_path / TRACKERS_FILE).read_text())["mlflow"]
    client = mlflow.MlflowClient()
    history = [(m.step, m.value) for m in client.get_metric_history(run, "train/loss")]
    assert history == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0)]
    assert client.get_run(run).info.status == "FINISHED"
    assert client.get_run(run).data.tags["warnings/w"] == "over"
