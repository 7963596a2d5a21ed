"""The order of rows, how they are built, and that nothing is lost or seen twice."""

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest

from electra_jax.data import permutation, rows
from electra_jax.data.sampler import PLAIN_SLOTS, Sampler, absolute_stores, interleave, parse_stores
from electra_jax.data.token_store import Split
from electra_jax.errors import UsageError

PAD, CLS, SEP = 0, 2, 3
FIRST = 10  # tokens from here on are text, each of them once


def split(lengths, folder, first=FIRST):
    ends = np.cumsum([0, *lengths])
    tokens = first + np.arange(ends[-1], dtype=np.uint32)
    return Split("train", Path(folder), tokens, ends, vocab_size=2**31, checksum="")


def lengths(count=60, seed=0):
    return np.random.default_rng(seed).integers(1, 90, count).tolist()


def sampler(splits, layout="packed", length=32, batch_size=8, seed=0, **options):
    return Sampler(
        splits, length=length, layout=layout, batch_size=batch_size, seed=seed,
        cls_id=CLS, sep_id=SEP, pad_id=PAD, **options,
    )  # fmt: skip


def text_tokens(batches):
    return np.concatenate([b["tokens"][b["tokens"] >= FIRST] for b in batches])


@pytest.mark.parametrize(("size", "key"), [(1, 0), (2, 1), (1000, 2), (1024, 3), (1025, 4)])
def test_permutation_is_a_bijection_of_its_key(size, key):
    order = permutation.permute(np.arange(size), size, key)
    assert sorted(order) == list(range(size))
    if size >= 1000:
        assert (order != permutation.permute(np.arange(size), size, key + 1)).mean() > 0.9
        assert abs(np.corrcoef(order, np.arange(size))[0, 1]) < 0.1


def test_permutation_reaches_far_without_counting_there():
    size = 10**12 + 7
    some = np.array([0, 1, size - 1])
    assert len(set(permutation.permute(some, size, 5).tolist())) == 3


def test_fold_tells_orders_apart():
    keys = {permutation.fold(*pair) for pair in itertools.product(range(30), repeat=2)}
    assert len(keys) == 900


@pytest.mark.parametrize("layout", rows.LAYOUTS)
def test_every_token_is_seen_once_an_epoch(tmp_path, layout):
    data = split(lengths(), tmp_path)
    source = sampler([(data, 1.0)], layout, batch_size=1)
    steps = [source.batch(step) for step in range(2 * source.rows)]
    for epoch in (steps[: source.rows], steps[source.rows :]):
        np.testing.assert_array_equal(np.sort(text_tokens(epoch)), data.tokens)
    assert (text_tokens(steps[: source.rows]) != text_tokens(steps[source.rows :])).any()
    padding = np.mean([b["documents"] == 0 for b in steps])
    assert padding == pytest.approx(source.padding_share, abs=0.01)


def test_packed_rows_keep_the_contract(tmp_path):
    data = split(lengths(), tmp_path)
    batch = sampler([(data, 1.0)], batch_size=64).batch(0)
    for tokens, documents, types in zip(*batch.values(), strict=True):
        numbers = documents[documents > 0]
        assert (documents[len(numbers) :] == 0).all() and (tokens[len(numbers) :] == PAD).all()
        assert (np.diff(numbers) >= 0).all() and set(numbers) == set(range(1, numbers.max() + 1))
        assert (types == 0).all()
        for number in range(1, numbers.max() + 1):
            piece = tokens[documents == number]
            assert piece[0] == CLS and piece[-1] == SEP
            body = piece[1:-1]
            assert (np.diff(body) == 1).all()
            # All of one document.
            assert len(set(np.searchsorted(data.documents, body - FIRST, side="right"))) == 1


