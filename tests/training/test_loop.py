"""The clock of several processes, and what the loop must not save."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from electra_jax.training import loop
from electra_jax.training.loop import Clock, all_finite


@pytest.mark.parametrize("pace", [0.001, 0.5, 20.0])
def test_processes_read_the_clock_together_and_in_time(pace, monkeypatch):
    """At the same steps in each, however their own clocks go, and often enough to end on time."""
    budget, times, reads = 1000.0, [0.0, 0.0], ([], [])
    said = {}
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    for process in range(2):
        step = 0

        def from_main(value, process=process):
            reads[process].append(step)  # noqa: B023
            # Process 1 hears what process 0 said at that step, as a float32.
            return said.setdefault(step, float(np.float32(value)))  # noqa: B023

        monkeypatch.setattr(loop, "from_main", from_main)
        clock = Clock(now=lambda process=process: times[process])
        clock.agree(0, budget)
        while clock.agreed() < budget:
            step += 1
            # The first step compiles; process 1 counts otherwise.
            times[process] += (60 if step == 1 else pace) * (1 + 0.3 * process)
            clock.agree(step, budget)
            assert step < 1.2 * budget / pace + 10
    assert reads[0] == reads[1]
    assert times[0] < budget * (1 + 2 * loop.PRECISION) + 2 * pace
    assert len(reads[0]) < 3 / loop.PRECISION


def test_a_number_that_is_none_is_found():
    tree = {"a": jnp.ones((2, 3)), "b": {"c": jnp.zeros(4)}}
    assert all_finite(tree)
    assert not all_finite({**tree, "b": {"c": jnp.array([1.0, jnp.nan])}})
    assert not all_finite({**tree, "b": {"c": jnp.array([1.0, jnp.inf])}})
