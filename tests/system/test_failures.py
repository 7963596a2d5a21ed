"""What ended a command, as one line: messages as JAX, CUDA and libtpu write them."""

import contextlib
import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from tiny_run import TINY, make_store

from electra_jax import cli
from electra_jax.errors import Stopped, UsageError
from electra_jax.system.ending import Terminated
from electra_jax.system.failures import OutOfMemory, explain, telling_memory_of
from electra_jax.training.checkpoint import holds_checkpoint
from electra_jax.training.loop import Loop

MEMORY = [
    # The CPU; a GPU's allocator; its planning of buffers; libtpu when it compiles.
    "RESOURCE_EXHAUSTED: Out of memory allocating 4503599627370496 bytes.",
    "RESOURCE_EXHAUSTED: Failed to allocate request for 2.99GiB (3206250496B) on device ordinal 0",
    "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 4770354232 bytes.\n"
    "BufferAssignment OOM Debugging.\nBufferAssignment stats:\n  parameter allocation:  372.76MiB",
    "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. "
    "Used 21.95G of 15.48G hbm.\n Exceeded hbm capacity by 6.47G.\n\nTotal hbm usage >= 22.47G:",
    "INTERNAL: Failed to allocate 1024 bytes for new constant: CUDA_ERROR_OUT_OF_MEMORY: out of "
    "memory",
]
DEVICES = [
    "INTERNAL: CUDA error: Failed to call cuEventRecord: CUDA_ERROR_ILLEGAL_ADDRESS: an illegal "
    "memory access was encountered",
    "FAILED_PRECONDITION: DNN library initialization failed. Look at the errors above for more "
    "details.",
    "INTERNAL: ptxas exited with non-zero error code 2, output: ",
]
PASSING = [
    "INTERNAL: NCCL operation ncclGroupEnd() failed: unhandled system error",
    "UNAVAILABLE: Gloo all-reduce failed: Connection reset by peer",
]


def fails(error, monkeypatch, capsys):
    """The line of a command that an error ended; its status must be 2."""

    def fail(args):
        raise error

    monkeypatch.setitem(cli.COMMANDS, "report", fail)
    assert cli.main(["report", "--workdir", "w"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("electra-jax: ") and said.count("\n") == 1
    return said


@pytest.mark.parametrize("message", MEMORY)
def test_a_lack_of_memory_is_told_with_what_to_do(message, monkeypatch, capsys):
    said = fails(jax.errors.JaxRuntimeError(message), monkeypatch, capsys)
    assert "out of memory on a device (" in said
    assert "batch size" in said and "train.accumulate" in said and "electra-jax plan" in said
    assert "RESOURCE" not in said and "Debugging" not in said


def test_a_lack_of_memory_of_the_host_is_told(monkeypatch, capsys):
    with pytest.raises(MemoryError) as real:
        np.zeros(1 << 55)
    said = fails(real.value, monkeypatch, capsys)
    assert "out of memory on this host (Unable to allocate" in said
    assert "out of memory on this host:" in fails(MemoryError(), monkeypatch, capsys)


@pytest.mark.parametrize("message", DEVICES)
def test_a_device_that_fails_is_told(message, monkeypatch, capsys):
    said = fails(jax.errors.JaxRuntimeError(message), monkeypatch, capsys)
    assert "the GPU failed (" in said and "nvidia-smi" in said and "rerun the command" in said


@pytest.mark.parametrize("message", PASSING)
def test_a_network_that_fails_is_no_reason_not_to_try_again(message):
    line, status = explain(jax.errors.JaxRuntimeError(message))
    assert status == 1 and "network failed (" in line and line.endswith("rerun the command")


@pytest.mark.slow
@pytest.mark.parametrize("platform", ["cuda", "tpu", "rocm", "nonsense"])
def test_a_device_that_is_not_there_is_told(platform):
    """JAX itself says it: a run on a machine without one."""
    code = (
        "import sys\nfrom electra_jax import cli\nfrom electra_jax.parallel.mesh import *\n"
        "cli.COMMANDS['report'] = lambda args: make_mesh(MeshConfig())\n"
        "sys.exit(cli.main(['report', '--workdir', 'w']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120,
        env={**os.environ, "JAX_PLATFORMS": platform}, cwd=Path(__file__).parent.parent,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    line = done.stderr.splitlines()[-1]
    assert line.startswith(f"electra-jax: there is no such device as JAX_PLATFORMS={platform}")
    assert "JAX_PLATFORMS=cpu" in line and "Traceback" not in done.stderr


def test_a_run_names_its_batch_size():
    refused = pytest.raises(OutOfMemory, match="train.batch_size=128 and train.accumulate=2")
    with refused as told, telling_memory_of(128, 2):
        raise jax.errors.JaxRuntimeError(MEMORY[0])
    assert "4,194,304.0 GiB" in str(told.value) and OutOfMemory.status == 2
    with pytest.raises(UsageError, match="mine"), telling_memory_of(128, 2):
        raise UsageError("mine")


def test_what_may_pass_is_told_from_what_will_not():
    for number, status in ((errno.ENOSPC, 1), (errno.EIO, 1), (errno.ELOOP, 2), (errno.EACCES, 2)):
        error = OSError(number, os.strerror(number), b"some\xfffile")
        assert explain(error) == (f"some\udcfffile: {os.strerror(number)}", status)


def test_a_fault_of_the_program_is_not_explained_away():
    for error in (ValueError("x"), AssertionError(), RuntimeError("RESOURCE_EXHAUSTED: x")):
        assert explain(error) is None


@pytest.mark.slow
@pytest.mark.parametrize("at", [0, 7])
def test_a_step_that_lacks_memory_ends_the_run_with_its_line(
    at, tmp_path, monkeypatch, capsys, one_device
):
    """The first, which is compiled, or a later one; the last checkpoint is kept."""
    store = make_store(tmp_path / "store")
    real = Loop.run

    def run(self, state, key):
        step = self.train_step

        def train_step(state, *args):
            if int(state.step) == at:
                raise jax.errors.JaxRuntimeError(MEMORY[2])
            return step(state, *args)

        self.train_step = train_step
        return real(self, state, key)

    monkeypatch.setattr(Loop, "run", run)
    monkeypatch.setattr(jax, "transfer_guard_host_to_device", lambda _: contextlib.nullcontext())
    flags = [f"--config.{field}" for field in [*TINY, f"data.store={store}"]]
    workdir = str(tmp_path / "run")
    assert cli.main(["pretrain", "--config", "pretrain/tiny", *flags, "--workdir", workdir]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("electra-jax: out of memory on a device (Out of memory while trying to")
    assert "4.4 GiB" in line and "train.batch_size=16 and train.accumulate=1: raise" in line
    assert holds_checkpoint(workdir) is (at > 5)


@pytest.mark.parametrize(
    "error", [AssertionError(), UsageError("x cannot be read: AssertionError")]
)
@pytest.mark.parametrize(
    ("signal_error", "status"),
    [(KeyboardInterrupt(), 130), (Terminated(), 143), (Stopped(signal.SIGTERM, "stopped"), 75)],
)
def test_what_stumbles_over_a_signal_is_told_as_the_signal(error, signal_error, status):
    """As Flax does, when it is interrupted while it traces."""
    with pytest.raises(type(error)) as caught:
        try:
            raise signal_error
        except BaseException:
            raise error  # noqa: B904 - without a cause, as in a `finally`
    assert explain(caught.value).status == status