def test_pair_rows_keep_the_contract(tmp_path):
    data = split([400] * 60, tmp_path)
    source = sampler([(data, 1.0)], "pair", batch_size=512)
    batch = source.batch(0)
    singles = 0
    for tokens, documents, types in zip(*batch.values(), strict=True):
        real = tokens[documents == 1]
        seps = np.flatnonzero(real == SEP)
        assert real[0] == CLS and seps[-1] == len(real) - 1
        singles += len(seps) == 1
        second = np.arange(len(tokens)) > seps[0]
        np.testing.assert_array_equal(types, second & (documents == 1))
        body = real[real >= FIRST]
        assert (np.diff(body) == 1).all() and len(body) == len(real) - 1 - len(seps)
    assert 0.05 < singles / 512 < 0.15
    again = sampler([(data, 1.0)], "pair", batch_size=512, seed=1).batch(0)
    assert (again["types"] != batch["types"]).any()


def test_short_documents_pack_tightly_and_scraps_are_not_made():
    table = rows.pack(np.cumsum([0] + [10] * 300 + [1000]), 64)
    slots = np.add.reduceat(table.lengths + 2, table.first[:-1])
    assert slots.max() <= 64
    assert slots.sum() / (64 * table.rows) > 0.9
    long = table.lengths[300:]
    assert (long[:-1] >= rows.SHORTEST_PIECE).all()


def test_documents_are_packed_alike_however_many_are_read_at_once(monkeypatch):
    documents = np.cumsum([0, *lengths()])
    whole = rows.pack(documents, 32)
    monkeypatch.setattr(rows, "DOCUMENTS_AT_ONCE", 7)
    for array, expected in zip(rows.pack(documents, 32), whole, strict=True):
        np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize("layout", rows.LAYOUTS)
def test_hosts_together_hold_the_batch_of_one(tmp_path, layout):
    source = sampler([(split(lengths(), tmp_path), 1.0)], layout)
    for step in (0, 3, 41):
        whole = source.batch(step)
        for hosts in (2, 4):
            shares = np.split(np.arange(source.batch_size), hosts)
            parts = [source.batch(step, share) for share in shares]
            for name, values in whole.items():
                process_group = np.concatenate([part[name] for part in parts])
                np.testing.assert_array_equal(process_group, values)


def test_a_seek_far_ahead_equals_going_there(tmp_path):
    """10^7 steps on a store of few rows: the walk is over epochs, which come round."""
    source = sampler([(split([30] * 5, tmp_path), 1.0)], batch_size=1)
    far = 10**7
    np.testing.assert_array_equal(source.batch(far)["tokens"], next(source.iterate(far))["tokens"])
    piped = next(source.dataset(far).as_numpy_iterator())
    np.testing.assert_array_equal(piped["tokens"], source.batch(far)["tokens"])
    # One epoch around there still has every token once.
    first = far - far % source.rows
    epoch = [source.batch(first + n) for n in range(source.rows)]
    np.testing.assert_array_equal(np.sort(text_tokens(epoch)), FIRST + np.arange(150))


def test_tf_data_and_the_plain_iterator_agree(tmp_path, monkeypatch):
    text = [(split(lengths(), tmp_path), 1.0)]
    source = sampler(text, pipeline="tfdata")
    rows = [1, 3]  # of one host, wherever its devices lie
    piped = list(itertools.islice(source.batches(5, rows), 8))
    plain = list(itertools.islice(source.iterate(5, rows), 8))
    np.testing.assert_array_equal(plain[0]["tokens"], source.batch(5)["tokens"][rows])
    for a, b in zip(piped, plain, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])
            assert a[name].dtype == b[name].dtype == np.int32
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="data.pipeline=tfdata needs TensorFlow"):
        sampler(text, pipeline="tfdata")
    without = next(sampler(text).batches(5, rows))
    np.testing.assert_array_equal(without["tokens"], plain[0]["tokens"])


def test_small_batches_are_made_in_turn(tmp_path):
    """tf.data's cost of a batch is most of their time, and TensorFlow takes seconds to start."""
    text = [(split(lengths(), tmp_path), 1.0)]
    rows = PLAIN_SLOTS // 32 + 1
    for pipeline, batch_size, mine, expected in (
        ("auto", rows - 1, None, False), ("auto", rows, None, True),
        ("auto", rows, range(4), False), ("plain", rows, None, False), ("tfdata", 8, None, True),
    ):  # fmt: skip
        source = sampler(text, length=32, batch_size=batch_size, pipeline=pipeline)
        assert source.uses_tfdata(mine) == expected


