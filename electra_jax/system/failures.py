"""What ends a command, as one line and an exit status: memory, devices, disks, signals.

The texts of XLA's errors that are told apart here are those of jaxlib 0.10 to 0.12, of CUDA and of
libtpu. JAX is not imported: its errors are known by name.
"""

import contextlib
import errno
import os
import re
import traceback
from collections.abc import Iterator
from typing import NamedTuple

from electra_jax.errors import PREEMPTED, ElectraError, Stopped
from electra_jax.system.ending import INTERRUPTED, TERMINATED, Terminated

FAILED, WRONG = 1, 2  # statuses: launchers try again, or it would not help
LONGEST = 300  # characters of a library's message
# What may be otherwise the next time.
PASSING = {
    errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN,
    errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOTCONN, errno.EHOSTDOWN, errno.ECONNRESET,
}  # fmt: skip
LESS_MEMORY = (
    "lower the batch size or the length of rows, or cut the batch into more microbatches with "
    "train.accumulate (`electra-jax plan` tells what a config takes)"
)
DEVICE_ERRORS = ("JaxRuntimeError", "XlaRuntimeError")  # of JAX 0.10 and later, and of jaxlib
NO_BACKEND = ("Unable to initialize backend", "Unknown backend", "no devices found", "No visible")


class OutOfMemory(ElectraError):
    """The memory of a device, or of the host, does not suffice."""

    status = WRONG


class Failure(NamedTuple):
    """How a command failed: a line for the terminal, and its exit status."""

    line: str
    status: int


def explain(error: BaseException) -> Failure | None:
    """How an error that ended a command is told; None for a fault of this program."""
    error = _signalled(error) or error
    if isinstance(error, ElectraError):
        return Failure(str(error), error.status)
    if isinstance(error, Stopped):
        return Failure(str(error), PREEMPTED if error.signal.name == "SIGTERM" else INTERRUPTED)
    if isinstance(error, Terminated):
        return Failure("terminated", TERMINATED)
    if isinstance(error, KeyboardInterrupt):
        return Failure("interrupted", INTERRUPTED)
    if memory := out_of_memory(error):
        return Failure(f"{memory}: {LESS_MEMORY}", WRONG)
    if device := _device_error(error):
        return device
    if isinstance(error, OSError):
        return Failure(_file_error(error), FAILED if error.errno in PASSING else WRONG)
    return None


def _signalled(error: BaseException) -> BaseException | None:
    """What a signal has raised, if the error came of that: libraries may stumble on the way out."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        if isinstance(cause, Stopped | KeyboardInterrupt):
            return cause
        seen.add(id(cause))
        cause = cause.__cause__ or cause.__context__
    return None


def out_of_memory(error: BaseException) -> str:
    """Which memory an error tells the lack of, and how much was asked for; or ""."""
    text = str(error)
    if isinstance(error, MemoryError):
        return f"out of memory on this host{_in_brackets(_first_line(text))}"
    if type(error).__name__ not in DEVICE_ERRORS or not (
        "RESOURCE_EXHAUSTED" in text or "CUDA_ERROR_OUT_OF_MEMORY" in text
    ):
        return ""
    reason = _first_line(text.replace("RESOURCE_EXHAUSTED:", ""))
    return f"out of memory on a device{_in_brackets(_readable(reason))}"


@contextlib.contextmanager
def telling_memory_of(batch_size: int, accumulate: int) -> Iterator[None]:
    """Tells a run that lacks memory what its batches are, and what to change.

    Raises:
      OutOfMemory: the block lacks memory.
    """
    try:
        yield
    except Exception as error:
        if not (memory := out_of_memory(error)):
            raise
        raise OutOfMemory(
            f"{memory} with train.batch_size={batch_size} and train.accumulate={accumulate}: raise "
            "train.accumulate, or lower train.batch_size (`electra-jax plan` tells what a config "
            "takes)"
        ) from error


def _device_error(error: BaseException) -> Failure | None:
    """How a device failed, its driver, or the network between devices; None if none did."""
    text = str(error)
    asked = os.environ.get("JAX_PLATFORMS", "")
    absent = isinstance(error, RuntimeError) and any(part in text for part in NO_BACKEND)
    if absent or (isinstance(error, AssertionError) and _raised_in(error, "xla_bridge.py")):
        where = f"JAX_PLATFORMS={asked} asks for" if asked else "JAX looks for"
        line = (
            f"there is no such device as {where}{_in_brackets(_first_line(text))}: "
            "install JAX for it (pip install 'jax[cuda13]', 'jax[tpu]'), see that its driver runs "
            "(nvidia-smi), or set JAX_PLATFORMS=cpu"
        )
        return Failure(line, WRONG)
    if type(error).__name__ not in DEVICE_ERRORS:
        return None
    reason = _first_line(text)
    if re.search(r"CUDA|CUDNN|cuDNN|cuBLAS|DNN library|ptxas|hipError", text):
        line = (
            f"the GPU failed ({reason}): see whether another process uses it and its driver fits "
            "(nvidia-smi), then rerun the command"
        )
        return Failure(line, WRONG)
    # The network, or another process of the run that has gone: it may be there the next time.
    return Failure(f"a device or the network failed ({reason}): rerun the command", FAILED)


def _file_error(error: OSError) -> str:
    reason = error.strerror or str(error) or type(error).__name__
    names = [
        os.fsdecode(n) for n in (error.filename, error.filename2) if isinstance(n, str | bytes)
    ]
    return f"{' -> '.join(names)}: {reason}" if names else reason


def _raised_in(error: BaseException, file: str) -> bool:
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and os.path.basename(frames[-1].filename) == file


def _first_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[0][:LONGEST].rstrip(" .:")


def _in_brackets(text: str) -> str:
    return f" ({text})" if text else ""


def _readable(text: str) -> str:
    """Numbers of bytes as people read them."""

    def shorten(match: re.Match) -> str:
        count = int(match[1])
        return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.1f} MiB"

    return re.sub(r"\b(\d{7,}) ?bytes", shorten, text).strip()
