"""The lines of a run's log, and that no log is worth a run."""

import errno
import logging
import os
from pathlib import Path

import pytest
from tensorboardX import record_writer

from electra_jax.training import trackers
from electra_jax.training.metrics import DAMAGED_FILE, METRICS_FILE, MetricsWriter, read_metrics


def test_lines_past_the_checkpoint_are_written_again(tmp_path):
    """And not twice: the run that is resumed reaches their steps once more."""
    for start, steps in ((0, (5, 10, 15)), (10, (15, 20))):
        with MetricsWriter(tmp_path, start) as writer:
            for step in steps:
                writer.write(step, 0.0, {"train/loss": start + step})
    lines = [(line["step"], line["train/loss"]) for line in read_metrics(tmp_path)]
    assert lines == [(5, 5), (10, 10), (15, 25), (20, 30)]


GOOD = [b'{"step": 1, "seconds": 0.5, "train/loss": 3.0}', b'{"step": 2, "seconds": 1.0}']
BAD = [
    b'{"step": 1, "train/loss": 3.', b"[1]", b"null", b"\xff\xfe", b'{"seconds": 1}',
    b'{"step": "2"}', b'{"step": true}', b'{"step": 1.5}', b'{"step": null}', b'{"step": -1}',
    b"[" * 100_000, b"\0" * 40,
]  # fmt: skip


@pytest.mark.parametrize("bad", BAD, ids=range(len(BAD)))
def test_a_damaged_line_costs_no_other(bad, tmp_path, caplog):
    (tmp_path / METRICS_FILE).write_bytes(b"\n".join([GOOD[0], bad, GOOD[1], b'{"step": 3, "cut']))
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2]
    assert "1 damaged lines are left out" in caplog.text
    caplog.clear()
    with MetricsWriter(tmp_path, 2) as writer:
        writer.write(3, 1.0, {"train/loss": 1.0})
    assert (tmp_path / DAMAGED_FILE).read_bytes() == bad + b"\n"
    assert caplog.text.count("damaged lines") == 1 and DAMAGED_FILE in caplog.text
    caplog.clear()
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 3]
    assert (tmp_path / METRICS_FILE).read_bytes().startswith(b"\n".join(GOOD) + b"\n")
    assert not caplog.text


def test_values_of_the_wrong_kind_are_left_out(tmp_path):
    line = (
        '{"step": 1, "seconds": "x", "train/a": NaN, "train/b": Infinity, "train/c": "1",'
        ' "train/d": [1], "train/e": true, "train/f": 1%s, "train/g": 2.5,'
        ' "warnings": {"x": 1, "y": "text", "z": null}}'
    ) % ("0" * 400)
    (tmp_path / METRICS_FILE).write_text(f'{line}\n{{"step": 2, "warnings": [1]}}\n')
    none = {"train/a": None, "train/b": None, "train/f": None}
    first = {"step": 1, "seconds": 0.0, "train/g": 2.5, "warnings": {"y": "text", "z": None}}
    assert read_metrics(tmp_path) == [{**first, **none}, {"step": 2, "seconds": 0.0}]


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["folder", "pipe"])
def test_a_log_that_cannot_be_is_no_reason_to_stop(make, tmp_path, caplog):
    make(tmp_path / METRICS_FILE)
    make(tmp_path / trackers.TENSORBOARD)
    with MetricsWriter(tmp_path, 0) as writer:
        for step in range(3):
            writer.write(step, 0.0, {"train/loss": 1.0})
    assert caplog.text.count("cannot be read") == 1
    assert caplog.text.count("cannot be written") <= 2


def test_lines_wait_for_a_full_disk(tmp_path, monkeypatch, caplog):
    """And the half of a line that was written is taken back."""
    caplog.set_level(logging.INFO)
    writer = MetricsWriter(tmp_path, 0)
    writer.write(1, 0.0, {"train/loss": 1.0})
    real, full = os.write, []

    def write(descriptor, content):
        if full and descriptor != 2:
            full.append(real(descriptor, content[:5]))
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, content)

    monkeypatch.setattr(os, "write", write)
    full.append(0)
    for step in (2, 3):
        writer.write(step, 0.0, {"train/loss": 1.0})
    assert len(full) == 3
    assert [line["step"] for line in read_metrics(tmp_path)] == [1]
    full.clear()
    writer.write(4, 0.0, {"train/loss": 1.0})
    writer.__exit__()
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 3, 4]
    assert (tmp_path / METRICS_FILE).read_bytes().count(b"\n") == 4
    assert caplog.text.count("No space left") == 1 and "written again" in caplog.text


def test_tensorboard_that_fails_is_given_up_and_nothing_waits_for_it(tmp_path, monkeypatch, caplog):
    """Its queue was full after ten events, once its thread had died."""
    failed = []

    def write(self, data):
        failed.append(1)
        raise OSError(errno.ENOSPC, "No space left on device")

    with MetricsWriter(tmp_path, 0) as writer:
        writer.write(1, 0.0, {"train/loss": 1.0})
        monkeypatch.setattr(record_writer.RecordWriter, "write", write)
        for step in range(2, 200):
            writer.write(step, 0.0, {"train/loss": 1.0}, {"name": None})
    assert len(failed) == 1
    assert caplog.text.count("the run goes on without it") == 1
    assert len(read_metrics(tmp_path)) == 199


def test_tensorboard_shows_what_was_written(tmp_path):
    loader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="tensorboard is not installed, which would read the events back",
    )
    for start in (0, 2):
        with MetricsWriter(tmp_path, start) as writer:
            for step in range(start + 1, 4):
                values = {"train/loss": start + step, "eval/x": float("nan")}
                writer.write(step, 0.0, values, {"name": "what"})
    shown = loader.EventAccumulator(str(tmp_path / trackers.TENSORBOARD))
    shown.Reload()
    events = [(event.step, event.value) for event in shown.Scalars("train/loss")]
    assert events == [(1, 1), (2, 2), (3, 5)]
    assert shown.Tags()["tensors"] == ["warnings/name/text_summary"]
