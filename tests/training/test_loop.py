"""The clock of several processes, what the loop must not save, its lines and its trace."""

import functools
import itertools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from electra_jax.config import FinetuneTrainConfig
from electra_jax.errors import UsageError
from electra_jax.training import loop, replay
from electra_jax.training.checkpoint import Checkpoints
from electra_jax.training.config import TrainConfig
from electra_jax.training.loop import Clock, Loop
from electra_jax.training.metrics import MetricsWriter, read_metrics
from electra_jax.training.optimizer import OptimizerConfig, learning_rates, make_optimizer
from electra_jax.training.profile import Profiler, parse_steps
from electra_jax.training.state import TrainState
from electra_jax.training.step import make_train_step


@pytest.mark.parametrize("pace", [0.001, 0.5, 20.0])
def test_processes_read_the_clock_together_and_in_time(pace, monkeypatch):
    """At the same steps in each, however their own clocks go, and often enough to end on time."""
    budget, times, reads = 1000.0, [0.0, 0.0], ([], [])
    said = {}
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    for process in range(2):
        step = 0

        def broadcast_from_main(value, process=process):
            reads[process].append(step)  # noqa: B023
            # Process 1 hears what process 0 said at that step, as a float32.
            return said.setdefault(step, float(np.float32(value)))  # noqa: B023

        monkeypatch.setattr(loop, "broadcast_from_main", broadcast_from_main)
        clock = Clock(now=lambda process=process: times[process])
        clock.agree(0, budget)
        while clock.agreed() < budget:
            step += 1
            # The first step compiles; process 1 counts otherwise.
            times[process] += (60 if step == 1 else pace) * (1 + 0.3 * process)
            clock.agree(step, budget)
            assert step < 1.2 * budget / pace + 10
    assert reads[0] == reads[1]
    assert times[0] < budget * (1 + 2 * loop.PRECISION) + 2 * pace
    assert len(reads[0]) < 3 / loop.PRECISION


def test_a_number_that_is_none_is_found():
    tree = {"a": jnp.ones((2, 3)), "b": {"c": jnp.zeros(4)}}
    assert replay.all_finite(tree)
    assert not replay.all_finite({**tree, "b": {"c": jnp.array([1.0, jnp.nan])}})
    assert not replay.all_finite({**tree, "b": {"c": jnp.array([1.0, jnp.inf])}})


def make_loop(steps=4, **fields):
    """A loop that counts its steps and does nothing else."""
    following = jax.jit(
        lambda state: state.replace(
            step=state.step + 1, norm_sums=jax.tree.map(lambda x: x + 1, state.norm_sums)
        )
    )
    defaults = {
        "log_every": 100, "eval_every": 100, "save_every": 100,
        "train_step": lambda state, batch, key, progress: following(state),
        "batches": itertools.count, "evaluate": None, "summarise": lambda sums: {"loss": 0.0},
        "tokens_per_step": 1, "flops_per_token": 1, "peak_flops": None,
        "checkpoints": mock.MagicMock(), "writer": None, "record": {},
    }  # fmt: skip
    return Loop(steps=steps, **{**defaults, **fields})


def toy_state(step=0, **fields):
    return TrainState(jnp.int32(step), {}, {}, {"loss": jnp.zeros(())}, **fields)


@pytest.mark.parametrize("start", [0, 2])
def test_schedule_and_batches_follow_the_step(start):
    """Of a run of 4 steps, from its start or resumed."""
    seen = []
    step = make_loop().train_step

    def train_step(state, batch, key, progress):
        seen.append((batch, float(progress)))
        return step(state, batch, key, progress)

    make_loop(train_step=train_step).run(toy_state(start), jax.random.key(0))
    assert seen == [(step, step / 4) for step in range(start, 4)]


def test_a_round_is_batch_step_log_evaluate_save_stop():
    """Each line is written before the save of its step, and the save has the evaluation's."""
    seen = []
    checkpoints, writer = mock.MagicMock(), mock.MagicMock()
    checkpoints.save = lambda step, state, record, metrics: seen.append(("save", step, metrics))
    writer.write = lambda step, seconds, values, _: seen.append((*{x[:5] for x in values}, step))
    step = make_loop().train_step

    def train_step(state, batch, *rest):
        seen.append(("step", batch))
        return step(state, batch, *rest)

    def enough():
        seen.append(("enough",))
        return True

    make_loop(
        9, log_every=1, save_every=2, eval_every=3, train_step=train_step, enough=enough,
        checkpoints=checkpoints, writer=writer, evaluate=lambda params: {"loss": 0.5},
    ).run(toy_state(), jax.random.key(0))  # fmt: skip
    assert seen == [
        ("step", 0),
        ("step", 1), ("train", 1), ("train", 2), ("save", 2, None),
        ("step", 2), ("train", 3), ("eval/", 3), ("save", 3, {"loss": 0.5}), ("enough",),
    ]  # fmt: skip


