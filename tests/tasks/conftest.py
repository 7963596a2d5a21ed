import pytest
from tiny_encoder import make_model


@pytest.fixture(scope="session")
def encoder_dir(tmp_path_factory):
    """A tiny encoder that was never pretrained."""
    return make_model(tmp_path_factory.mktemp("encoder"))
