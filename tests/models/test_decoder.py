"""Beam search finds what going through all texts finds."""

import functools
import itertools

import jax
import numpy as np
import pytest

from electra_jax.models.decoder import beam_search

VOCABULARY, LONGEST, START, END = 5, 6, 0, 4


def table(seed):
    """Log-probabilities of the next token given the last, [V, V]."""
    scores = np.random.default_rng(seed).normal(size=(VOCABULARY, VOCABULARY))
    return scores - np.log(np.exp(scores).sum(-1, keepdims=True))


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def search(log_probabilities, rows, beams, longest):
    def following(tokens, place):
        return log_probabilities[tokens[:, place]]

    return beam_search(following, rows, beams, longest, START, END)


def all_texts():
    """Those that end, and those as long as may be, without a triple that is there twice."""
    for size in range(1, LONGEST):
        for middle in itertools.product(range(END), repeat=size - 1):
            for last in range(VOCABULARY):
                text = (START, *middle, last)
                triples = list(zip(text, text[1:], text[2:], strict=False))
                if (last == END or size == LONGEST - 1) and len(triples) == len(set(triples)):
                    yield text


@pytest.mark.parametrize("seed", range(3))
def test_a_wide_beam_finds_the_best_of_all_texts(seed):
    chain = table(seed)
    means = {
        text: np.mean([chain[a, b] for a, b in itertools.pairwise(text)]) for text in all_texts()
    }
    best = max(means, key=means.get)
    tokens, mean = search(chain, 2, 400, LONGEST)
    for row in (0, 1):
        assert [token for token in tokens[row].tolist() if token >= 0] == list(best)
        assert float(mean[row]) == pytest.approx(means[best], rel=1e-5)


def test_a_text_that_could_go_round_for_ever_does_not():
    """0 1 2 0 1 2 … is likeliest by far, but a triple may be there once."""
    chain = np.full((VOCABULARY, VOCABULARY), -9.0)
    chain[0, 1] = chain[1, 2] = chain[2, 0] = -0.01
    [tokens], _ = search(chain, 1, 2, 8)
    text = [token for token in tokens.tolist() if token >= 0]
    assert text[:5] == [0, 1, 2, 0, 1] and text[5] != 2
