"""Arrays on disk: one-dimensional .npy files, whose headers are checked before they are believed.

NumPy reads a header with Python's parser and trusts the shape that it finds. The files of a
token store have one form alone, so that a damaged one can be told from it byte for byte.
"""

import contextlib
import re
from pathlib import Path
from typing import BinaryIO

import numpy as np

from electra_jax.errors import UsageError
from electra_jax.system.json_files import check_regular, reading

_MAGIC = b"\x93NUMPY\x01\x00"
_HEADER = re.compile(
    rb"\{'descr': '(<[ui][248])', 'fortran_order': False, 'shape': \((\d{1,18}),\), \} *\n"
)
_LONGEST_HEADER = 1024  # bytes; NumPy writes 118 of them


def map_array(path: Path, dtype: np.dtype, length: int) -> np.ndarray:
    """A memory map of an array whose type and length are known.

    Raises:
      UsageError: the file is missing or cannot be read, or its header or its size do not go with
        them.
    """
    with reading(path):
        check_regular(path)
        with path.open("rb") as file:
            start = file.read(len(_MAGIC) + 2)
            size = int.from_bytes(start[-2:], "little")
            header = file.read(min(size, _LONGEST_HEADER))
        found = _HEADER.fullmatch(header)
        if start[:-2] != _MAGIC or len(header) != size or not found:
            raise UsageError("its header is damaged, or not that of an array of numbers")
        kind, count = np.dtype(found[1].decode()), int(found[2])
        if (kind, count) != (dtype, length):
            raise UsageError(
                f"it holds {count:,} numbers of type {kind}, not {length:,} of type {dtype}"
            )
        offset, held = len(start) + size, path.stat().st_size
        if held != offset + count * kind.itemsize:
            raise UsageError(f"it has {held:,} bytes, not {offset + count * kind.itemsize:,}")
        if not count:  # which cannot be mapped
            return np.zeros(0, dtype)
        # As a plain array: NumPy takes longer over its subclasses.
        return np.asarray(np.memmap(path, dtype, "r", offset, (count,)))


class ArrayFile:
    """A one-dimensional .npy file that grows; its length is written when it is closed."""

    def __init__(self, path: Path, dtype: np.dtype):
        path.parent.mkdir(exist_ok=True)
        self._file: BinaryIO = path.open("wb")
        self._dtype = dtype
        self._length = 0
        self._write_header()

    def __enter__(self) -> "ArrayFile":
        return self

    def __exit__(self, kind: object, *exc: object) -> None:
        if kind is None:
            self._file.seek(0)
            self._write_header()
        # After an error, closing may raise it again: the disk is still full.
        with contextlib.nullcontext() if kind is None else contextlib.suppress(OSError):
            self._file.close()

    def append(self, values: np.ndarray) -> None:
        self._file.write(np.ascontiguousarray(values, self._dtype).data)
        self._length += len(values)

    def _write_header(self) -> None:
        # NumPy leaves room in the header for the length to grow.
        np.lib.format.write_array_header_1_0(
            self._file,
            {
                "descr": np.lib.format.dtype_to_descr(self._dtype),
                "fortran_order": False,
                "shape": (self._length,),
            },
        )
