"""Writes what `torch.save` writes of a state dict, without PyTorch."""

import io
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


class _Name:
    """Pickles as a name of another module."""

    def __init__(self, module: str, name: str) -> None:
        self.content = f"{module}\n{name}\n".encode()


class _Tensor:
    def __init__(self, key: str, values: np.ndarray) -> None:
        self.key, self.values = key, values


class _Storage(_Tensor):
    pass


class _Pickler(pickle._Pickler):  # type: ignore[name-defined]
    def persistent_id(self, value: Any) -> Any:
        if isinstance(value, _Storage):
            kind = _Name("torch", "FloatStorage")
            return ("storage", kind, value.key, "cpu", value.values.size)
        return None

    def save(self, value: Any, save_persistent_id: bool = True) -> None:
        if isinstance(value, _Name):
            self.write(pickle.GLOBAL + value.content)
        elif isinstance(value, _Tensor) and not isinstance(value, _Storage):
            self.save(_Name("torch._utils", "_rebuild_tensor_v2"))
            strides = tuple(s // value.values.itemsize for s in value.values.strides)
            storage = _Storage(value.key, value.values)
            self.save((storage, 0, value.values.shape, strides, False, {}))
            self.write(pickle.REDUCE)
        else:
            super().save(value, save_persistent_id)


def write_torch(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes tensors of 32 bits, each with a storage of its own."""
    arrays = {name: np.ascontiguousarray(x, np.float32) for name, x in tensors.items()}
    content = io.BytesIO()
    keyed = {name: _Tensor(str(index), x) for index, (name, x) in enumerate(arrays.items())}
    _Pickler(content, protocol=2).dump(keyed)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content.getvalue())
        for index, x in enumerate(arrays.values()):
            archive.writestr(f"archive/data/{index}", x.tobytes())
