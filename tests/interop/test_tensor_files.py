"""Tensors that are exported here carry a checksum, which is compared when they are opened."""

import numpy as np
import pytest
import safetensors.numpy

from electra_jax.errors import UsageError
from electra_jax.interop.tensor_files import read_tensors, write_safetensors

RNG = np.random.default_rng(0)
TENSORS = {
    "a.weight": RNG.normal(size=(6, 5)).astype(np.float32),
    "a.bias": RNG.normal(size=6).astype(np.float32),
    "ids": np.arange(4),
}


def test_a_flipped_bit_of_an_exported_tensor_is_noticed(tmp_path):
    file = tmp_path / "model.safetensors"
    write_safetensors(file, TENSORS)
    whole = file.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    for bit in RNG.integers(8 * header, 8 * len(whole), 60):
        content = bytearray(whole)
        content[bit // 8] ^= 1 << (bit % 8)
        file.write_bytes(bytes(content))
        with pytest.raises(UsageError, match="model.safetensors is damaged"):
            read_tensors(tmp_path)
    for bit in RNG.integers(0, 8 * header, 60):
        content = bytearray(whole)
        content[bit // 8] ^= 1 << (bit % 8)
        file.write_bytes(bytes(content))
        try:
            tensors = read_tensors(tmp_path)
        except UsageError:
            continue
        # Of the header, what is not the tensors': the name of the checksum, or of the format.
        assert tensors.keys() == TENSORS.keys()
        for name, tensor in TENSORS.items():
            np.testing.assert_array_equal(tensors[name], tensor)


def test_a_file_of_another_library_has_none(tmp_path):
    content = safetensors.numpy.save(TENSORS, metadata={"format": "pt"})
    (tmp_path / "model.safetensors").write_bytes(content)
    assert read_tensors(tmp_path).keys() == TENSORS.keys()
