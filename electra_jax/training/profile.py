"""Profiler traces of some steps of a run."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from electra_jax.errors import UsageError
from electra_jax.parallel.runtime import is_main

log = logging.getLogger(__name__)

FOLDER = "profile"


def parse_steps(text: str) -> range:
    """The steps that `train.profile` names: "100:110" are the ten after step 100.

    Raises:
      UsageError: it is neither empty nor START:STOP with START below STOP.
    """
    if not text:
        return range(0)
    start, _, stop = (part.strip() for part in text.partition(":"))
    if not (start.isdecimal() and stop.isdecimal() and int(start) < int(stop)):
        raise UsageError(
            f"train.profile={text!r} is not START:STOP; write 100:110 for the ten steps after "
            "step 100"
        )
    return range(int(start), int(stop))


class Profiler:
    """Traces steps of process 0 into its run directory. Use as a context manager.

    Only process 0 traces: all execute the same program, and processes on one host would
    overwrite each other's files, which are named by host.

    Args:
      workdir: run directory.
      steps: numbers of the steps, where a run's first step is 0.
    """

    def __init__(self, workdir: str | Path = "", steps: range = range(0)):
        self._folder = Path(workdir) / FOLDER
        self._steps = steps if is_main() else range(0)
        self._tracing = False

    @contextlib.contextmanager
    def step(self, step: int) -> Iterator[None]:
        """Encloses a step, which a trace shows under its number."""
        if step in self._steps and not self._tracing:
            with self._warning():
                jax.profiler.start_trace(self._folder)
                self._tracing = True
        with jax.profiler.StepTraceAnnotation("train", step_num=step):
            yield

    def end(self, step: int, state: Any) -> None:
        """Ends the trace if `step` steps are done and no more are to be traced.

        It waits for the devices only then, as what they still have to do is to be traced.
        """
        if self._tracing and step >= self._steps.stop:
            jax.block_until_ready(state)
            self._stop()

    def _stop(self) -> None:
        self._tracing = False
        with self._warning():
            jax.profiler.stop_trace()
            log.info("a profiler trace is in %s", self._folder)

    @contextlib.contextmanager
    def _warning(self) -> Iterator[None]:
        """Failures of the profiler, which must not end a run."""
        try:
            yield
        except (OSError, RuntimeError) as error:  # JAX's own errors are RuntimeErrors
            self._steps = range(0)
            log.warning("no trace can be written to %s: %s", self._folder, error)

    def __enter__(self) -> "Profiler":
        return self

    def __exit__(self, *exc: Any) -> None:
        if self._tracing:  # the run ends within its steps
            self._stop()
