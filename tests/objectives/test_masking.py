"""Masked positions: how many, which, and what stands there."""

import jax
import numpy as np
import pytest

from electra_jax.objectives import masking

SPECIAL = masking.SpecialTokens(pad=0, cls=2, sep=3, mask=4)


def rows(count=64, length=128, real=100):
    tokens = np.random.default_rng(0).integers(5, 1000, (count, length))
    tokens[:, 0], tokens[:, real - 1] = SPECIAL.cls, SPECIAL.sep
    documents = np.broadcast_to(np.arange(length) < real, tokens.shape).astype(np.int32)
    return (tokens * documents).astype(np.int32), documents


def choose_positions(tokens, documents):
    choose = jax.jit(masking.choose_positions, static_argnums=(3, 4))
    return jax.device_get(choose(jax.random.key(0), tokens, documents, 0.15, SPECIAL))


@pytest.mark.parametrize(
    ("rate", "length", "slots"), [(0.15, 128, 19), (0.15, 512, 79), (0.25, 512, 130), (0.15, 4, 1)]
)
def test_slots_are_those_of_the_official_code(rate, length, slots):
    assert masking.max_masked(rate, length) == slots


def test_positions_are_distinct_candidates_in_the_right_number():
    tokens, documents = rows()
    masked = choose_positions(tokens, documents)
    assert (masked.weights_BN.sum(1) == 15).all()  # of 100 real tokens, specials counted
    for row, chosen, weights in zip(tokens, *masked, strict=True):
        assert len(set(chosen.tolist())) == len(chosen)
        assert not set(row[chosen[weights > 0]].tolist()) & set(SPECIAL)
    where = np.bincount(masked.positions_BN[masked.weights_BN > 0], minlength=100)
    assert where[1:99].min() > 0 and where[1:99].max() < 30  # about 10 each: uniform


def test_rows_with_few_or_no_candidates():
    tokens = np.array([[2, 9, 3, 0], [2, 3, 0, 0], [0, 0, 0, 0]])
    masked = choose_positions(tokens, (tokens > 0).astype(np.int32))
    assert masked.weights_BN.tolist() == [[1.0], [0.0], [0.0]]
    assert masked.positions_BN[0].tolist() == [1]
    again = jax.jit(masking.put)(tokens, masked, np.full((3, 1), 77))
    assert again.tolist() == [[2, 77, 3, 0], [2, 3, 0, 0], [0, 0, 0, 0]]


def test_most_are_masked_and_the_rest_keep_their_token():
    tokens, documents = rows(count=512)
    masked = choose_positions(tokens, documents)
    mask_tokens = jax.jit(masking.mask_tokens, static_argnums=3)
    row = np.asarray(mask_tokens(jax.random.key(1), tokens, masked, SPECIAL))
    take = jax.jit(masking.take)
    chosen = np.asarray(take(row, masked))[masked.weights_BN > 0]
    share = float((chosen == SPECIAL.mask).mean())
    assert abs(share - 0.85) < 0.015
    kept = np.asarray(take(tokens, masked))[masked.weights_BN > 0]
    assert bool(((chosen == SPECIAL.mask) | (chosen == kept)).all())
    assert int((row != tokens).sum()) == int((chosen == SPECIAL.mask).sum())


def test_a_rate_that_changes_fills_the_slots_of_the_largest():
    """Without another compilation: the shapes are those of the largest rate."""
    tokens, documents = rows()

    @jax.jit
    def choose(rate, tokens, documents):
        key = jax.random.key(0)
        return masking.choose_positions(key, tokens, documents, rate, SPECIAL, slots=38)

    for rate, wanted in ((0.3, 30), (0.15, 15), (0.05, 5)):
        masked = choose(rate, tokens, documents)
        assert masked.positions_BN.shape == (64, 38)
        assert (np.asarray(masked.weights_BN).sum(1) == wanted).all()
    fixed = choose_positions(tokens, documents)
    moving = choose(0.15, tokens, documents)
    np.testing.assert_array_equal(moving.positions_BN[:, :15], fixed.positions_BN[:, :15])
