"""Checkpoints: what is saved comes back whole, and the best is kept beside the last."""

import json
import logging
import shutil
import signal

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from electra_jax.errors import Stopped, UsageError
from electra_jax.training import records
from electra_jax.training.checkpoint import Checkpoints
from electra_jax.training.checkpoint_errors import one_error
from electra_jax.training.state import TrainState

STATE = TrainState(
    step=jnp.int32(3),
    params={"kernel": jnp.arange(4.0)},
    opt_state={"mu": jnp.arange(4.0) / 8},
    metric_sums={"loss": jnp.float32(7.0)},
    norm_sums={"steps": jnp.float32(2.0), "gradient_norm": {"a": jnp.float32(0.5)}},
)


def test_a_state_comes_back_whole(tmp_path):
    """With the sums since the last line of the log, and the time spent."""
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, STATE, {"elapsed": 5.5})
    with Checkpoints(tmp_path) as checkpoints:
        restored = checkpoints.restore_latest(STATE)
    jax.tree.map(np.testing.assert_array_equal, restored.state, STATE)
    assert (restored.step, restored.record) == (3, {"elapsed": 5.5})


def test_a_state_without_norms_resumes_with_sums_of_no_steps(tmp_path):
    """As version 0.1 saved it."""
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, STATE.replace(norm_sums={}), {"elapsed": 5.5})
    with Checkpoints(tmp_path) as checkpoints:
        restored = checkpoints.restore_latest(STATE)
    zeros = jax.tree.map(jnp.zeros_like, STATE.norm_sums)
    expected = STATE.replace(norm_sums=zeros)
    jax.tree.map(np.testing.assert_array_equal, restored.state, expected)


@pytest.mark.parametrize("part", ["metric_sums", "norm_sums"])
def test_a_state_with_other_sums_resumes_with_sums_of_no_steps(tmp_path, part):
    """As an earlier version saved it: the rest comes back."""
    fewer = {name: value for name, value in getattr(STATE, part).items() if name == "steps"}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, STATE.replace(**{part: {**fewer, "other": jnp.ones(2)}}), {})
    with Checkpoints(tmp_path) as checkpoints:
        restored = checkpoints.restore_latest(STATE)
    zeros = jax.tree.map(jnp.zeros_like, getattr(STATE, part))
    jax.tree.map(np.testing.assert_array_equal, restored.state, STATE.replace(**{part: zeros}))


@pytest.mark.parametrize(("maximise", "best"), [(False, 1), (True, 2)])
def test_the_best_is_kept_beside_the_last(tmp_path, maximise, best):
    with Checkpoints(tmp_path, maximise=maximise) as checkpoints:
        for step, value in ((1, 0.2), (2, 0.9), (3, 0.5)):
            checkpoints.save(step, STATE, {}, {"loss": value})
    with Checkpoints(tmp_path, maximise=maximise, read_only=True) as checkpoints:
        assert (checkpoints.choose("best"), checkpoints.choose("last")) == (best, 3)


def saved(folder, steps=(1, 2), **fields):
    """Checkpoints of states that differ."""
    with Checkpoints(folder, keep=len(steps), **fields) as checkpoints:
        for step in steps:
            checkpoints.save(step, state_at(step), {"elapsed": 1.5 * step}, {"loss": 1.0 / step})
            checkpoints.wait()
    return folder / "checkpoints"


def state_at(step):
    rng = np.random.default_rng(step)
    kernel = jnp.asarray(rng.normal(size=(40, 20)).astype(np.float32))
    return STATE.replace(
        step=jnp.int32(step), params={"kernel": kernel}, opt_state={"mu": kernel / 2}
    )


def restore(workdir):
    with Checkpoints(workdir, keep=2) as checkpoints:
        return checkpoints.restore_latest(state_at(1))


def assert_whole(restored):
    jax.tree.map(np.testing.assert_array_equal, restored.state, state_at(restored.step))
    assert restored.record == {"elapsed": 1.5 * restored.step}


