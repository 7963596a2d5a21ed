"""Sampling replacements: the right distribution, nothing impossible, no gradient."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from electra_jax.objectives import masking, replacement


def draw(logits, count=20_000, **options):
    """The distribution of samples from one row of logits, at numbers spread evenly over [0, 1)."""
    uniform = (jnp.arange(count)[None] + 0.5) / count
    logits = jnp.broadcast_to(jnp.asarray(logits), (1, count, len(logits)))
    samples = np.asarray(jax.jit(partial(replacement.sample, **options))(logits, uniform))[0]
    return np.bincount(samples, minlength=logits.shape[-1]) / count


@pytest.mark.parametrize("temperature", [1.0, 0.5])
@pytest.mark.parametrize(
    "vocab", [7, pytest.param(300, marks=pytest.mark.slow)]
)  # one block, and several with a partial one
def test_samples_follow_the_softmax(vocab, temperature):
    logits = np.random.default_rng(0).normal(0, 2, vocab).astype(np.float32)
    expected = np.exp(logits / temperature)
    expected /= expected.sum()
    found = draw(logits, temperature=temperature)
    # Each token has an interval of [0, 1) as long as its probability, up to rounding.
    np.testing.assert_allclose(found, expected, atol=1.5 / 20_000)


def test_impossible_tokens_are_never_drawn_not_even_at_the_ends():
    logits = np.full(300, -np.inf, np.float32)
    logits[[5, 200]] = 0.0
    edges = jnp.array([[0.0, 1.0 - 2.0**-24, 0.5, 0.4999999]])
    samples = jax.jit(replacement.sample)(jnp.broadcast_to(logits, (1, 4, 300)), edges)
    assert set(np.asarray(samples)[0].tolist()) == {5, 200}


def test_the_original_can_be_forbidden():
    logits = np.zeros(50, np.float32)
    logits[7] = 20.0
    found = draw(logits, count=1000, forbidden_BN=jnp.full((1, 1000), 7))
    assert found[7] == 0 and found.max() < 0.1


def test_a_replacement_equal_to_the_original_counts_as_original():
    tokens = jnp.array([[2, 10, 11, 12, 3]])
    masked = masking.Masked(jnp.array([[1, 3, 2]]), jnp.array([[1.0, 1.0, 0.0]]))
    row, replaced = replacement.replace(tokens, masked, jnp.array([[10, 99, 98]]))
    assert row.tolist() == [[2, 10, 11, 99, 3]]
    assert replaced.tolist() == [[False, False, False, True, False]]
