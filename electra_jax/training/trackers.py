"""Where the metrics of a run go beside its `metrics.jsonl`: `train.trackers` names them.

A tracker is one of TRACKERS. None is worth a run: those that talk to other programs do so in a
thread of their own, which nothing waits for long, and one that fails is given up with a warning.
What a tracker calls the run is kept in TRACKERS_FILE, so that a resumed run goes on in it. Project,
server and offline modes are those of the tracker's own environment variables.
"""

import importlib.util
import logging
import os
import queue
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from electra_jax.errors import UsageError, did_you_mean
from electra_jax.system.atomic_files import write_json
from electra_jax.system.json_files import read_object, short_reason
from electra_jax.training.event_file import EventFile

log = logging.getLogger(__name__)

TENSORBOARD = "tensorboard"
TRACKERS_FILE = "trackers.json"  # what each tracker calls the run
PROJECT = "electra-jax"  # where the environment names no other
WAITING_LINES = 10_000  # for a tracker that is slow; one that has more is given up
CLOSE_SECONDS = 30.0  # that a tracker has at the end of a run

Values = Mapping[str, float | None]
Warnings = Mapping[str, str | None]  # as in a line of `metrics.jsonl`


class Tracker(Protocol):
    """What receives the lines of a run. It never raises and never waits for long."""

    def append(self, step: int, values: Values, warnings: Warnings) -> None:
        """Adds a line; a value is None if it was not finite."""

    def close(self) -> None:
        """Ends the tracker with all lines that it was given."""


class Session(Protocol):
    """A tracker's own client. It may raise anything, and take its time."""

    run: str  # what the tracker calls the run

    def write(self, step: int, values: Mapping[str, float], warnings: Warnings) -> None: ...

    def finish(self) -> None: ...


class Start(NamedTuple):
    """What a session begins with.

    Attributes:
      workdir: the run directory.
      run: what the tracker calls the run; "" for a new one.
      settings: of the run, by name.
    """

    workdir: Path
    run: str
    settings: Mapping[str, Any]


class Background:
    """A tracker whose session lives in a daemon thread, which its lines wait for in a queue.

    Args:
      name: of the tracker.
      open_session: starts it; is called in the thread.
      start: what it begins with.
    """

    def __init__(self, name: str, open_session: Callable[[Start], Session], start: Start) -> None:
        self._name, self._open, self._start = name, open_session, start
        self._lines: queue.Queue[tuple[int, Values, Warnings] | None] = queue.Queue(WAITING_LINES)
        self._given_up = threading.Event()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def append(self, step: int, values: Values, warnings: Warnings) -> None:
        if self._given_up.is_set():
            return
        try:
            self._lines.put_nowait((step, values, warnings))
        except queue.Full:
            self._give_up(f"{WAITING_LINES:,} lines wait for it")

    def close(self) -> None:
        if self._given_up.is_set():
            return
        try:
            self._lines.put_nowait(None)
        except queue.Full:
            self._give_up(f"{WAITING_LINES:,} lines wait for it")
            return
        self._thread.join(CLOSE_SECONDS)
        if self._thread.is_alive():
            self._give_up(f"it did not end within {CLOSE_SECONDS:g} s")

    def _work(self) -> None:
        try:
            session = self._open(self._start)
            keep_run(self._start.workdir, self._name, session.run)
            while (line := self._lines.get()) is not None:
                step, values, warnings = line
                finite = {name: value for name, value in values.items() if value is not None}
                session.write(step, finite, warnings)
            session.finish()
        except BaseException as error:  # of a library that may even end the thread
            self._give_up(short_reason(error) if isinstance(error, Exception) else repr(error))

    def _give_up(self, reason: str) -> None:
        if not self._given_up.is_set():
            self._given_up.set()
            log.warning("train.trackers: %s fails (%s): the run goes on without it",
                        self._name, reason)  # fmt: skip


class WandbSession:
    """Weights & Biases. Lines of an earlier step than its last one it leaves out itself."""

    def __init__(self, start: Start) -> None:
        import wandb

        self.run = start.run or secrets.token_hex(4)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=os.environ.get("WANDB_NAME", start.workdir.absolute().name),
            id=self.run,
            resume="allow",
            dir=str(start.workdir),
            config=dict(start.settings),
            settings=wandb.Settings(console="off", silent=True, x_disable_stats=True),
        )

    def write(self, step: int, values: Mapping[str, float], warnings: Warnings) -> None:
        told = {f"warnings/{name}": text or "over" for name, text in warnings.items()}
        self._run.log({**values, **told}, step=step)

    def finish(self) -> None:
        self._run.finish()


