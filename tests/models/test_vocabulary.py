"""Logits read in tiles: loss, gradient, guess, and samples of the right distribution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from electra_jax.models import vocabulary
from electra_jax.models.vocabulary import VocabularyLogits, read

ROWS, POSITIONS, WIDTH = 2, 3, 8


def random_logits(vocab_size, dtype=jnp.float32):
    rng = np.random.default_rng(0)
    return VocabularyLogits(
        jnp.asarray(rng.normal(size=(ROWS, POSITIONS, WIDTH)), dtype),
        jnp.asarray(rng.normal(size=(vocab_size, WIDTH)), jnp.float32),
        jnp.asarray(rng.normal(size=vocab_size), jnp.float32),
    )


def constant(logits, count):
    """The same logits at every position."""
    return VocabularyLogits(
        jnp.zeros((1, count, 1)), jnp.zeros((len(logits), 1)), jnp.asarray(logits)
    )


def draw(logits, count=20_000, **options):
    """The distribution of samples from one row of logits.

    The numbers that choose the token are spread evenly over [0, 1).
    """
    spread = (jnp.arange(count)[None] + 0.5) / count
    uniform = jnp.stack([jax.random.uniform(jax.random.key(0), spread.shape), spread], -1)
    samples = jax.jit(lambda x: read(x, uniform, **options).sample)(constant(logits, count))[0]
    return np.bincount(samples, minlength=len(logits)) / count


@pytest.fixture(params=[128, 4096], ids=["tiles", "one-tile"])
def tile(request, monkeypatch):
    monkeypatch.setattr(vocabulary, "TILE", request.param)
    return request.param


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_loss_gradient_and_guess_are_those_of_whole_logits(tile, dtype):
    """A tile that is left out, counted twice, or put in the wrong place."""
    logits = random_logits(300, dtype)
    targets = jnp.array([[0, 299, 128], [7, 150, 256]])
    weights = jnp.array([[1.0, 2.0, 0.5], [0.0, 1.0, 3.0]])

    def tiled(logits):
        reading = read(logits)
        return ((reading.normalizer - logits.at(targets)) * weights).sum(), reading.guess

    def plain(logits):
        whole = logits.whole()
        chosen = jnp.take_along_axis(whole, targets[..., None], -1)[..., 0]
        losses = jax.nn.logsumexp(whole, axis=-1) - chosen
        return (losses * weights).sum(), jnp.argmax(whole, axis=-1)

    found, expected = (
        jax.jit(jax.value_and_grad(loss, has_aux=True))(logits) for loss in (tiled, plain)
    )
    tolerance = 1e-5 if dtype == jnp.float32 else 3e-2
    assert float(found[0][0]) == pytest.approx(float(expected[0][0]), rel=1e-5)
    np.testing.assert_array_equal(found[0][1], expected[0][1])
    for ours, theirs in zip(found[1], expected[1], strict=True):
        assert ours.dtype == theirs.dtype
        ours, theirs = np.asarray(ours, np.float32), np.asarray(theirs, np.float32)
        np.testing.assert_allclose(ours, theirs, atol=tolerance * np.abs(theirs).max())


@pytest.mark.parametrize("temperature", [1.0, 0.5])
@pytest.mark.parametrize("vocab", [7, pytest.param(300, marks=pytest.mark.slow)])
def test_samples_follow_the_softmax(vocab, temperature):
    """Within a tile: one block, and several with a partial one."""
    logits = np.random.default_rng(0).normal(0, 2, vocab).astype(np.float32)
    expected = np.exp(logits / temperature)
    expected /= expected.sum()
    found = draw(logits, temperature=temperature)
    # Each token has an interval of [0, 1) as long as its probability, up to rounding.
    np.testing.assert_allclose(found, expected, atol=1.5 / 20_000)


def test_samples_follow_the_softmax_over_tiles(monkeypatch):
    """Tiles that are chosen by anything but their share."""
    monkeypatch.setattr(vocabulary, "TILE", 128)
    logits = np.random.default_rng(0).normal(0, 1, 300).astype(np.float32)
    count = 50_000
    uniform = jax.random.uniform(jax.random.key(1), (1, count, 2))
    samples = jax.jit(lambda x: read(x, uniform).sample)(constant(logits, count))[0]
    found = np.bincount(samples, minlength=300)
    shares = np.exp(logits.astype(np.float64))
    expected = shares / shares.sum() * count
    assert stats.chisquare(found, expected).pvalue > 1e-3


def test_impossible_tokens_are_never_drawn_not_even_at_the_ends(tile):
    logits = np.full(300, -np.inf, np.float32)
    logits[[5, 200]] = 0.0
    edges = jnp.array([0.0, 1.0 - 2.0**-24, 0.5, 0.4999999])
    uniform = jnp.stack([x.reshape(1, -1) for x in jnp.meshgrid(edges, edges)], -1)
    samples = jax.jit(lambda x: read(x, uniform).sample)(constant(logits, 16))
    assert set(np.asarray(samples)[0].tolist()) == {5, 200}


def test_the_original_can_be_forbidden(tile):
    logits = np.zeros(300, np.float32)
    logits[7] = 20.0
    found = draw(logits, count=1000, forbidden_BN=jnp.full((1, 1000), 7))
    assert found[7] == 0 and found.max() < 0.1


def test_no_gradient_flows_through_a_sample():
    """A generator that learns from what the discriminator makes of its samples."""
    uniform = jnp.full((ROWS, POSITIONS, 2), 0.3)

    def energy(logits):
        return read(logits, uniform, 2.0).sample.astype(jnp.float32).sum()

    gradient = jax.grad(energy)(random_logits(300))
    assert all(not np.any(leaf) for leaf in gradient)