def flip(file, rng):
    content = bytearray(file.read_bytes())
    bit = rng.integers(8 * len(content))
    content[bit // 8] ^= 1 << (bit % 8)
    file.write_bytes(bytes(content))


@pytest.mark.slow
def test_a_flipped_bit_in_any_file_is_noticed_or_harmless(tmp_path, capfd):
    """And nothing but one line of it is seen."""
    rng = np.random.default_rng(0)
    whole = saved(tmp_path / "whole")
    names = [path.relative_to(whole) for path in (whole / "2").rglob("*") if path.is_file()]
    steps = []
    for number, name in enumerate(3 * [name for name in names if (whole / name).stat().st_size]):
        copy = tmp_path / str(number)
        shutil.copytree(tmp_path / "whole", copy)
        flip(copy / "checkpoints" / name, rng)
        restored = restore(copy)
        assert_whole(restored)
        steps.append(restored.step)
    assert 1 in steps and 2 in steps
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("part", ["params", "rest"])
def test_an_array_with_a_flipped_bit_makes_way_for_the_checkpoint_before(tmp_path, part, caplog):
    folder = saved(tmp_path)
    # zstd keeps such noise as it is, and does not notice the bit.
    data = max((folder / "2" / part).rglob("d/*"), key=lambda path: path.stat().st_size)
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 16
    data.write_bytes(bytes(content))
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        if part == "params":
            message = r"checkpoints/2 cannot be read: array params/kernel is not what was saved"
            with pytest.raises(UsageError, match=message + r".* --checkpoint \(1\)"):
                checkpoints.restore_params(2, state_at(1).params)
        jax.tree.map(
            np.testing.assert_array_equal,
            checkpoints.restore_params(1, state_at(1).params), state_at(1).params,
        )  # fmt: skip
    assert_whole(restore(tmp_path))
    assert f"checkpoint 2 cannot be read (array {part}/" in caplog.text
    assert (tmp_path / "unreadable-checkpoints" / "2").is_dir()


@pytest.mark.parametrize("part", ["params", "opt_state"])
def test_a_checkpoint_that_is_not_of_numbers_is_neither_saved_nor_taken(tmp_path, part, caplog):
    saved(tmp_path)
    bad = state_at(3)
    bad = bad.replace(**{part: jax.tree.map(lambda x: x.at[1].set(jnp.nan), getattr(bad, part))})
    with Checkpoints(tmp_path, keep=3) as checkpoints:
        with pytest.raises(records.NotFinite, match=part):
            checkpoints.save(3, bad, {"elapsed": 4.5})
        with pytest.MonkeyPatch.context() as patch:  # as an earlier version did
            patch.setattr(records, "is_learnt", lambda name: False)
            checkpoints.save(3, bad, {"elapsed": 4.5})
    assert_whole(restored := restore(tmp_path))
    assert restored.step == 2 and "has entries that are not numbers" in caplog.text


DAMAGE = [b"", b"[]", b"{}", b"null", b'{"elapsed": 1', b"\xff\xfe{}", b"[" * 100_000, None]


@pytest.mark.parametrize("content", DAMAGE)
def test_a_damaged_record_makes_way_for_the_checkpoint_before(tmp_path, content):
    file = saved(tmp_path) / "2" / "record" / "metadata"
    if content is None:
        file.write_text(file.read_text().replace('"elapsed": 3.0', '"elapsed": 3.1'))
    else:
        file.write_bytes(content)
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        assert checkpoints.choose("best") == 1 and checkpoints.record() == {"elapsed": 1.5}
    assert_whole(restored := restore(tmp_path))
    assert restored.step == 1


@pytest.mark.parametrize("content", [*DAMAGE[:-1], b'{"loss": "low"}', b'{"loss": null}'])
def test_damaged_metrics_of_a_checkpoint_stop_nothing(tmp_path, content):
    (saved(tmp_path) / "2" / "metrics" / "metrics").write_bytes(content)
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        assert checkpoints.choose("best") == 2  # its record has them, too
    assert_whole(restored := restore(tmp_path))
    assert restored.step == 2


def without_digests(folder):
    """Checkpoints as version 0.1 wrote them."""
    for file in folder.glob("*/record/metadata"):
        record = json.loads(file.read_text())
        del record["digests"], record["metrics"], record["checksum"]
        file.write_text(json.dumps(record))


def test_checkpoints_without_digests_are_taken_and_their_metrics_too(tmp_path, caplog):
    folder = saved(tmp_path, (1, 2, 3))
    without_digests(folder)
    (folder / "3" / "metrics" / "metrics").write_text("[")
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        assert checkpoints.choose("best") == 2
    assert "this checkpoint is not taken for the best" in caplog.text
    assert_whole(restored := restore(tmp_path))
    assert restored.step == 3


def test_a_run_has_a_checkpoint_to_fall_back_to_though_the_best_is_the_last(tmp_path):
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, state_at(step), {"elapsed": 1.5 * step}, {"loss": 1.0 / step})
    steps = [path.name for path in (tmp_path / "checkpoints").iterdir() if path.name.isdecimal()]
    assert sorted(steps) == ["2", "3"]


def test_what_a_failed_restore_leaves_behind_stays_silent_after_one_that_does_not_fail(caplog):
    with pytest.raises(OSError), one_error():
        raise OSError
    with one_error():
        pass
    logging.getLogger("asyncio").error("Future exception was never retrieved")
    logging.getLogger("asyncio").error("of another kind")
    assert caplog.messages == ["of another kind"]


def test_a_signal_in_a_restore_is_not_taken_for_damage(tmp_path, monkeypatch):
    saved(tmp_path)

    def stop(*args, **kwargs):
        raise Stopped(signal.SIGTERM, "stopped")

    monkeypatch.setattr(ocp.CheckpointManager, "restore", stop)
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        with pytest.raises(Stopped):
            checkpoints.restore_params(1, STATE.params)
        with pytest.raises(Stopped):
            checkpoints.restore_latest(STATE)
