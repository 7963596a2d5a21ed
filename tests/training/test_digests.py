"""Digests: any change of bits is noticed, and they are the same wherever an array lies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from electra_jax.training import digests
from electra_jax.training.digests import inspect

RNG = np.random.default_rng(0)
ARRAYS = {
    "matrix": RNG.normal(size=(8, 24)).astype(np.float32),
    "long": RNG.normal(size=2 * digests.BLOCK + 17).astype(np.float32),
    "half": RNG.normal(size=(16, 3)).astype(jnp.bfloat16),
    "whole": RNG.integers(-9, 9, (8, 2, 2), np.int32),
    "scalar": np.float32(3.0),
    "flags": np.array([True, False, True]),
    "empty": np.zeros((0, 3), np.float32),
}


def digest(array):
    return inspect({"x": array})["x"].digest


@pytest.mark.parametrize("place", ["on the devices", "in the host's memory"])
def test_a_digest_is_the_same_on_any_mesh(place, monkeypatch):
    expected = inspect(ARRAYS)
    if place == "on the devices":
        monkeypatch.setattr(digests, "_on_host", lambda leaf: False)
    mesh = jax.sharding.Mesh(np.array(jax.devices()).reshape(4, 2), ("a", "b"))
    for spec in (PartitionSpec(), PartitionSpec("a"), PartitionSpec(("b", "a"))):

        def put(array, spec=spec):
            fits = array.ndim and array.shape[0] and array.shape[0] % 8 == 0
            return jax.device_put(array, NamedSharding(mesh, spec if fits else PartitionSpec()))

        assert inspect(jax.tree.map(put, ARRAYS)) == expected
    assert inspect(jax.tree.map(jnp.asarray, ARRAYS)) == expected


@pytest.mark.parametrize("name", ["matrix", "long", "half", "whole", "scalar"])
def test_any_flipped_bit_is_noticed(name):
    before = digest(ARRAYS[name])
    for _ in range(40):
        raw = bytearray(ARRAYS[name].tobytes())
        bit = RNG.integers(8 * len(raw))
        raw[bit // 8] ^= 1 << (bit % 8)
        flipped = np.frombuffer(bytes(raw), ARRAYS[name].dtype).reshape(ARRAYS[name].shape)
        assert digest(flipped) != before


def test_places_signs_of_zeros_and_payloads_count():
    one = np.array([1.0, 0.0, np.nan, 2.0, 3.0], np.float32)
    payload = (one.view(np.uint32) + np.array([0, 0, 1, 0, 0], np.uint32)).view(np.float32)
    others = [
        one, one[::-1].copy(), one[[0, 1, 2, 4, 3]], one * np.float32(-1), payload,
        np.copysign(one, np.array([1, -1, 1, 1, 1], np.float32)), one.reshape(5, 1)[:4],
    ]  # fmt: skip
    assert len({digest(other) for other in others}) == len(others)


@pytest.mark.parametrize("place", ["on the devices", "in the host's memory"])
def test_what_is_no_number_is_found(place, monkeypatch):
    if place == "on the devices":
        monkeypatch.setattr(digests, "_on_host", lambda leaf: False)
    for bad in (np.nan, np.inf):
        late = np.ones(2 * digests.BLOCK, np.float32)
        late[-1] = bad
        found = inspect({"a": {"good": jnp.ones(3), "bad": jnp.asarray(late)}, "n": jnp.int32(1)})
        assert {name for name, inspection in found.items() if not inspection.finite} == {"a/bad"}
