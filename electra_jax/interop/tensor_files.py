"""Reads the tensors and the settings of the transformers library's directories."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors.flax
import safetensors.numpy

from electra_jax.errors import UsageError
from electra_jax.interop.torch_file import read_torch_file
from electra_jax.system.json_files import DAMAGE, check_regular, read_object, reading, short_reason

# Norms in TensorFlow's terms, as in files as old as those of bert-base-uncased.
OLD_NAMES = {".LayerNorm.gamma": ".LayerNorm.weight", ".LayerNorm.beta": ".LayerNorm.bias"}

CHECKSUM = "electra_jax_sha256"  # in the metadata of what is exported here


def read_tensors(folder: Path) -> dict[str, np.ndarray]:
    """All tensors of a directory, whole or in shards; safetensors if there are any.

    Raises:
      UsageError: there are none, or a file is missing or damaged (see `read_torch_file`).
    """
    for whole, index, read in (
        ("model.safetensors", "model.safetensors.index.json", _read_safetensors),
        ("pytorch_model.bin", "pytorch_model.bin.index.json", read_torch_file),
    ):
        if (folder / whole).exists():
            files = [whole]
        elif (folder / index).exists():
            with reading(folder / index):
                files = sorted(set(read_object(folder / index)["weight_map"].values()))
        else:
            continue
        return {
            _current_name(name): x
            for file in files
            for name, x in read(folder / Path(file).name).items()
        }
    raise UsageError("it holds neither model.safetensors nor pytorch_model.bin")


def _current_name(name: str) -> str:
    for old, new in OLD_NAMES.items():
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def write_safetensors(file: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes tensors with a checksum, which stands in the file's own metadata.

    A library that changes them and writes them anew leaves it out.
    """
    metadata = {"format": "pt", CHECKSUM: _checksum(tensors)}
    # Not save_file, which hides its files from everyone but their owner.
    content = safetensors.numpy.save(dict(tensors), metadata=metadata)
    file.write_bytes(_in_order(content))


def _in_order(content: bytes) -> bytes:
    """The same file with its metadata in order, which the library writes in any."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text = text.ljust(-(-len(text) // 8) * 8)  # tensors are aligned
    return len(text).to_bytes(8, "little") + text + content[8 + size :]


def _read_safetensors(file: Path) -> dict[str, np.ndarray]:
    try:
        check_regular(file)
        tensors = {name: np.asarray(x) for name, x in safetensors.flax.load_file(file).items()}
        with safetensors.safe_open(file, framework="np") as opened:
            checksum = (opened.metadata() or {}).get(CHECKSUM)
    except (safetensors.SafetensorError, UsageError, *DAMAGE) as error:
        raise UsageError(f"{file.name} is damaged or truncated: {short_reason(error)}") from error
    if checksum is not None and checksum != _checksum(tensors):
        raise UsageError(f"{file.name} is damaged: its tensors are not those of its checksum")
    return tensors


def _checksum(tensors: Mapping[str, np.ndarray]) -> str:
    """The SHA-256 of names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tensor.shape}\n".encode())
        digest.update(np.ascontiguousarray(tensor).reshape(-1).view(np.uint8))
    return digest.hexdigest()
