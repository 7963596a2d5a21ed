"""Runs of several real processes on this machine: they start, stop, end and go on together."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from compiling import FAST
from tiny_run import TINY, logged, make_store, one_device, tiny

from electra_jax import cli
from electra_jax.pretraining.pretrain import pretrain

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SECONDS = 240  # for anything to happen, on a busy machine
STEPS = "train.steps=200"
FLAGS = [
    STEPS, "model.layers=1", "processes.join_seconds=120", "train.log_every=10",
    "eval.every_steps=100", "checkpoint.every_steps=20",
]  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a store."""
    folder = tmp_path_factory.mktemp("processes")
    make_store(folder / "store")
    return folder


class Run:
    """The processes of one start of a run."""

    def __init__(self, place, workdir, count, overrides=(), only=None, of_one=None):
        with socket.create_server(("localhost", 0)) as server:
            port = server.getsockname()[1]
        self.processes, self.logs = [], []
        for index in range(count) if only is None else only:
            fields = [*TINY, *FLAGS, f"data.store={place / 'store'}", *overrides]
            fields += (of_one or {}).get(index, ())
            environment = {
                **os.environ,
                "XLA_FLAGS": FAST,
            }
            if count > 1:
                environment |= {
                    "JAX_COORDINATOR_ADDRESS": f"localhost:{port}",
                    "JAX_NUM_PROCESSES": str(count),
                    "JAX_PROCESS_ID": str(index),
                }
            log = place / f"{Path(workdir).name}-{time.monotonic_ns()}.log"
            self.logs.append(log)
            with log.open("w") as file:
                self.processes.append(
                    subprocess.Popen(
                        [
                            sys.executable,
                            "-m",
                            "electra_jax",
                            "pretrain",
                            "--config",
                            "pretrain/tiny",
                            "--workdir",
                            str(workdir),
                            *(f"--config.{field}" for field in fields),
                        ],
                        cwd=ROOT,
                        env=environment,
                        stdout=file,
                        stderr=subprocess.STDOUT,
                    )  # fmt: skip
                )

    def wait(self):
        """Exit statuses, when all have ended."""
        return [process.wait(timeout=SECONDS) for process in self.processes]

    def read(self, index):
        return self.logs[index].read_text()

    def wait_for(self, condition):
        deadline = time.monotonic() + SECONDS
        while not condition():
            assert all(p.poll() is None for p in self.processes), list(map(self.read, range(2)))
            assert time.monotonic() < deadline, list(map(self.read, range(len(self.logs))))
            time.sleep(0.02)

    def wait_for_checkpoint(self, workdir, step):
        self.wait_for((workdir / "checkpoints" / str(step)).exists)


def checkpoints(workdir):
    return sorted(int(path.name) for path in (workdir / "checkpoints").glob("[0-9]*"))


