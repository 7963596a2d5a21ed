"""Held-out sentences as a checkpoint sees them."""

from types import SimpleNamespace

import numpy as np
import pytest

from electra_jax.config import FinetuneConfig, load_config, pretrain_config
from electra_jax.data.tokenizer import WordPieceTokenizer
from electra_jax.evaluation import _example, held_out_examples
from electra_jax.objectives.masking import Masked
from electra_jax.run_directory import save_config
from electra_jax.tasks import find_task

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat"]


@pytest.mark.parametrize("kind", ["fine-tuned", "without a checkpoint"])
def test_of_other_runs_a_page_has_no_examples(kind, tmp_path):
    fields = load_config("pretrain/tiny", [f"data.store={tmp_path}"]).to_dict()
    config = pretrain_config(fields)
    if kind == "fine-tuned":
        config = FinetuneConfig(find_task("classification").Config())
    save_config(config, tmp_path)
    assert held_out_examples(tmp_path) == []
    assert not (tmp_path / "checkpoints").exists()


def test_a_sampled_id_that_is_no_piece_is_shown_as_unknown():
    """The model's vocabulary may be larger than the tokenizer's."""
    tokens, documents = np.array([2, 5, 6, 3]), np.ones(4, np.int32)
    prepared = {"masked": Masked(np.array([[2]]), np.array([[1.0]]))}
    out = {
        "corrupted": np.array([[2, 5, 100, 3]]), "replaced": np.array([[False, False, True, False]])
    }  # fmt: skip
    model = SimpleNamespace(tokenizer=WordPieceTokenizer(PIECES))
    example = _example(model, tokens, documents, prepared, out, np.full(4, 0.5), 0)
    assert [token.piece for token in example.tokens] == ["[CLS]", "the", "[UNK]", "[SEP]"]
    assert example.tokens[2].original == "cat" and example.tokens[2].masked
