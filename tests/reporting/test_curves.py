"""Lines of a log become curves; long ones are thinned and keep their spikes."""

import math

import pytest

from electra_jax.reporting.curves import curves, groups, table, thin, title
from electra_jax.reporting.numbers import compact, duration, number, percent
from electra_jax.reporting.run import Run

LINES = [
    {"step": 1, "seconds": 1.0, "train/loss": 3.0, "train/tokens_per_second": 5000.0},
    {"step": 2, "seconds": 60.0, "train/loss": 2.0, "train/x": None,
     "eval/auc": 0.7, "eval/auc_baseline": 0.5},
]  # fmt: skip


def test_curves_pair_training_evaluation_and_baseline():
    assert curves(LINES)["auc"] == {"eval": ([2], [0.7]), "eval baseline": ([2], [0.5])}
    assert curves(LINES)["loss"] == {"train": ([1, 2], [3.0, 2.0])}
    assert curves([*LINES, {"step": 2, "train/loss": 1.0}])["loss"]["train"] == ([1, 2], [3.0, 1.0])


def test_networks_of_a_metric_share_a_chart_and_so_do_runs():
    values = {"train/learning_rate": 0.1, "train/gradient_norm/encoder": 2.5,
              "train/gradient_norm/head": 1.5}  # fmt: skip
    run = Run("a", [{"step": 1, "seconds": 1.0, **values}], {})
    found = groups([run, run])
    assert list(found) == ["Learning rate and gradients"]
    charts = {chart.metric: chart.curves for chart in found["Learning rate and gradients"]}
    assert [(c.run, c.kind, c.values) for c in charts["gradient_norm"]] == [
        (0, "encoder", [2.5]), (0, "head", [1.5]), (1, "encoder", [2.5]), (1, "head", [1.5])
    ]  # fmt: skip
    assert len(charts) == 2


@pytest.mark.parametrize("size", [5, 1000, 1001, 1999, 123_457])
def test_long_curves_are_thinned_and_keep_ends_and_spikes(size):
    values = [math.sin(i / 9) for i in range(size)]
    values[size // 3], values[size // 2] = 100.0, -100.0
    steps, kept = thin(list(range(size)), values)
    assert len(steps) <= 1000 and steps == sorted(set(steps))
    assert (steps[0], steps[-1]) == (0, size - 1) and {100.0, -100.0} <= set(kept)
    assert [values[step] for step in steps] == kept


def test_a_table_has_the_figures_of_a_chart():
    lines = [{"step": n, "seconds": 1.0, "train/loss": float(n)} for n in range(1, 101)]
    lines.append({"step": 50, "seconds": 1.0, "eval/loss": 0.5})
    [chart] = groups([Run("a", lines, {})])["Losses"]
    found = table(chart, ["a"])
    assert found.head == ["training", "held out"]
    assert found.rows[0] == (1, [1.0, None]) and found.rows[-1] == (100, [100.0, 0.5])
    assert len(found.rows) == 16


def test_numbers_are_as_people_read_them():
    assert [number(x) for x in (0, 1234567.0, 0.00001234, math.nan, 1e300, None)] == [
        "0", "1,234,567", "1.23e-05", "–", "1e+300", "–"
    ]  # fmt: skip
    assert [compact(x) for x in (12, 2_048_000, 3e9)] == ["12", "2.05M", "3B"]
    assert [duration(x) for x in (7, 90, 3599, 3600, 1e5, 1e6, math.inf)] == [
        "7 s", "1 min 30 s", "1 h", "1 h", "27 h 47 min", "11 days 13 h", "an unknown time"
    ]  # fmt: skip
    assert percent(0.1234) == "12.3%"
    assert title("discriminator_auc") == "Discriminator AUC"
