"""What changes over a run or is kept beside it: the average, the mask rate, the phases of text."""

import jax
import numpy as np
import pytest
import tiny_run
from tiny_run import logged, make_store, tiny

from electra_jax.errors import UsageError
from electra_jax.inference.pretrained import load_pretrained
from electra_jax.pretraining.pretrain import pretrain
from electra_jax.training import loop

pytestmark = pytest.mark.slow

SCHEDULED = ("train.average=0.9", "objective.final_mask_rate=0.3")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("data") / "store")


@pytest.fixture(scope="module")
def straight(store, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("straight") / "run"
    with tiny_run.one_device():
        pretrain(tiny(store, *SCHEDULED), workdir)
    return workdir


class Killed(BaseException):
    pass


def killed_at(step, config, workdir, monkeypatch):
    def end(self, state, now, real=loop.Loop._end_step):
        real(self, state, now)
        if now == step:
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(loop.Loop, "_end_step", end)
        pretrain(config, workdir)


def assert_same_run(one, other):
    assert logged(one) == logged(other)
    first, second = (load_pretrained(path, "last") for path in (one, other))
    jax.tree.map(np.testing.assert_array_equal, first.params, second.params)


@pytest.mark.usefixtures("one_device")
def test_a_run_with_an_average_resumes_bit_for_bit(store, straight, tmp_path, monkeypatch):
    config = tiny(store, *SCHEDULED)
    killed_at(13, config, tmp_path / "run", monkeypatch)
    pretrain(config, tmp_path / "run")
    assert_same_run(straight, tmp_path / "run")


@pytest.mark.usefixtures("one_device")
def test_an_average_cannot_come_or_go(store, straight):
    with pytest.raises(UsageError, match=r"train\.average=0\.9"):
        pretrain(tiny(store, SCHEDULED[1]), straight)


def test_an_objective_with_a_constant_rate_refuses_another(store):
    with pytest.raises(UsageError, match="constant mask rate"):
        tiny(store, "objective.name=electric", "generator.kind=two_tower",
             "objective.final_mask_rate=0.3")  # fmt: skip
