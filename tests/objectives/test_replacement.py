"""Replacing tokens by samples."""

import jax.numpy as jnp

from electra_jax.objectives import masking, replacement


def test_a_replacement_equal_to_the_original_counts_as_original():
    tokens = jnp.array([[2, 10, 11, 12, 3]])
    masked = masking.Masked(jnp.array([[1, 3, 2]]), jnp.array([[1.0, 1.0, 0.0]]))
    row, replaced = replacement.replace(tokens, masked, jnp.array([[10, 99, 98]]))
    assert row.tolist() == [[2, 10, 11, 99, 3]]
    assert replaced.tolist() == [[False, False, False, True, False]]
