"""Contenders take turns: processes that are ready and wait while another one steps.

A contender's script calls `take_turns`, `race` starts scripts and tells them when it is their turn.
"""

import contextlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple


def take_turns(step: Callable[[], None], ready: dict, memory: Callable[[], float]) -> None:
    """Serves standard input: prints one JSON line when it is ready and one for each turn.

    Args:
      step: makes one step and returns when it is through.
      ready: what to say at first.
      memory: peak bytes so far.
    """
    print(json.dumps(ready), flush=True)
    for line in sys.stdin:
        seconds, cpu_seconds = [], []
        for _ in range(int(line)):
            start, cpu_start = time.perf_counter(), time.process_time()
            step()
            seconds.append(time.perf_counter() - start)
            cpu_seconds.append(time.process_time() - cpu_start)
        turn = {"seconds": seconds, "cpu_seconds": cpu_seconds, "gib": memory() / 2**30}
        print(json.dumps(turn), flush=True)


def host_memory() -> float:
    """Peak bytes of this process."""
    return 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


class Contender(NamedTuple):
    """A script that takes turns, and what it reads first."""

    name: str
    command: list[str]
    content: Any = None


def race(contenders: Iterable[Contender], rounds: int, steps: int) -> dict[str, dict]:
    """Lets contenders step in turns, in another order in each round.

    Returns:
      Of each by name what it said when it was ready, `ready_seconds` from the start of its process
      until then, and its `turns`; neither, if it failed.
    """
    results: dict[str, dict] = {}
    running: dict[str, subprocess.Popen] = {}
    with contextlib.ExitStack() as stack:
        for contender in contenders:
            # One after another: nobody compiles while another is measured.
            began = time.monotonic()
            process = stack.enter_context(_start(contender))
            ready = process.stdout.readline()
            results[contender.name] = {}
            if ready:
                seconds = time.monotonic() - began
                results[contender.name] = {
                    **json.loads(ready),
                    "ready_seconds": seconds,
                    "turns": [],
                }
                running[contender.name] = process
                _turn(process, 1)  # warms up
        names = list(running)
        for number in range(rounds):
            first = number % max(len(names), 1)
            for name in names[first:] + names[:first]:
                results[name]["turns"].append(_turn(running[name], steps))
    return results


@contextlib.contextmanager
def _start(contender: Contender) -> Iterator[subprocess.Popen]:
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "TF_CPP_MIN_LOG_LEVEL": "3"}
    process = subprocess.Popen(
        [sys.executable, *contender.command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True, env=environment,
    )  # fmt: skip
    try:
        if contender.content is not None:
            print(json.dumps(contender.content), file=process.stdin, flush=True)
        yield process
    finally:
        process.kill()
        process.wait()


def _turn(process: subprocess.Popen, steps: int) -> dict:
    print(steps, file=process.stdin, flush=True)
    return json.loads(process.stdout.readline())