class MlflowSession:
    """MLflow, by its client: a run of the experiment that MLFLOW_EXPERIMENT_NAME names."""

    def __init__(self, start: Start) -> None:
        import mlflow
        from mlflow.entities import Metric, Param

        self._metric = Metric
        self._client = mlflow.MlflowClient()
        self.run = start.run
        if self.run:
            self._client.set_terminated(self.run, "RUNNING")
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        experiment = self._client.get_experiment_by_name(name)
        id_ = self._client.create_experiment(name) if experiment is None else (
            experiment.experiment_id
        )  # fmt: skip
        self.run = self._client.create_run(id_, run_name=start.workdir.absolute().name).info.run_id
        settings = [Param(name, str(value)[:500]) for name, value in start.settings.items()]
        for index in range(0, len(settings), 100):  # as many as a request may have
            self._client.log_batch(self.run, params=settings[index : index + 100])

    def write(self, step: int, values: Mapping[str, float], warnings: Warnings) -> None:
        now = int(time.time() * 1000)
        self._client.log_batch(
            self.run, [self._metric(name, value, now, step) for name, value in values.items()]
        )
        for name, text in warnings.items():
            self._client.set_tag(self.run, f"warnings/{name}", text or "over")

    def finish(self) -> None:
        self._client.set_terminated(self.run)


class TrackioSession:
    """Trackio, which keeps its runs on this machine, or in a Space of the hub."""

    def __init__(self, start: Start) -> None:
        import trackio

        self.run = start.run or start.workdir.absolute().name
        self._trackio = trackio
        trackio.init(
            project=os.environ.get("TRACKIO_PROJECT", PROJECT), name=self.run,
            config=dict(start.settings), resume="allow", embed=False,
        )  # fmt: skip

    def write(self, step: int, values: Mapping[str, float], warnings: Warnings) -> None:
        told = {f"warnings/{name}": text or "over" for name, text in warnings.items()}
        self._trackio.log({**values, **told}, step=step)

    def finish(self) -> None:
        self._trackio.finish()


# The trackers that are libraries: which one, and its session.
SESSIONS: dict[str, tuple[str, Callable[[Start], Session]]] = {
    "wandb": ("wandb", WandbSession),
    "mlflow": ("mlflow", MlflowSession),
    "trackio": ("trackio", TrackioSession),
}


def tracker_names(text: str) -> list[str]:
    """The trackers that `train.trackers` names."""
    return [name.strip() for name in text.split(",") if name.strip()]


def known_trackers(text: str) -> str:
    """Says what is wrong with `train.trackers`; "" if nothing is (see `errors.checked`)."""
    known = [TENSORBOARD, *SESSIONS]
    for name in tracker_names(text):
        if name not in known:
            hint = did_you_mean(name, known)
            return f": {name!r} is unknown; use some of {','.join(known)}{hint}"
    return ""


def check_trackers(text: str) -> None:
    """Checks that the libraries of the trackers are installed.

    Raises:
      UsageError: one is not; says how to install it.
    """
    for name in tracker_names(text):
        if name in SESSIONS and importlib.util.find_spec(SESSIONS[name][0]) is None:
            raise UsageError(
                f"train.trackers={text}: {name} is not installed: pip install '.[{name}]' in the "
                "checkout"
            )


def open_trackers(
    text: str, workdir: Path, step: int, settings: Mapping[str, Any]
) -> list[Tracker]:
    """The trackers that `train.trackers` names, for a run that has done `step` steps."""
    runs = read_runs(workdir)
    trackers: list[Tracker] = []
    for name in dict.fromkeys(tracker_names(text)):
        if name == TENSORBOARD:
            trackers.append(EventFile(workdir / TENSORBOARD, step))
            continue
        start = Start(workdir, runs.get(name, ""), settings)
        trackers.append(Background(name, SESSIONS[name][1], start))
    return trackers


def read_runs(workdir: Path) -> dict[str, str]:
    """What each tracker calls the run; empty, with a warning, if that cannot be read."""
    path = workdir / TRACKERS_FILE
    if not path.exists():
        return {}
    try:
        return {name: run for name, run in read_object(path).items() if isinstance(run, str)}
    except UsageError as error:
        log.warning("%s: trackers begin a new run", error)
        return {}


_keeping = threading.Lock()


def keep_run(workdir: Path, name: str, run: str) -> None:
    """Keeps what a tracker calls the run."""
    with _keeping:
        runs = read_runs(workdir)
        if runs.get(name) != run:
            write_json(workdir / TRACKERS_FILE, {**runs, name: run})
