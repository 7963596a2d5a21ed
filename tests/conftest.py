"""Settings that must be made before JAX is imported, and the way to the real data."""

import os
import signal
from pathlib import Path

from compiling import FAST

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8 {FAST}".strip()
)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# What is the same in many tests is compiled once, and the next time not at all.
CACHE = Path(__file__).parent.parent / ".pytest_cache" / "xla"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

# A background job of a shell starts with SIGINT ignored, and so would all that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest  # noqa: E402


@pytest.fixture(scope="session")
def electra_data() -> Path:
    """The folder with the real data sets."""
    folder = os.environ.get("ELECTRA_JAX_DATA")
    if not folder:
        pytest.skip("ELECTRA_JAX_DATA is unset: it names the folder with the real data sets")
    if not Path(folder).is_dir():
        pytest.skip(f"ELECTRA_JAX_DATA={folder} is not a folder")
    return Path(folder)


@pytest.fixture(scope="session")
def encoder_dir(tmp_path_factory) -> Path:
    """A tiny encoder that was never pretrained."""
    from tiny_encoder import make_model

    return make_model(tmp_path_factory.mktemp("encoder"))


@pytest.fixture
def one_device():
    """Runs of this process use one device of the eight."""
    import tiny_run

    with tiny_run.one_device():
        yield


def pytest_collection_modifyitems(items):
    # The file that takes longest comes first, so that no worker is left alone with it.
    items.sort(key=lambda item: item.path.name != "test_pretrain.py")
