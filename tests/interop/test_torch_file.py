"""PyTorch's files, read without PyTorch and without running what is in them."""

import io
import os
import pickle
import tracemalloc
import zipfile

import numpy as np
import pytest

from electra_jax.errors import UsageError
from electra_jax.interop.torch_file import read_torch_file


class Global:
    """Pickles as a name of another module."""

    def __init__(self, module, name):
        self.module, self.name = module, name


class Call:
    def __init__(self, function, *args):
        self.function, self.args = function, args


class Storage:
    def __init__(self, kind, key, size):
        self.kind, self.key, self.size = kind, key, size


class Pickler(pickle._Pickler):
    """Writes what torch.save writes, for objects of the classes above."""

    def persistent_id(self, value):
        if isinstance(value, Storage):
            return ("storage", Global("torch", value.kind), value.key, "cpu", value.size)
        return None

    def save(self, value, save_persistent_id=True):
        if isinstance(value, Global):
            self.write(pickle.GLOBAL + f"{value.module}\n{value.name}\n".encode())
        elif isinstance(value, Call):
            self.save(value.function)
            self.save(value.args)
            self.write(pickle.REDUCE)
        else:
            super().save(value, save_persistent_id)


def write(path, content, storages=()):
    buffer = io.BytesIO()
    Pickler(buffer, protocol=2).dump(content)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", buffer.getvalue())
        for key, values in storages:
            archive.writestr(f"model/data/{key}", values.tobytes())
    return path


def tensor(kind, key, values, offset=0, size=None, stride=None):
    size = size or values.shape
    stride = stride or tuple(s // values.itemsize for s in values.strides)
    rebuild = Global("torch._utils", "_rebuild_tensor_v2")
    return Call(rebuild, Storage(kind, key, values.size), offset, size, stride, False, {})


def test_tensors_are_read_with_their_strides(tmp_path):
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    halves = np.array([1.5, -2.0], np.float16)
    path = write(
        tmp_path / "pytorch_model.bin",
        {
            "plain": tensor("FloatStorage", "0", values),
            "transposed": tensor("FloatStorage", "0", values, 0, (4, 3), (1, 4)),
            "part": tensor("FloatStorage", "0", values, 5, (2,), (1,)),
            "half": tensor("HalfStorage", "1", halves),
        },
        [("0", values), ("1", halves)],
    )
    read = read_torch_file(path)
    np.testing.assert_array_equal(read["plain"], values)
    np.testing.assert_array_equal(read["transposed"], values.T)
    np.testing.assert_array_equal(read["part"], [5.0, 6.0])
    np.testing.assert_array_equal(read["half"], halves)


def test_nothing_is_run(tmp_path):
    trap = tmp_path / "trap"
    command = Call(Global("os", "system"), f"touch {trap}")
    path = write(tmp_path / "pytorch_model.bin", {"x": command})
    with pytest.raises(UsageError, match="asks to run os.system"):
        read_torch_file(path)
    assert not os.path.exists(trap)


def test_a_tensor_beyond_its_storage_is_refused(tmp_path):
    values = np.zeros(4, np.float32)
    path = write(
        tmp_path / "pytorch_model.bin",
        {"x": tensor("FloatStorage", "0", values, 2, (4,), (1,))},
        [("0", values)],
    )
    with pytest.raises(UsageError, match="beyond its storage"):
        read_torch_file(path)


@pytest.mark.parametrize(
    ("size", "stride"),
    [
        # In int64, 2 * 2**62 + 2 * 2**62 is zero.
        (Storage("LongStorage", "3s", 2), Storage("LongStorage", "wraps", 2)),
        ((10**11,), (0,)),
        ((-1, -1), (1, 1)),
        ((2,), (-1,)),
    ],
)
def test_sizes_and_strides_are_not_believed(size, stride, tmp_path):
    values = np.zeros(4, np.float32)
    path = write(
        tmp_path / "pytorch_model.bin",
        {"x": tensor("FloatStorage", "0", values, 0, size, stride)},
        [("0", values), ("3s", np.array([3, 3])), ("wraps", np.array([2**62, 2**62]))],
    )
    with pytest.raises(UsageError, match="beyond its storage|negative"):
        read_torch_file(path)


def test_a_tensor_needs_a_storage(tmp_path):
    rebuild = Global("torch._utils", "_rebuild_tensor_v2")
    path = write(tmp_path / "pytorch_model.bin", {"x": Call(rebuild, [0.0], 0, (1,), (1,))})
    with pytest.raises(UsageError, match="no storage"):
        read_torch_file(path)


@pytest.mark.parametrize(
    "pickled",
    [
        b"K\x01K\x02a.",  # AttributeError
        b"]K\x01K\x01s.",  # IndexError
        b"\x8d" + b"\xff" * 8,  # OverflowError
        b"\x80\x04\x8c\x02os\x8c\x05a\nb\nc\x93.",  # a name of three lines
    ],
)
def test_any_damage_is_one_line(pickled, tmp_path):
    with zipfile.ZipFile(tmp_path / "pytorch_model.bin", "w") as archive:
        archive.writestr("model/data.pkl", pickled)
    with pytest.raises(UsageError) as raised:
        read_torch_file(tmp_path / "pytorch_model.bin")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "pickled",
    [
        b"Nr\xff\xff\xff\x0f.",  # a memo of 2**28 objects
        b"p268435455\n.",
        b"\x8e" + (2**32).to_bytes(8, "little") + b".",  # so many bytes, none of which follows
        b"\x8d" + (2**32).to_bytes(8, "little") + b".",
        b"\x96" + (2**32).to_bytes(8, "little") + b".",
        b"B\xff\xff\xff\x7f.",
    ],
    ids=repr,
)
def test_what_a_pickle_announces_takes_no_memory(pickled, tmp_path):
    with zipfile.ZipFile(tmp_path / "pytorch_model.bin", "w") as archive:
        archive.writestr("model/data.pkl", pickled)
    tracemalloc.start()
    try:
        with pytest.raises(UsageError, match="pytorch_model.bin"):
            read_torch_file(tmp_path / "pytorch_model.bin")
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()


