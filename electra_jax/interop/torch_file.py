"""Reads PyTorch's `.bin` files without PyTorch and without running what is pickled in them.

Since PyTorch 1.6 such a file is a zip: `data.pkl` says how tensors lie in the raw storages
beside it. The pickle may ask for a handful of names; any other is refused.
"""

import collections
import io
import math
import pickle
import pickletools
import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from electra_jax.errors import UsageError
from electra_jax.system.json_files import check_regular

_STORAGES = {
    "FloatStorage": np.dtype(np.float32),
    "DoubleStorage": np.dtype(np.float64),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
}


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> np.ndarray:
    """A tensor over a storage, as torch._utils._rebuild_tensor_v2 makes it."""
    # The pickle chooses every argument; only Python's own integers cannot wrap around.
    offset, size, stride = int(offset), tuple(map(int, size)), tuple(map(int, stride))
    if not isinstance(storage, np.ndarray) or storage.ndim != 1:
        raise pickle.UnpicklingError("a tensor has no storage")
    if min(offset, *size, *stride) < 0:
        raise pickle.UnpicklingError("a tensor has a negative offset, size or stride")
    if not all(size):
        return np.zeros(size, storage.dtype)
    reach = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True)) + 1
    if max(reach, math.prod(size)) > len(storage):
        raise pickle.UnpicklingError("a tensor reaches beyond its storage")
    strides = [s * storage.itemsize for s in stride]
    # A view: copies of one storage, which a file may ask for many times over, take memory.
    return np.lib.stride_tricks.as_strided(storage[offset:], size, strides, writeable=False)


def _rebuild_parameter(data: np.ndarray, *_: Any) -> np.ndarray:
    return data


_ALLOWED = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
}


# What `torch.save` writes a state dict with: names, numbers, tuples, dicts and calls.
_OPCODES = frozenset("""
    PROTO STOP MARK EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST APPEND APPENDS LIST
    EMPTY_DICT DICT SETITEM SETITEMS NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 LONG4
    INT LONG BINFLOAT FLOAT BINUNICODE SHORT_BINUNICODE UNICODE BINSTRING SHORT_BINSTRING
    BINBYTES SHORT_BINBYTES STRING GLOBAL STACK_GLOBAL REDUCE BUILD BINPERSID
    PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET POP POP_MARK DUP FRAME
    """.split())  # fmt: skip  # noqa: SIM905


def _check_pickle(content: bytes) -> None:
    """Refuses what makes the interpreter take memory for what is not in the file.

    Python's own reader takes memory for the highest number of a memo, and for texts as long as
    they say they are, before it has read any of it.

    Raises:
      UnpicklingError, ValueError: names it.
    """
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name not in _OPCODES:
            raise pickle.UnpicklingError(f"it has a {opcode.name}, as no state dict has")
        if opcode.name in ("PUT", "LONG_BINPUT") and (argument or 0) > len(content):
            raise pickle.UnpicklingError(f"it numbers {argument:,} objects")


class _Unpickler(pickle.Unpickler):
    def __init__(self, archive: zipfile.ZipFile, root: str):
        content = archive.read(f"{root}data.pkl")
        _check_pickle(content)
        super().__init__(io.BytesIO(content))
        self._archive, self._root = archive, root
        self._storages: dict[str, np.ndarray] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        raise pickle.UnpicklingError(f"it asks to run {module}.{name}")

    def persistent_load(self, pid: Any) -> np.ndarray:
        _, dtype, key, _, count, *_ = pid
        if not isinstance(dtype, np.dtype) or not isinstance(key, str):
            raise pickle.UnpicklingError(f"a storage is of type {dtype!r}")
        if key not in self._storages:
            content = self._archive.read(f"{self._root}data/{key}")
            self._storages[key] = np.frombuffer(content, np.uint8)
        storage = self._storages[key]
        if len(storage) != count * dtype.itemsize:
            raise pickle.UnpicklingError(f"storage {key} has {len(storage):,} bytes, not {count:,}")
        return storage.view(dtype)


def _check_entries(archive: zipfile.ZipFile, size: int) -> None:
    """Refuses an archive whose entries hold more than it has bytes.

    Raises:
      UnpicklingError: one is compressed, or some lie upon each other.
    """
    entries = archive.infolist()
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
            raise pickle.UnpicklingError(f"{entry.filename} in it is compressed: unpack it")
    if sum(entry.file_size for entry in entries) > size:
        raise pickle.UnpicklingError("its entries overlap")


def read_torch_file(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a state dict by name.

    Raises:
      UsageError: no such file, a damaged one, or one that wants code to be run.
    """
    try:
        size = check_regular(path)
        with zipfile.ZipFile(path) as archive:
            _check_entries(archive, size)
            pickles = [name for name in archive.namelist() if name.endswith("data.pkl")]
            if len(pickles) != 1:
                raise UsageError(f"{path} is no PyTorch checkpoint")
            tensors = _Unpickler(archive, pickles[0].removesuffix("data.pkl")).load()
    except zipfile.BadZipFile:
        raise UsageError(
            f"{path} is not a zip of tensors (a truncated file, or PyTorch's format before 1.6)"
        ) from None
    except (pickle.UnpicklingError, KeyError, ValueError, TypeError, EOFError) as error:
        raise UsageError(f"{path} is refused: {' '.join(str(error).split())}") from error
    except UsageError:
        raise
    except Exception as error:  # a damaged or hostile file can raise anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UsageError(f"{path} cannot be read: {reason}") from error
    if not isinstance(tensors, dict):
        raise UsageError(f"{path} holds no state dict")
    return {
        name: x
        for name, x in tensors.items()
        if isinstance(name, str) and isinstance(x, np.ndarray)
    }
