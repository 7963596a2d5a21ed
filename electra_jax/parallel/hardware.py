"""Peak rates and memory of accelerators, from their makers' data sheets."""

from collections.abc import Iterable
from typing import NamedTuple

import jax

GIB = 2**30


class Chip(NamedTuple):
    """One chip.

    Attributes:
      flops: dense bfloat16 operations a second.
      hbm_bytes: of its memory.
      hbm_bandwidth: bytes a second.
      link_bandwidth: bytes a second that leave it for its neighbours, over all links.
    """

    flops: float
    hbm_bytes: float
    hbm_bandwidth: float
    link_bandwidth: float


# By the start of JAX's device kind. TPUs: docs.cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e}, whose
# "bidirectional bandwidth per chip" (v5e 400, v5p 1200, v6e 800 GB/s) counts both directions;
# v4: Jouppi et al., 2023 (arXiv:2304.01433): six links of 50 GB/s each way.
# GPUs: NVIDIA's data sheets, of the SXM cards where the name says nothing; NVLink, one way.
CHIPS = {
    "TPU v4": Chip(275e12, 32 * GIB, 1200e9, 300e9),
    "TPU v5 lite": Chip(197e12, 16 * GIB, 819e9, 200e9),
    "TPU v5e": Chip(197e12, 16 * GIB, 819e9, 200e9),
    "TPU v5p": Chip(459e12, 95 * GIB, 2765e9, 600e9),
    "TPU v5": Chip(459e12, 95 * GIB, 2765e9, 600e9),
    "TPU v6 lite": Chip(918e12, 32 * GIB, 1638e9, 400e9),
    "TPU v6e": Chip(918e12, 32 * GIB, 1638e9, 400e9),
    "NVIDIA A100": Chip(312e12, 80e9, 2039e9, 300e9),
    "NVIDIA H100": Chip(989e12, 80e9, 3350e9, 450e9),
    "NVIDIA H100 PCIe": Chip(756e12, 80e9, 2000e9, 300e9),
    "NVIDIA H100 NVL": Chip(835e12, 94e9, 3938e9, 300e9),
    "NVIDIA H200": Chip(989e12, 141e9, 4800e9, 450e9),
    "NVIDIA H200 NVL": Chip(835e12, 141e9, 4800e9, 450e9),
}


def find_chip(device_kind: str) -> Chip | None:
    """The chip of a device kind; None where it is not known."""
    matches = [name for name in CHIPS if device_kind.startswith(name)]
    return CHIPS[max(matches, key=len)] if matches else None


def peak_flops(devices: Iterable[jax.Device]) -> float | None:
    """Peak of all devices together; None where their kind is not known."""
    devices = list(devices)
    chip = find_chip(devices[0].device_kind)
    return len(devices) * chip.flops if chip else None
