"""Checkpoints: what is saved comes back whole, and the best is kept beside the last."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from electra_jax.training.checkpoint import Checkpoints
from electra_jax.training.state import TrainState

STATE = TrainState(
    step=jnp.int32(3),
    params={"kernel": jnp.arange(4.0)},
    opt_state={"mu": jnp.arange(4.0) / 8},
    metric_sums={"loss": jnp.float32(7.0)},
    norm_sums={"steps": jnp.float32(2.0), "gradient_norm": {"a": jnp.float32(0.5)}},
)


def test_a_state_comes_back_whole(tmp_path):
    """With the sums since the last line of the log, and the time spent."""
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, STATE, {"elapsed": 5.5})
    with Checkpoints(tmp_path) as checkpoints:
        restored = checkpoints.restore_latest(STATE)
    jax.tree.map(np.testing.assert_array_equal, restored.state, STATE)
    assert (restored.step, restored.record) == (3, {"elapsed": 5.5})


def test_a_state_without_norms_resumes_with_sums_of_no_steps(tmp_path):
    """As version 0.1 saved it."""
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, STATE.replace(norm_sums={}), {"elapsed": 5.5})
    with Checkpoints(tmp_path) as checkpoints:
        restored = checkpoints.restore_latest(STATE)
    zeros = jax.tree.map(jnp.zeros_like, STATE.norm_sums)
    expected = STATE.replace(norm_sums=zeros)
    jax.tree.map(np.testing.assert_array_equal, restored.state, expected)


@pytest.mark.parametrize("part", ["metric_sums", "norm_sums"])
def test_a_state_with_other_sums_resumes_with_sums_of_no_steps(tmp_path, part):
    """As an earlier version saved it: the rest comes back."""
    fewer = {name: value for name, value in getattr(STATE, part).items() if name == "steps"}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, STATE.replace(**{part: {**fewer, "other": jnp.ones(2)}}), {})
    with Checkpoints(tmp_path) as checkpoints:
        restored = checkpoints.restore_latest(STATE)
    zeros = jax.tree.map(jnp.zeros_like, getattr(STATE, part))
    jax.tree.map(np.testing.assert_array_equal, restored.state, STATE.replace(**{part: zeros}))


@pytest.mark.parametrize(("maximise", "best"), [(False, 1), (True, 2)])
def test_the_best_is_kept_beside_the_last(tmp_path, maximise, best):
    with Checkpoints(tmp_path, maximise=maximise) as checkpoints:
        for step, value in ((1, 0.2), (2, 0.9), (3, 0.5)):
            checkpoints.save(step, STATE, {}, {"loss": value})
    with Checkpoints(tmp_path, maximise=maximise, read_only=True) as checkpoints:
        assert (checkpoints.choose("best"), checkpoints.choose("last")) == (best, 3)