def test_lines_have_the_rates_and_norms_of_their_steps(tmp_path):
    """The rate is that of the line's last update; norms are means over the line's steps."""
    config = OptimizerConfig(
        name="muon", learning_rate=0.5, muon_learning_rate=2.0, warmup_steps=3,
        separate="a", separate_learning_rate=0.25,
    )  # fmt: skip
    sums = {"steps": jnp.zeros(()), "gradient_norm": {"a": jnp.zeros(())}}
    sums["update_norm"] = {"a": jnp.float32(8.0)}  # of steps before
    with MetricsWriter(tmp_path, 0) as writer:
        make_loop(
            10, log_every=4, writer=writer,
            learning_rates=functools.partial(learning_rates, config),
        ).run(toy_state(norm_sums=sums), jax.random.key(0))  # fmt: skip
    lines = read_metrics(tmp_path)
    assert [line["step"] for line in lines] == [4, 8, 10]
    for line in lines:
        done = line["step"] - 1
        factor = min(1, done / 3) * (1 - done / 10)
        assert line["train/learning_rate"] == pytest.approx(0.5 * factor)
        assert line["train/muon_learning_rate"] == pytest.approx(2.0 * factor)
        assert line["train/separate_learning_rate"] == pytest.approx(0.25 * factor)
        assert line["train/gradient_norm/a"] == 1
    assert [line["train/update_norm/a"] for line in lines] == [3, 1, 1]


@pytest.mark.filterwarnings("ignore:builtin type event_stats")
@pytest.mark.parametrize(
    ("start", "steps", "traced"),
    [(0, 8, ["2", "3", "4"]), (3, 8, ["3", "4"]), (0, 4, ["2", "3"]), (5, 8, []), (0, 2, [])],
)
def test_a_trace_has_the_steps_it_is_asked_for(start, steps, traced, tmp_path):
    """Also of a run that resumes or ends within them; one past them writes nothing."""
    profiler = Profiler(tmp_path, parse_steps("2:5"))
    make_loop(steps, profiler=profiler).run(toy_state(start), jax.random.key(0))
    if not traced:
        assert not list(tmp_path.iterdir())
        return
    assert [path.name for path in tmp_path.iterdir()] == ["profile"]
    [trace] = tmp_path.rglob("*.xplane.pb")
    found = jax.profiler.ProfileData.from_file(str(trace))
    events = [e for plane in found.planes for line in plane.lines for e in line.events]
    steps = [dict(e.stats)["step_num"] for e in events if e.name == "train"]
    assert sorted(map(str, steps)) == traced


def test_a_trace_that_cannot_be_written_ends_no_run(tmp_path, caplog):
    (tmp_path / "profile").write_text("mine")
    profiler = Profiler(tmp_path, parse_steps("1:2"))
    state = make_loop(profiler=profiler).run(toy_state(), jax.random.key(0))
    assert int(state.step) == 4 and "no trace can be written" in caplog.text


@pytest.mark.parametrize("text", ["100", "5:5", "7:5", "-1:5", "a:b", "1:2:3", ":", "1:"])
def test_senseless_steps_to_trace_are_refused(text):
    with pytest.raises(UsageError, match="train.profile=.* is not START:STOP; write 100:110"):
        TrainConfig(profile=text)
    with pytest.raises(UsageError, match="train.profile"):
        FinetuneTrainConfig(profile=text)
    assert TrainConfig(profile="100:110").profile == "100:110"


def diverging_loop(folder, bad_step, steps=9, **fields):
    """A real loop of a parameter that is no number after the step with this number."""

    @jax.jit
    def train_step(state, batch, key, progress):
        value = jnp.where(batch["rows"][0] == bad_step, jnp.nan, batch["rows"][0].astype(float))
        loss = state.metric_sums["loss"] + value
        return state.replace(
            step=state.step + 1, params={"w": state.params["w"] + value}, metric_sums={"loss": loss}
        )

    def batches(step):
        return ({"rows": jnp.arange(number, number + 2)} for number in itertools.count(step))

    def first_state():
        return TrainState(jnp.int32(0), {"w": jnp.zeros(2)}, {}, {"loss": jnp.zeros(())})

    checkpoints = Checkpoints(folder)
    looping = make_loop(
        steps, train_step=train_step, batches=batches, checkpoints=checkpoints, log_every=4,
        summarise=lambda sums: {"loss": float(sums["loss"])}, first_state=first_state, **fields,
    )  # fmt: skip
    # Of this test, and not of the loop: its toy batches are made on the host.
    with mock.patch.object(jax, "transfer_guard_host_to_device", lambda _: mock.MagicMock()):
        looping.run(first_state(), jax.random.key(3))


@pytest.mark.parametrize(("bad_step", "kept"), [(1, False), (6, True), (7, True)])
def test_the_first_step_that_is_not_finite_is_found_and_left_to_be_run_again(
    bad_step, kept, tmp_path
):
    """Before the first checkpoint and after it; at a line of the log and between two."""
    with pytest.raises(loop.NonFiniteLoss) as caught:
        diverging_loop(tmp_path, bad_step, save_every=3)
    folder = tmp_path / f"not_finite-{bad_step}"
    assert ("the last good checkpoint is kept" in str(caught.value)) == kept
    assert f"electra-jax replay {folder}" in str(caught.value)
    bundle = replay.read_bundle(folder)
    assert bundle.step == bad_step and bundle.content["not_finite_after"] == ["params/w"]
    assert bundle.content["not_finite_before"] == []
    assert bundle.batch["rows"].tolist() == [bad_step, bad_step + 1]
    total = sum(range(bad_step))
    assert bundle.content["norms"]["w"] == pytest.approx(2**0.5 * total)
    with Checkpoints(folder, read_only=True) as checkpoints:
        params = checkpoints.restore_params(bad_step, {"w": jnp.zeros(2)})
    assert params["w"].tolist() == [total, total]


