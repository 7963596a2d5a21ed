"""Held-out sentences as a checkpoint sees them."""

from types import SimpleNamespace

import numpy as np

from electra_jax.data.tokenizer import WordPieceTokenizer
from electra_jax.evaluate import _example

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat"]


def test_a_sampled_id_that_is_no_piece_is_shown_as_unknown():
    """The model's vocabulary may be larger than the tokenizer's."""
    tokens, documents = np.array([2, 5, 6, 3]), np.ones(4, np.int32)
    prepared = {"positions": np.array([[2]]), "weights": np.array([[1.0]])}
    out = {
        "corrupted": np.array([[2, 5, 100, 3]]), "replaced": np.array([[False, False, True, False]])
    }  # fmt: skip
    model = SimpleNamespace(tokenizer=WordPieceTokenizer(PIECES))
    example = _example(model, tokens, documents, prepared, out, np.full(4, 0.5), 0)
    assert [token.piece for token in example.tokens] == ["[CLS]", "the", "[UNK]", "[SEP]"]
    assert example.tokens[2].original == "cat" and example.tokens[2].masked
