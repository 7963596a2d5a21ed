"""What stands for a row before a task's head."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from electra_jax.models.encoder import ModelConfig
from electra_jax.models.heads import RowHead


def scores(architecture, hidden_NLD, pooling=""):
    model = ModelConfig(architecture, hidden=8, heads=2, embedding=8)
    head = RowHead(model, 3, pooling)
    real_NL = jnp.arange(hidden_NLD.shape[1])[None] < 4

    @jax.jit
    def run(hidden_NLD):
        params = head.init(jax.random.key(0), hidden_NLD, real_NL, {})
        return head.apply(params, hidden_NLD, real_NL, {})

    return np.asarray(run(hidden_NLD))


@pytest.mark.parametrize(
    "architecture, pooling, reads",
    [
        ("published", "", "cls"),
        ("modern", "", "mean"),
        ("published", "mean", "mean"),
        ("modern", "cls", "cls"),
    ],
)
def test_a_row_is_its_first_token_or_the_mean_of_the_real_ones(architecture, pooling, reads):
    hidden_NLD = jax.random.normal(jax.random.key(1), (1, 6, 8))
    whole = scores(architecture, hidden_NLD, pooling)
    for token, counts in ((0, True), (3, reads == "mean"), (4, False)):
        changed = scores(architecture, hidden_NLD.at[0, token].add(1.0), pooling)
        assert np.allclose(changed, whole) != counts, token
