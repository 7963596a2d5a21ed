"""Linear models beside a fine-tuned one: what words, or its encoder's frozen vectors, give."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from electra_jax.data.examples import Example
from electra_jax.inference.encoder import PretrainedEncoder, embed_examples
from electra_jax.tasks.task import Task

# Keys of results.json, and what stands behind them.
LINEAR = {
    "words": "a linear model of its word pieces",
    "frozen": "a linear model of the encoder's frozen vectors",
}
MOST_ROWS = 5000  # that they learn from


def linear_metrics(
    task: Task, encoder: PretrainedEncoder | None, train: Sequence[Any],
    validation: Sequence[Any], length: int,
) -> dict[str, dict[str, float]]:  # fmt: skip
    """Metrics of a task's linear model, by the name of what it reads.

    Args:
      task: whose state is fitted.
      encoder: as it was before it was fine-tuned; None for one that was never pretrained.
      train: records to learn from; of more than MOST_ROWS, evenly spaced ones.
      validation: records to answer.
      length: of rows, in tokens.

    Returns:
      Of `words`, tf-idf of word pieces, and of `frozen`, unit vectors; nothing for a task
      without a linear model.
    """
    if not task.linear:
        return {}
    chosen = np.linspace(0, len(train) - 1, min(len(train), MOST_ROWS)).astype(int)
    train = [train[index] for index in chosen]
    known, new = (task.examples(part, length, False, False) for part in (train, validation))
    tfidf = TfidfVectorizer(analyzer=_pieces, sublinear_tf=True)
    features: dict[str, Any] = {"words": (tfidf.fit_transform(known), tfidf.transform(new))}
    if encoder is not None:
        pooling = encoder.model.pooling or "mean"
        features["frozen"] = tuple(embed_examples(encoder, part, pooling) for part in (known, new))
    return {
        name: task.score(task.linear_answers(train, *pair), validation)
        for name, pair in features.items()
    }


def _pieces(example: Example) -> list[int]:
    return [int(piece) for tokens in example.tokens for piece in tokens]