def test_one_storage_takes_memory_once(tmp_path):
    values = np.zeros(10**6, np.float32)
    content = {f"t{n}": tensor("FloatStorage", "0", values) for n in range(500)}
    path = write(tmp_path / "pytorch_model.bin", content, [("0", values)])
    tracemalloc.start()
    try:
        assert len(read_torch_file(path)) == 500
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()


def test_a_compressed_storage_is_refused(tmp_path):
    values = np.zeros(10**6, np.float32)
    path = write(tmp_path / "a.bin", {"x": tensor("FloatStorage", "0", values)}, [("0", values)])
    with (
        zipfile.ZipFile(path) as plain,
        zipfile.ZipFile(tmp_path / "pytorch_model.bin", "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name in plain.namelist():
            archive.writestr(name, plain.read(name))
    with pytest.raises(UsageError, match="is compressed"):
        read_torch_file(tmp_path / "pytorch_model.bin")


def test_a_storage_of_another_size_is_refused(tmp_path):
    values = np.zeros(4, np.float32)
    path = tmp_path / "pytorch_model.bin"
    write(path, {"x": tensor("FloatStorage", "0", values)}, [("0", values[:3])])
    with pytest.raises(UsageError, match="storage 0 has 12 bytes"):
        read_torch_file(path)


def test_an_empty_storage_is_read(tmp_path):
    values = np.zeros(0, np.float32)
    path = write(tmp_path / "a.bin", {"x": tensor("FloatStorage", "0", values)}, [("0", values)])
    assert read_torch_file(path)["x"].shape == (0,)


def test_what_is_no_such_file_is_refused(tmp_path):
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(UsageError, match="not a zip of tensors"):
        read_torch_file(path)


@pytest.mark.full
def test_what_pytorch_saves_is_read(tmp_path):
    torch = pytest.importorskip("torch")
    state = {"a": torch.arange(6.0).view(2, 3).t(), "b": torch.ones(2, dtype=torch.bfloat16)}
    torch.save(state, tmp_path / "pytorch_model.bin")
    read = read_torch_file(tmp_path / "pytorch_model.bin")
    np.testing.assert_array_equal(read["a"], state["a"].numpy())
    assert read["b"].astype(np.float32).tolist() == [1.0, 1.0]
