"""Meshes, placements by table, and what does not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from electra_jax.errors import UsageError
from electra_jax.parallel.hardware import peak_flops
from electra_jax.parallel.mesh import AXES, MeshConfig, check_batch, local_rows, make_mesh
from electra_jax.parallel.partition import place
from electra_jax.parallel.runtime import global_batches

RULES = (
    (r"word$", PartitionSpec("tensor", "fsdp")),
    (r"query/kernel$", PartitionSpec("fsdp", "tensor")),
)


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        (MeshConfig(), (8, 1, 1)),
        (MeshConfig(fsdp=4), (2, 4, 1)),
        (MeshConfig(data=2, fsdp=-1, tensor=2), (2, 2, 2)),
    ],
)
def test_one_axis_takes_what_the_others_leave(config, shape):
    assert tuple(make_mesh(config).shape.values()) == shape


@pytest.mark.parametrize(
    "sizes", [{"data": 3}, {"fsdp": 3}, {"data": -1, "fsdp": -1}, {"data": 0}, {"data": -2}]
)
def test_sizes_that_do_not_fit_are_refused(sizes):
    with pytest.raises(UsageError, match="mesh.data"):
        make_mesh(MeshConfig(**sizes))


@pytest.mark.parametrize(
    ("config", "nearest"),
    [
        (MeshConfig(data=-1, fsdp=3), "mesh.data=2, mesh.fsdp=4, mesh.tensor=1"),
        (MeshConfig(data=16, fsdp=1), "mesh.data=8, mesh.fsdp=1, mesh.tensor=1"),
        (MeshConfig(data=1, fsdp=8, tensor=2), "mesh.data=1, mesh.fsdp=4, mesh.tensor=2"),
    ],
)
def test_a_mesh_that_does_not_fit_is_told_which_would(config, nearest):
    with pytest.raises(UsageError, match=f"does not fit 8 devices.*works: {nearest}"):
        make_mesh(config)


def chips(across, slices=1):
    """A square of v6e chips, or several."""
    chip = type("Chip", (), {
        "platform": "tpu", "device_kind": "TPU v6 lite", "core_on_chip": 0, "process_index": 0,
        "client": jax.devices()[0].client, "memory_stats": lambda self: None,
    })  # fmt: skip
    devices = []
    for number in range(slices * across**2):
        one = chip()
        one.id, one.slice_index = number, number // across**2
        one.coords = (number % across, number // across % across, 0)
        devices.append(one)
    return devices


@pytest.mark.parametrize("config", [MeshConfig(tensor=2), MeshConfig(data=2, fsdp=8)])
def test_an_axis_may_be_a_part_of_a_physical_one(config):
    mesh = make_mesh(config, chips(4))
    assert {chip.id for chip in mesh.devices.flat} == set(range(16))


def test_only_data_goes_from_slice_to_slice():
    mesh = make_mesh(MeshConfig(fsdp=4), chips(2, slices=2))
    for rows in mesh.devices:
        assert len({chip.slice_index for chip in rows.flat}) == 1
    with pytest.raises(UsageError, match="mesh.data=1 over 2 slices"):
        make_mesh(MeshConfig(data=1, fsdp=8), chips(2, slices=2))


def test_a_batch_that_does_not_divide_is_told_which_would():
    mesh = make_mesh(MeshConfig(fsdp=2))
    check_batch(mesh, 32, 2)
    with pytest.raises(UsageError, match="16 or 32"):
        check_batch(mesh, 30, 2)
    with pytest.raises(UsageError, match="accumulate"):
        check_batch(mesh, 32, 0)


def test_arrays_are_placed_by_the_rule_of_their_path():
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    tree = {
        "word": jnp.zeros((10, 6)),
        "layers": {"query": {"kernel": jnp.zeros((3, 4, 8)), "bias": jnp.zeros(8)}},
        "odd": {"query": {"kernel": jnp.zeros((5, 8))}},
        "other": {"kernel": jnp.zeros((4, 4))},
    }
    shardings, unmatched = place({"mu": tree}, RULES, mesh)
    specs = jax.tree.map(lambda s: s.spec, shardings["mu"])
    assert specs["word"] == PartitionSpec("tensor", "fsdp")
    # A stack of layers is placed as its layers are.
    assert specs["layers"]["query"]["kernel"] == PartitionSpec(None, "fsdp", "tensor")
    assert specs["layers"]["query"]["bias"] == PartitionSpec()
    assert specs["odd"]["query"]["kernel"] == PartitionSpec(None, "tensor")
    assert unmatched == ["mu/other/kernel"]


def test_batches_lie_over_the_data_axes_and_lose_none():
    mesh = make_mesh(MeshConfig(fsdp=2))
    rows = [{"tokens": np.arange(16).reshape(16, 1) + 100 * n} for n in range(3)]
    placed = list(global_batches(lambda _: rows, mesh, 16))
    assert len(placed) == 3
    for before, after in zip(rows, placed, strict=True):
        np.testing.assert_array_equal(before["tokens"], after["tokens"])
        assert {s.data.shape for s in after["tokens"].addressable_shards} == {(2, 1)}


def test_a_process_reads_the_rows_that_its_devices_hold():
    """On a pod, the mesh's order of devices is not that of the processes."""

    class Device:
        platform, device_kind, client = "cpu", "cpu", jax.devices()[0].client

        def __init__(self, number, process):
            self.id, self.process_index = number, process

    devices = [Device(n, process) for n, process in enumerate([0, 1, 1, 0])]
    mesh = Mesh(np.array(devices).reshape(4, 1, 1), AXES)
    assert local_rows(mesh, 8).tolist() == [0, 1, 6, 7]
    mesh = Mesh(np.array(devices).reshape(2, 1, 2), AXES)
    assert local_rows(mesh, 8).tolist() == list(range(8))


def test_peaks_are_those_of_the_longest_name_that_fits():
    class Chip:
        def __init__(self, kind):
            self.device_kind = kind

    assert peak_flops([Chip("TPU v5 lite")] * 4) == 4 * 197e12
    assert peak_flops([Chip("NVIDIA H100 80GB HBM3")]) == 989e12
    assert peak_flops([Chip("cpu")]) is None
