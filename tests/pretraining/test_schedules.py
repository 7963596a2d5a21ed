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
from electra_jax.training.checkpoint import Checkpoints
from electra_jax.training.metrics import read_metrics

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
def test_the_average_is_what_is_evaluated_and_loaded(store, straight, tmp_path):
    """And it is that of the parameters of a run without one, whose text and masks are the same."""
    seen = []
    pretrain(
        tiny(store, SCHEDULED[1], "checkpoint.every_steps=1", "checkpoint.keep=30"),
        tmp_path / "run",
    )
    with Checkpoints(tmp_path / "run", read_only=True) as checkpoints:
        steps = checkpoints.steps()
    for step in steps:
        params = load_pretrained(tmp_path / "run", str(step)).params
        seen.append(jax.tree.map(np.asarray, params))
    assert steps == list(range(1, 21))
    # The first parameters are not saved: the first average has 0.1 of them.
    loaded = load_pretrained(straight, "last").params
    weights = [1.0]
    for n in range(1, 20):
        keep = min(0.9, (1 + n) / (10 + n))
        weights = [w * keep for w in weights] + [1 - keep]
    averages = jax.tree.map(lambda *x: sum(w * p for w, p in zip(weights, x, strict=True)), *seen)
    assert abs(sum(weights) - 1) < 1e-6
    distance = max(
        float(np.abs(a - b).max()) for a, b in zip(
            jax.tree.leaves(averages), jax.tree.leaves(loaded), strict=True)
    )  # fmt: skip
    last = max(
        float(np.abs(a - b).max()) for a, b in zip(
            jax.tree.leaves(seen[-1]), jax.tree.leaves(loaded), strict=True)
    )  # fmt: skip
    assert distance < 2e-3 < last
    held_out = [[x.get("eval/loss") for x in read_metrics(run) if "eval/loss" in x]
                for run in (straight, tmp_path / "run")]  # fmt: skip
    assert held_out[0] != held_out[1]


@pytest.mark.usefixtures("one_device")
def test_an_average_cannot_come_or_go(store, straight):
    with pytest.raises(UsageError, match=r"train\.average=0\.9"):
        pretrain(tiny(store, SCHEDULED[1]), straight)


def test_the_average_is_the_same_on_another_mesh(store, straight, tmp_path):
    pretrain(tiny(store, *SCHEDULED, "mesh.fsdp=2", "mesh.data=4"), tmp_path / "run")
    one, other = (load_pretrained(path, "last").params for path in (straight, tmp_path / "run"))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=5e-3), one, other)


def test_an_objective_with_a_constant_rate_refuses_another(store):
    with pytest.raises(UsageError, match="constant mask rate"):
        tiny(store, "objective.name=electric", "generator.kind=two_tower",
             "objective.final_mask_rate=0.3")  # fmt: skip
