"""Examples in batches: each once an epoch, the same for any number of hosts."""

import itertools

import numpy as np
import pytest

from electra_jax.data.examples import FIXED_LENGTHS, Batches, Example, join_segments
from electra_jax.data.tokenizer import SPECIAL_TOKENS, WordPieceTokenizer


def examples(count=37):
    rng = np.random.default_rng(0)
    made = []
    for number in range(count):
        tokens = np.full(rng.integers(3, 60), 10 + number, np.int32)
        targets = {"label": np.array(number, np.int32), "tags": np.arange(len(tokens))}
        made.append(Example([tokens], [0 * tokens], targets, number))
    return made


def take(batches, count, *args):
    return list(itertools.islice(batches.training(*args), count))


def test_every_example_is_once_in_an_epoch():
    batches = Batches(examples(), 8, pad_id=0)
    assert batches.steps_per_epoch == 5
    for start in (0, 5):
        labels = [
            label
            for batch in take(batches, 5, start)
            for label, weight in zip(batch["label"], batch["weight"], strict=True)
            if weight
        ]
        assert sorted(labels) == list(range(37))
    seen = np.concatenate([numbers for _, numbers in batches.once()])
    assert sorted(seen) == list(range(37))


def test_epochs_and_seeds_have_orders_of_their_own():
    def order(start, seed):
        batches = Batches(examples(), 8, pad_id=0, seed=seed)
        return [label for batch in take(batches, 5, start) for label in batch["label"].tolist()]

    orders = [order(0, 0), order(5, 0), order(10, 0), order(0, 1)]
    assert all(one != other for one, other in itertools.combinations(orders, 2))


def test_a_step_can_be_sought():
    batches = Batches(examples(), 8, pad_id=0, seed=3)
    straight = take(batches, 12, 0)
    for start in (1, 4, 5, 11):
        [sought] = take(batches, 1, start)
        for name in sought:
            np.testing.assert_array_equal(sought[name], straight[start][name])


def test_hosts_together_have_the_batch_of_one():
    batches = Batches(examples(), 8, pad_id=0)
    shares = np.split(np.arange(8), 4)
    for whole, *parts in zip(
        take(batches, 6, 0), *(take(batches, 6, 0, rows) for rows in shares), strict=True
    ):
        for name in whole:
            process_group = np.concatenate([part[name] for part in parts])
            np.testing.assert_array_equal(process_group, whole[name])


def test_rows_of_like_length_share_a_batch():
    batches = Batches(examples(500), 8, pad_id=0)
    lengths = {batch["tokens"].shape[-1] for batch in take(batches, batches.steps_per_epoch, 0)}
    assert 2 <= len(lengths) <= 3
    mean = np.mean([len(example.tokens[0]) for example in examples(500)])
    assert batches.tokens_per_step < 8 * 1.5 * mean < 8 * 60


def test_vectors_are_padded_with_minus_one():
    batch, numbers = next(Batches(examples(5), 8, pad_id=0).once())
    row = int(np.argmin(batch["documents"][: len(numbers), 0].sum(-1)))
    real = batch["documents"][row, 0] > 0
    assert (batch["tags"][row][~real] == -1).all() and (batch["tags"][row][real] >= 0).all()
    assert batch["weight"].sum() == len(numbers) == 5


TOKENIZER = WordPieceTokenizer([*SPECIAL_TOKENS, *"abcdefgh"])


@pytest.mark.parametrize(("first", "second"), [(3, 20), (20, 3), (20, 20), (2, 2)])
def test_pairs_are_cut_from_the_longer(first, second):
    tokens, types = join_segments(TOKENIZER, [5] * first, [6] * second, 16)
    assert len(tokens) == len(types) <= 16
    kept = [(tokens == id).sum() for id in (5, 6)]
    if first + second <= 13:
        assert kept == [first, second]
    else:
        assert sum(kept) == 13
        assert all(n == size or n >= 6 for n, size in zip(kept, (first, second), strict=True))
    assert types[list(tokens).index(TOKENIZER.sep_id) + 1] == 1 and types[0] == 0


def test_fixed_lengths_are_those_of_any_examples_and_cost_little():
    """A program for every set of examples, or short rows that are padded to the longest."""
    rng = np.random.default_rng(0)
    lengths = np.minimum(8 + rng.geometric(0.05, 2000), 700)
    examples = [
        Example([np.ones(n, np.int32)], [np.zeros(n, np.int32)], {}, i)
        for i, n in enumerate(lengths)
    ]
    batches = Batches(examples, 32, 0, fixed_lengths=True)
    shapes = [batch["tokens"].shape[-1] for batch, _ in batches.once()]
    assert set(shapes) <= {*FIXED_LENGTHS, 512, 1024}
    assert sum(shapes) * 32 < 1.35 * lengths.sum()
    numbers = np.concatenate([numbers for _, numbers in batches.once()])
    assert sorted(numbers.tolist()) == list(range(len(examples)))
