"""When findings become warnings, and when those are over."""

import json
from unittest import mock

import jax
import pytest
from test_loop import make_loop, toy_state

from electra_jax.report import write_report
from electra_jax.reporting.run_warnings import Warned, warnings
from electra_jax.training.health import LINES, RISEN, Monitor
from electra_jax.training.loop import NonFiniteLoss
from electra_jax.training.metrics import MetricsWriter, read_metrics


def sick(patience):
    """A diagnosis that finds what `ill` says."""
    return lambda metrics: {"x": (f"ill of {metrics['ill']}", patience)} if metrics["ill"] else {}


def course(monitor, ill, rate=0.1, steps=10):
    """The changes that the lines of a run bring, by step."""
    found = {}
    for index, value in enumerate(ill, 1):
        values = {"loss": 1.0, "learning_rate": rate, "ill": value}
        if changes := monitor.observe(index * steps, values):
            found[index * steps] = changes
    return found


def test_a_warning_comes_once_when_it_has_lasted_and_goes_when_it_is_over():
    ill = [0, 1, 0, 1, 1, 1, 1, 0, 1, 0, 0, 0, 0, 1, 1, 1]
    assert course(Monitor(sick(0.0)), ill) == {
        60: {"x": "for 30 steps ill of 1"},
        120: {"x": None},
        160: {"x": "for 30 steps ill of 1"},
    }


@pytest.mark.parametrize(("rate", "step"), [(0.1, 50), (0.05, 100), (10.0, 30)])
def test_a_plateau_may_last_for_steps_times_rate(rate, step):
    """Half the rate, twice the steps; the rate of the first line rises from zero."""
    changes = course(Monitor(sick(4.4)), [1] * 20, rate)
    assert changes == {step: {"x": f"for {step} steps ill of 1"}}


def test_the_slower_of_two_rates_counts():
    monitor = Monitor(sick(4.4))
    values = {"loss": 1.0, "learning_rate": 1.0, "separate_learning_rate": 0.1, "ill": 1}
    steps = [step for step in range(10, 100, 10) if monitor.observe(step, values)]
    assert steps == [50]


def test_a_loss_far_above_its_lowest_is_warned_of():
    monitor = Monitor(lambda metrics: {})
    losses = [9.0, 2.0, 3.9, float("nan"), 4.1, 5.0, 6.0, 7.0]
    found = [monitor.observe(i, {"loss": x, "learning_rate": 1.0}) for i, x in enumerate(losses, 1)]
    assert [i for i, x in enumerate(found, 1) if x] == [7]
    assert "(6, and 2 before)" in found[6][RISEN]


@pytest.mark.parametrize("done", range(1, 9))
def test_a_resumed_run_gives_the_same_warnings(done):
    """A monitor is a function of the lines."""
    ill = [0, 1, 1, 1, 1, 0, 0, 0, 1]
    whole = course(Monitor(sick(2.0), {"a": "b"}), ill)
    lines = [
        {"step": 10 * i, "train/loss": 1.0, "train/learning_rate": 0.1, "train/ill": x}
        for i, x in enumerate(ill[:done], 1)
    ]
    monitor = Monitor(sick(2.0), {"a": "b"}, [*lines, {"step": 10 * done, "eval/loss": 1.0}])
    assert not monitor.start()
    found = {}
    for index, value in enumerate(ill[done:], done + 1):
        changes = monitor.observe(10 * index, {"loss": 1.0, "learning_rate": 0.1, "ill": value})
        found |= {10 * index: changes} if changes else {}
    assert found == {step: x for step, x in whole.items() if step > 10 * done}


def test_warnings_are_on_the_terminal_in_the_metrics_and_in_the_report(tmp_path, caplog):
    caplog.set_level("INFO")
    values = iter([1, 1, 1, 1, 0, 0, 0, 0])
    monitor = Monitor(sick(0.0), {"steep": "<steep>"})
    with MetricsWriter(tmp_path, 0) as writer:
        make_loop(
            8, log_every=1, writer=writer, monitor=monitor,
            summarise=lambda sums: {"loss": 1.0, "ill": next(values)},
        ).run(toy_state(), jax.random.key(0))  # fmt: skip
    lines = read_metrics(tmp_path)
    told = {line["step"]: line["warnings"] for line in lines if "warnings" in line}
    text = f"for {LINES} steps ill of 1"
    assert told == {0: {"steep": "<steep>"}, 3: {"x": text}, 7: {"x": None}}
    assert [record.getMessage() for record in caplog.records] == [
        "step 0: warning: <steep>", f"step 3: warning: {text}", "step 7: over: x"
    ]  # fmt: skip
    assert warnings(lines) == [Warned("steep", "<steep>", 0, None), Warned("x", text, 3, 7)]
    page = write_report(tmp_path).read_text()
    assert "<li>Step 0: <bdi>&lt;steep&gt;</bdi></li>" in page
    assert f"Step 3, over at step 7: <bdi>{text}</bdi>" in page


def test_a_healthy_run_has_no_section_of_warnings(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 1, "seconds": 1, "train/loss": 1}))
    assert 'id="warnings"' not in write_report(tmp_path).read_text()


def test_a_loss_that_is_no_number_is_in_the_log(tmp_path):
    with MetricsWriter(tmp_path, 0) as writer, pytest.raises(NonFiniteLoss):
        make_loop(
            4, log_every=2, writer=writer, summarise=lambda sums: {"loss": float("inf")}
        ).run(toy_state(), jax.random.key(0))  # fmt: skip
    [line] = read_metrics(tmp_path)
    assert line["step"] == 2 and line["train/loss"] is None
    assert "the loss is inf at step 2: a lower learning rate" in line["warnings"]["not_a_number"]


def test_only_the_process_that_writes_warns(caplog):
    monitor = mock.MagicMock()
    make_loop(4, log_every=1, monitor=monitor).run(toy_state(), jax.random.key(0))
    assert not caplog.records
