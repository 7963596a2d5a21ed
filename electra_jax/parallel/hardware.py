"""What accelerators can do, from their makers' data sheets."""

from collections.abc import Iterable

import jax

# Dense bfloat16 operations a second of one chip, by the start of JAX's device kind.
PEAK_FLOPS = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5p": 459e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "NVIDIA A100": 312e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
}


def peak_flops(devices: Iterable[jax.Device]) -> float | None:
    """Peak of all devices together; None where their kind is not known."""
    devices = list(devices)
    kind = devices[0].device_kind
    matches = [name for name in PEAK_FLOPS if kind.startswith(name)]
    return len(devices) * PEAK_FLOPS[max(matches, key=len)] if matches else None
