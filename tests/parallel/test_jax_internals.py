"""Each internal of JAX that the program uses is still there; the failing test names the one."""

import ast
import importlib
from pathlib import Path

import pytest

import electra_jax

FILE = Path(electra_jax.__file__).parent / "parallel" / "jax_internals.py"


def internals() -> set[str]:
    """Dotted names of all that the file uses of `jax._src`, read from its source."""
    tree = ast.parse(FILE.read_text())
    modules = {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module.startswith("jax._src")
        for alias in node.names
    }
    chains = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return {
        f"{modules[root]}.{rest}"
        for root, _, rest in (chain.partition(".") for chain in chains)
        if root in modules
    }


@pytest.mark.parametrize("name", sorted(internals()))
def test_internal_exists(name):
    parts = name.split(".")
    package, module = ".".join(parts[:2]), parts[2]
    try:
        found = importlib.import_module(f"{package}.{module}")
        for part in parts[3:]:
            found = getattr(found, part)
    except (ImportError, AttributeError):
        pytest.fail(f"{name} is gone: see parallel/jax_internals.py", pytrace=False)


def test_all_internals_are_found():
    assert "jax._src.clusters.ClusterEnv.auto_detect_unset_distributed_params" in internals()
    assert "jax._src.distributed.global_state.client" in internals()


@pytest.mark.parametrize("method", ["key_value_set", "key_value_dir_get"])
def test_coordination_client_has_method(method):
    client = importlib.import_module("jaxlib._jax").DistributedRuntimeClient
    assert hasattr(client, method), f"{client} has no {method}: see parallel/jax_internals.py"
