"""The average of the parameters, step by step."""

import jax.numpy as jnp
import optax
import pytest

from electra_jax.training.state import TrainState
from electra_jax.training.step import averaged


def test_an_average_follows_the_parameters_and_is_what_is_used():
    state = TrainState.create({"w": jnp.zeros(2)}, optax.sgd(1.0), {}, averages=True)
    expected = 0.0
    for step in range(20):
        params = {"w": jnp.full(2, float(step))}
        state = state.replace(
            params=params, average=averaged(state, params, 0.5), step=state.step + 1
        )
        keep = min(0.5, (1 + step) / (10 + step))
        expected = keep * expected + (1 - keep) * step
        assert float(state.used_params["w"][0]) == pytest.approx(expected, rel=1e-5)
    assert state.replace(average={}).used_params is state.params
