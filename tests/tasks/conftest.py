import pytest
import tiny_run
from tiny_encoder import make_model


@pytest.fixture(scope="session")
def encoder_dir(tmp_path_factory):
    """A tiny encoder that was never pretrained."""
    return make_model(tmp_path_factory.mktemp("encoder"))


@pytest.fixture
def one_device():
    with tiny_run.one_device():
        yield
