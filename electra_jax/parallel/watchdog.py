"""Names the process that stalls, and ends the run where one has failed.

One process that waits for its data, or is gone, makes all others wait for it inside a
collective, where nothing can be seen. So each notes what it is at, and a thread beside it
tells the others through JAX's coordination service.
"""

import contextlib
import faulthandler
import json
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax

from electra_jax.parallel.jax_internals import set_shared_value, shared_values

log = logging.getLogger(__name__)

# In their order within a step's number, which counts the steps done: who is at an earlier one
# is waited for.
ACTIVITIES = ("evaluating", "saving", "reading a batch", "stepping")
POLL_SECONDS = 2.0
PULSES, FAILURES = "electra_jax/pulse/", "electra_jax/failure/"


class Watchdog:
    """A thread beside a run. Use as a context manager.

    Args:
      stall_seconds: without news from this process, after which the stalled process is named.
    """

    def __init__(self, stall_seconds: float):
        self._stall_seconds = stall_seconds
        self._at: tuple[int, str] = (0, "reading a batch")
        self._since = time.monotonic()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> "Watchdog":
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._done.set()
        self._thread.join(POLL_SECONDS)

    def note(self, step: int, activity: str) -> None:
        """Notes the step and the activity, one of ACTIVITIES, of this process."""
        self._at = (step, activity)
        self._since = time.monotonic()

    def _watch(self) -> None:
        told = None
        while not self._done.wait(min(POLL_SECONDS, self._stall_seconds / 4)):
            try:
                publish(PULSES, {"at": self._at, "time": time.time()})
                quiet = time.monotonic() - self._since
                if quiet > self._stall_seconds and told != self._at:
                    told = self._at
                    log.warning("no progress for %.0f s: %s", quiet, self._who())
                    faulthandler.dump_traceback(sys.stderr)
            except jax.errors.JaxRuntimeError as error:  # of the coordination service
                log.debug("the watchdog cannot reach the others: %s", error)

    def _who(self) -> str:
        """The process that the others wait for, as far as can be seen."""
        step, activity = self._at
        mine = f"step {step}, {activity}"
        if jax.process_count() == 1:
            return mine
        pulses = read(PULSES)
        silent = [
            f"process {index} ({pulses[index]['host']}) has not been heard of for "
            f"{time.time() - pulses[index]['time']:.0f} s"
            if index in pulses
            else f"process {index} has never been heard of"
            for index in range(jax.process_count())
            if index not in pulses or time.time() - pulses[index]["time"] > self._stall_seconds
        ]
        if silent:
            return "; ".join(silent)
        places = {i: (p["at"][0], ACTIVITIES.index(p["at"][1])) for i, p in pulses.items()}
        first = min(places.values())
        behind = [i for i, place in places.items() if place == first]
        if len(behind) == len(places):
            return f"all processes are at {mine}: the devices, or the network between them"
        names = ", ".join(f"process {i} ({pulses[i]['host']})" for i in behind)
        return f"{names} is at step {first[0]}, {ACTIVITIES[first[1]]}; this one at {mine}"


@contextlib.contextmanager
def ending_together() -> Iterator[None]:
    """Ends this process, with the same status, as soon as another has reported its failure."""
    if jax.process_count() == 1:
        yield
        return
    done = threading.Event()

    def watch() -> None:
        while not done.wait(POLL_SECONDS):
            try:
                failures = read(FAILURES)
            except jax.errors.JaxRuntimeError as error:
                log.debug("failures of others cannot be read: %s", error)
                continue
            for index, failure in failures.items():
                if index != jax.process_index():
                    where = f"process {index} ({failure['host']})"
                    print(f"electra-jax: {where} failed: {failure['reason']}", file=sys.stderr)
                    outlive_readers()
                    # The main thread waits for that process inside a collective.
                    os._exit(failure["status"])

    thread = threading.Thread(target=watch, name="failures", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(POLL_SECONDS)


def report_failure(reason: str, status: int) -> None:
    """Tells the other processes, which would wait for this one, that it is about to end."""
    publish(FAILURES, {"reason": reason, "status": status})
    outlive_readers()


def outlive_readers() -> None:
    """Process 0 keeps what is published, and so stays until all have read it."""
    if jax.process_index() == 0:
        time.sleep(2 * POLL_SECONDS)


def publish(folder: str, values: dict[str, Any]) -> None:
    """Makes JSON values of this process known to the others; nothing where it is alone."""
    text = json.dumps({**values, "host": socket.gethostname()})
    set_shared_value(f"{folder}{jax.process_index()}", text)


def read(folder: str) -> dict[int, dict[str, Any]]:
    """The values that each process has published, and its `host`."""
    entries = shared_values(folder).items()
    return {int(key.rpartition("/")[2]): json.loads(value) for key, value in entries}
