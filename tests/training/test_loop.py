"""The clock of several processes, and what the loop must not save."""

import itertools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from electra_jax.training import loop
from electra_jax.training.loop import Clock, Loop, all_finite
from electra_jax.training.state import TrainState


@pytest.mark.parametrize("pace", [0.001, 0.5, 20.0])
def test_processes_read_the_clock_together_and_in_time(pace, monkeypatch):
    """At the same steps in each, however their own clocks go, and often enough to end on time."""
    budget, times, reads = 1000.0, [0.0, 0.0], ([], [])
    said = {}
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    for process in range(2):
        step = 0

        def broadcast_from_main(value, process=process):
            reads[process].append(step)  # noqa: B023
            # Process 1 hears what process 0 said at that step, as a float32.
            return said.setdefault(step, float(np.float32(value)))  # noqa: B023

        monkeypatch.setattr(loop, "from_main", broadcast_from_main)
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


@pytest.mark.parametrize("start", [0, 2])
def test_schedule_and_batches_follow_the_step(start):
    """Of a run of 4 steps, from its start or resumed."""
    seen = []
    following = jax.jit(lambda state: state.replace(step=state.step + 1))

    def train_step(state, batch, key, progress):
        seen.append((batch, float(progress)))
        return following(state)

    run = Loop(
        steps=4, log_every=100, eval_every=10, save_every=10, train_step=train_step,
        batches=itertools.count, evaluate=None, summarise=lambda sums: {"loss": 0.0},
        tokens_per_step=1, flops_per_token=1, peak_flops=None, checkpoints=mock.MagicMock(),
        writer=None, record={},
    )  # fmt: skip
    run.run(TrainState(jnp.int32(start), {}, {}, {"loss": jnp.zeros(())}), jax.random.key(0))
    assert seen == [(step, step / 4) for step in range(start, 4)]
