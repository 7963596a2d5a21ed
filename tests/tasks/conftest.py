import sys

import jax
import pytest
from tiny_encoder import make_model

from electra_jax.parallel.mesh import make_mesh


@pytest.fixture(scope="session")
def encoder_dir(tmp_path_factory):
    """A tiny encoder that was never pretrained."""
    return make_model(tmp_path_factory.mktemp("encoder"))


@pytest.fixture
def one_device(monkeypatch):
    """Fine-tuning runs on one device, for what is the same on many: they compile sooner."""
    module = sys.modules["electra_jax.finetune"]
    monkeypatch.setattr(module, "make_mesh", lambda config: make_mesh(config, jax.devices()[:1]))