def test_a_mixture_keeps_its_shares_and_reads_each_store_evenly(tmp_path):
    small = split([20] * 10, tmp_path / "a")
    large = split([20] * 40, tmp_path / "b", first=1000)
    source = sampler([(small, 0.7), (large, 0.3)], batch_size=1, length=22)
    seen = np.array([source.batch(step)["tokens"][0, 1] for step in range(200)])
    assert abs((seen < 1000).mean() - 0.7) < 0.01
    counts = np.unique(seen[seen < 1000], return_counts=True)[1]
    assert len(counts) == 10 and counts.max() - counts.min() <= 1
    turns, shares, before = interleave(np.array([1.0, 2.0]))
    assert shares.sum() == len(turns)
    assert all(sorted(before[turns == s]) == list(range(shares[s])) for s in (0, 1))


def test_an_evaluation_epoch_has_each_row_once_and_fills_up_with_nothing(tmp_path):
    data = split(lengths(), tmp_path)
    source = sampler([(data, 1.0), (split([5] * 7, tmp_path / "b", first=9000), 1.0)], batch_size=7)
    assert source.rows % 7
    batches = list(source.epoch())
    expected = np.concatenate([data.tokens, 9000 + np.arange(35)])
    np.testing.assert_array_equal(np.sort(text_tokens(batches)), expected)
    assert all(len(b["tokens"]) == 7 for b in batches)
    assert (batches[-1]["documents"][source.rows % 7 :] == 0).all()


def test_the_row_table_is_kept(tmp_path, monkeypatch):
    data = split(lengths(), tmp_path)
    first = sampler([(data, 1.0)]).batch(0)
    monkeypatch.setattr(rows, "pack", None)
    again = sampler([(data, 1.0)]).batch(0)
    np.testing.assert_array_equal(first["tokens"], again["tokens"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layout": "paired"}, "data.layout='paired'"),
        ({"length": 4}, "data.length=4"),
    ],
)
def test_bad_options_are_named(tmp_path, options, message):
    with pytest.raises(UsageError, match=message):
        sampler([(split([5], tmp_path), 1.0)], **options)


def test_empty_splits_and_weights_of_nothing_are_refused(tmp_path):
    with pytest.raises(UsageError, match="empty"):
        sampler([(split([], tmp_path), 1.0)])
    with pytest.raises(UsageError, match="weights"):
        sampler([(split([5], tmp_path), 0.0)])


def test_stores_with_commas_and_colons_in_their_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("run_14:43", "2,3", "a:0.5"):
        (tmp_path / name).mkdir()
    assert parse_stores("run_14:43") == [("run_14:43", 1.0)]
    assert parse_stores("a:0.5") == [("a:0.5", 1.0)]
    assert parse_stores("a:0.5:0.7,b:0.3") == [("a:0.5", 0.7), ("b", 0.3)]
    assert parse_stores("2,3:2,run_14:43:1") == [("2,3", 2.0), ("run_14:43", 1.0)]
    # Those that are not here need a backslash, or have a slash after the colon.
    assert parse_stores(r"x\,y\:1,z:2") == [("x,y:1", 1.0), ("z", 2.0)]
    assert parse_stores("gone_14:43/store") == [("gone_14:43/store", 1.0)]
    with pytest.raises(UsageError, match=r"'x' is not a weight; a colon in a path is written \\:"):
        parse_stores("a:x")


def test_stores_by_absolute_paths_are_the_same_stores(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b,c:d"):
        (tmp_path / name).mkdir()
    text = absolute_stores(r"a:0.7,b\,c\:d:0.1")
    monkeypatch.chdir("/")
    assert parse_stores(text) == [(f"{tmp_path}/a", 0.7), (f"{tmp_path}/b,c:d", 0.1)]
    assert absolute_stores(text) == text and absolute_stores("gs://b/s") == r"gs\://b/s"
    assert parse_stores(absolute_stores("gs://b/s")) == [("gs://b/s", 1.0)]