def assert_same_losses(one, other):
    one, other = logged(one), logged(other)
    assert [line["step"] for line in one] == [line["step"] for line in other]
    for here, there in zip(one, other, strict=True):
        losses = [{k: v for k, v in line.items() if k.endswith("loss")} for line in (here, there)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def go_alone(place, workdir):
    """The run of this one process, on one device."""
    with one_device():
        pretrain(tiny(place / "store", *FLAGS, "checkpoint.every_steps=200"), workdir)


@pytest.fixture(scope="module")
def straight(place):
    """The run of one process that nobody interrupted."""
    go_alone(place, place / "straight")
    return place / "straight"


def test_a_missing_process_is_named(place):
    run = Run(place, place / "missing", 2, ["processes.join_seconds=2"], only=[0])
    assert run.wait() == [cli.PREEMPTED]  # it may be on its way
    assert "process 1 of 2 did not come; there are 0 (" in run.read(0)
    assert not (place / "missing").exists()


@pytest.mark.full
def test_a_time_budget_ends_all(place):
    run = Run(place, place / "budget", 2, ["train.time_budget=25s", "eval.every_steps=100000"])
    assert run.wait() == [0, 0], run.read(0)
    assert logged(place / "budget")[-1]["step"] > 10


def test_a_differing_config_is_named(place):
    run = Run(place, place / "differing", 2, of_one={1: ["optimizer.learning_rate=0.1"]})
    assert run.wait() == [2, 2]
    for index in (0, 1):
        assert "--config.optimizer.learning_rate is '0.1' there, '0.003' here" in run.read(index)
        assert "Traceback" not in run.read(index)


def test_sigterm_to_one_of_two_saves_both_and_one_alone_goes_on(place, straight):
    workdir = place / "preempted"
    run = Run(place, workdir, 2)
    run.wait_for_checkpoint(workdir, 20)
    run.processes[1].send_signal(signal.SIGTERM)
    assert run.wait() == [cli.PREEMPTED] * 2, [run.read(0), run.read(1)]
    assert "processes   0 " in run.read(0)
    assert "stopped and saved" in run.read(0)
    assert checkpoints(workdir)[-1] < 200
    go_alone(place, workdir)
    assert_same_losses(workdir, straight)


@pytest.mark.full
def test_sigterm_while_a_run_that_goes_on_is_compiled_is_not_lost(place):
    """Its steps are far beyond the number of times that it has asked whether to stop."""
    workdir = place / "again"
    run = Run(place, workdir, 2, ["train.steps=20000"])
    run.wait_for_checkpoint(workdir, 40)
    run.processes[0].send_signal(signal.SIGTERM)
    assert run.wait() == [cli.PREEMPTED] * 2
    stopped = checkpoints(workdir)[-1]
    run = Run(place, workdir, 2, ["train.steps=20000"])
    run.wait_for(lambda: "parameters" in run.read(0))
    run.processes[1].send_signal(signal.SIGTERM)
    assert run.wait() == [cli.PREEMPTED] * 2
    assert stopped < checkpoints(workdir)[-1] < stopped + 20


@pytest.mark.full
def test_four_processes_go_on_as_two(place, straight):
    workdir = place / "four"
    run = Run(place, workdir, 4, ["mesh.fsdp=4"])
    run.wait_for_checkpoint(workdir, 20)
    run.processes[2].send_signal(signal.SIGTERM)
    assert run.wait() == [cli.PREEMPTED] * 4
    run = Run(place, workdir, 2, ["mesh.tensor=2"])
    run.wait_for_checkpoint(workdir, 80)
    run.processes[0].send_signal(signal.SIGTERM)
    assert run.wait() == [cli.PREEMPTED] * 2
    assert Run(place, workdir, 1).wait() == [0]
    assert_same_losses(workdir, straight)


@pytest.mark.full
def test_one_of_two_is_killed(place, straight):
    """The other ends soon, and what was saved is enough to go on from."""
    workdir = place / "killed"
    overrides = ["processes.heartbeat_seconds=10"]
    run = Run(place, workdir, 2, overrides)
    run.wait_for_checkpoint(workdir, 20)
    run.processes[1].kill()
    survivor, killed = run.wait()
    assert killed == -signal.SIGKILL
    assert survivor not in (0, 2, cli.PREEMPTED)
    assert Run(place, workdir, 2, overrides).wait() == [0, 0]
    assert_same_losses(workdir, straight)


@pytest.mark.full
def test_a_process_that_stalls_is_named(place):
    workdir = place / "stalled"
    run = Run(place, workdir, 2, ["train.steps=2000", "processes.stall_seconds=4"])
    run.wait_for_checkpoint(workdir, 20)
    run.processes[1].send_signal(signal.SIGSTOP)
    run.wait_for(lambda: "process 1 (" in run.read(0) and "not been heard of" in run.read(0))
    assert "in run" in run.read(0)  # where this one hangs
    run.processes[1].send_signal(signal.SIGCONT)
    run.processes[0].send_signal(signal.SIGTERM)
    assert run.wait() == [cli.PREEMPTED] * 2


@pytest.mark.full
def test_an_error_in_one_ends_all(place):
    """Process 0, which makes the folders, cannot save any more."""
    workdir = place / "broken"
    run = Run(place, workdir, 2, ["train.steps=100000"])
    run.wait_for_checkpoint(workdir, 20)
    folder = workdir / "checkpoints"
    folder.rename(workdir / "moved")
    folder.write_text("")
    assert run.wait() == [1, 1]  # launchers try again
    assert "could not be saved in" in run.read(0)
    assert "process 0 (" in run.read(1) and "could not be saved in" in run.read(1)