def test_a_bundle_that_cannot_be_written_hides_no_reason(tmp_path, caplog):
    (tmp_path / "not_finite-1").write_text("mine")
    with pytest.raises(loop.NonFiniteLoss, match="is not a number at step 3"):
        diverging_loop(tmp_path, 1, save_every=3)
    assert "nothing could be left to run the step again" in caplog.text


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"version": 1, "step": 6}'])
def test_a_damaged_bundle_is_refused_in_one_line(content, tmp_path):
    (tmp_path / replay.BUNDLE_FILE).write_bytes(content)
    with pytest.raises(UsageError, match="bundle.json"):
        replay.read_bundle(tmp_path)


class Fussy:
    """An objective whose loss is w · x, and w of no number where x is none."""

    def prepare(self, batch, key):
        return dict(batch)

    def counts(self, prepared):
        return {"loss": jnp.float32(1)}

    def losses(self, params, prepared, key, step, train):
        loss = (params["w"] * prepared["x"]).sum()
        return {"loss": loss}, {"loss": loss}

    def weights(self, step):
        return {"loss": 1.0}


def skipping(batches, may_skip):
    """The states after steps on batches, some of which are not finite."""
    optimizer = make_optimizer(OptimizerConfig(clip=0.0, warmup_steps=0, learning_rate=0.1))
    step = make_train_step(Fussy(), optimizer, skip_non_finite=bool(may_skip))
    params = {"w": jnp.ones(2)}
    state = TrainState.create(params, optimizer, {"loss": jnp.zeros(())}, bool(may_skip))
    compiled = jax.jit(step)
    states = []
    for x in batches:
        state = compiled(state, {"x": jnp.array([x, 1.0])}, jax.random.key(0), jnp.float32(0.1))
        states.append(state)
    assert compiled._cache_size() == 1
    return states


def test_a_step_that_is_not_finite_is_skipped_and_counted():
    nan, inf = float("nan"), float("inf")
    without = skipping([1.0, 2.0, 3.0], may_skip=0)
    states = skipping([1.0, nan, inf, 2.0, nan, 3.0], may_skip=2)
    last = states[-1]
    for name in ("params", "opt_state", "metric_sums"):
        jax.tree.map(np.testing.assert_array_equal, getattr(last, name), getattr(without[-1], name))
    assert int(last.step) == 6
    counts = {name: int(count) for name, count in last.norm_sums["skipped"].items()}
    assert counts == {"steps": 3, "in_row": 0, "longest": 2}
    assert loop.mean_norms(jax.device_get(last.norm_sums)) == loop.mean_norms(
        jax.device_get(without[-1].norm_sums)
    )
    counts = states[2].reset_metrics().norm_sums["skipped"]
    assert {name: int(count) for name, count in counts.items()} == {
        "steps": 0, "in_row": 2, "longest": 0,
    }  # fmt: skip
    assert "skipped" not in without[-1].norm_sums


@pytest.mark.parametrize("may_skip", [2, 3])
def test_a_run_ends_where_too_many_steps_in_a_row_are_skipped(may_skip, tmp_path):
    """Also where no step of a line of the log is left."""
    bad = [0, 0, 1, 1, 1, 0, 0, 0]
    optimizer = make_optimizer(OptimizerConfig(clip=0.0, warmup_steps=0, learning_rate=0.1))
    train_step = jax.jit(make_train_step(Fussy(), optimizer, skip_non_finite=True))
    state = TrainState.create({"w": jnp.ones(2)}, optimizer, {"loss": jnp.zeros(())}, True)
    xs = [{"x": jnp.array([jnp.nan if b else 1.0, 1.0])} for b in bad]
    with MetricsWriter(tmp_path, 0) as writer:
        looping = make_loop(
            8, train_step=train_step, batches=lambda step: iter(xs[step:]), writer=writer,
            log_every=2, may_skip=may_skip, summarise=lambda sums: {"loss": float(sums["loss"])},
        )  # fmt: skip
        if may_skip == 2:
            with pytest.raises(loop.NonFiniteLoss, match="3 steps in a row were not finite"):
                looping.run(state, jax.random.key(0))
        else:
            looping.run(state, jax.random.key(0))
    lines = [line for line in read_metrics(tmp_path) if "train/skipped_steps" in line]
    counts = [line["train/skipped_steps"] for line in lines]
    assert counts == ([0, 2, 1] if may_skip == 2 else [0, 2, 1, 0])
    assert "train/loss" not in lines[1] and "train/loss" in lines[0]
