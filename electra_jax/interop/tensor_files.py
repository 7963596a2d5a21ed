"""Reads the tensors and the settings of the transformers library's directories."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.flax

from electra_jax.errors import UsageError
from electra_jax.interop.torch_file import read_torch_file

# Norms in TensorFlow's terms, as in files as old as those of bert-base-uncased.
OLD_NAMES = {".LayerNorm.gamma": ".LayerNorm.weight", ".LayerNorm.beta": ".LayerNorm.bias"}


def read_json(file: Path) -> dict[str, Any]:
    """The object in a file of JSON.

    Raises:
      UsageError: it cannot be read, or holds something else.
    """
    try:
        content = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{file} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise UsageError(f"{file} is not a JSON object")
    return content


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
            files = sorted(set(read_json(folder / index)["weight_map"].values()))
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


def _read_safetensors(file: Path) -> dict[str, np.ndarray]:
    try:
        return {name: np.asarray(x) for name, x in safetensors.flax.load_file(file).items()}
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise UsageError(f"{file.name} is damaged or truncated: {error}") from error
