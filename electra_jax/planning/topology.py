"""Descriptions of TPUs that are not here, for programs to be compiled for."""

import importlib.util
import math
import os
import re

import jax
from jax.experimental import topologies

from electra_jax.errors import UsageError

KINDS = {"v4": 3, "v5e": 2, "v5p": 3, "v6e": 2}  # the dimensions of their interconnects
EXAMPLES = "v5e:4x4, v5e:16x16, v6e:8x8, v4:4x4x4 or v5p:4x4x4"
# libtpu looks for the TPU it runs on; told this, it is content without one.
ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


def stay_on_cpu() -> None:
    """Leaves accelerators alone; to be called before anything has run on one."""
    jax.config.update("jax_platforms", "cpu")


def tpu_topology(name: str) -> list[jax.Device]:
    """The devices of a slice, one a chip, such as "v5e:4x4".

    Raises:
      UsageError: no such slice, or libtpu, which compiles for it, is not installed.
    """
    kind, _, size = name.partition(":")
    if kind not in KINDS or not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", size):
        raise UsageError(
            f"--topology {name}: unknown; write {', '.join(KINDS)} and the chips in each "
            f"direction: {EXAMPLES}"
        )
    shape = [int(n) for n in size.split("x")]
    if len(shape) != KINDS[kind]:
        raise UsageError(
            f"--topology {name}: {kind} chips are joined in {KINDS[kind]} dimensions: {EXAMPLES}"
        )
    if importlib.util.find_spec("libtpu") is None:
        raise UsageError(
            "--topology needs the TPU compiler, libtpu (no TPU): "
            "pip install '.[plan]' in the checkout"
        )
    for variable, value in ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    options: dict = {}
    if math.prod(shape) == 1:
        options["chips_per_host_bounds"] = (1, 1, 1)
    if kind == "v4":
        options["chip_config_name"] = "megacore"  # both cores of a chip as one device
    try:
        description = topologies.get_topology_desc(platform="tpu", topology_name=name, **options)
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"--topology {name}: the TPU compiler knows no such slice ({reason}); use {EXAMPLES}"
        ) from error
    return list(description.devices)
