"""A worker that makes steps when it is told to, so that contenders take turns.

It prints one JSON line when it is ready and one for each number of steps it reads.
"""

import json
import resource
import sys
import time
from collections.abc import Callable


def take_turns(step: Callable[[], None], ready: dict, memory: Callable[[], float]) -> None:
    """Serves standard input.

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
