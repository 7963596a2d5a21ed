"""Slices of TPUs by name: what is wrong with a name is said in one line."""

import importlib.util
import subprocess
import sys

import pytest

from electra_jax.errors import UsageError
from electra_jax.planning.topology import tpu_topology


@pytest.mark.parametrize("name", ["v5e", "v5e-16", "v5e:", "v5e:0x4", "h100:8", "v7x:2x2x1", ""])
def test_an_unknown_name_is_answered_with_known_ones(name):
    with pytest.raises(UsageError, match="unknown; write v4, v5e, v5p, v6e .* v5e:4x4"):
        tpu_topology(name)


@pytest.mark.parametrize(("name", "dimensions"), [("v5e:4x4x4", 2), ("v4:4x4", 3), ("v5p:8", 3)])
def test_chips_are_joined_in_as_many_dimensions_as_they_are(name, dimensions):
    with pytest.raises(UsageError, match=f"joined in {dimensions} dimensions"):
        tpu_topology(name)


def test_without_libtpu_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install '\.\[plan\]'"):
        tpu_topology("v5e:4x4")


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")
def test_one_device_is_one_chip():
    """In a process of its own: the compiler writes what it likes to standard error."""
    names = {"v4:2x2x1": 4, "v5e:1x1": 1, "v5e:2x4": 8, "v5p:2x2x2": 8, "v6e:4x4": 16}
    code = (
        "from electra_jax.planning.topology import stay_on_cpu, tpu_topology\n"
        "stay_on_cpu()\n"
        f"print([len(tpu_topology(name)) for name in {list(names)}])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(list(names.values()))
