"""The terminal's tables."""

import math

from electra_jax.inference.pretrained import TokenReport
from electra_jax.inference.terminal import render_inspection, render_metrics, render_minimal_pairs

PAIRS = {
    "step": 1200, "file": "<pairs>.jsonl", "minimal_pairs": 0.625, "minimal_pairs_baseline": 0.5,
    "pairs": 3000, "ties": 4, "phenomena": {"ellipsis": {"paradigms": 2, "accuracy": 0.625}},
    "paradigms": {
        "ellipsis_1": {"phenomenon": "ellipsis", "pairs": 1000, "accuracy": 0.5},
        "ellipsis_2": {"phenomenon": "ellipsis", "pairs": 2000, "accuracy": 0.75},
    },
}  # fmt: skip


def test_minimal_pairs_in_a_table():
    assert [line.split() for line in render_minimal_pairs(PAIRS).splitlines()[:3]] == [
        ["phenomenon", "paradigms", "accuracy"],
        ["ellipsis", "2", "0.6250"],
        ["mean", "over", "paradigms", "2", "0.6250"],
    ]


def test_inspection_marks_what_looks_replaced():
    tokens = [
        TokenReport("the", 0.1, [("the", 0.9)]),
        TokenReport("kitchen", 0.9, [("type", 0.5), ("value", 0.25)]),
    ]
    plain = render_inspection(tokens, colour=False)
    assert plain.startswith("the [kitchen]\n") and "type 50%, value 25%" in plain
    assert "1 of 2 tokens look replaced; the most suspicious: kitchen (0.900)" in plain
    assert "\033[" not in plain and "\033[30;48;5;196mkitchen" in render_inspection(tokens, True)


def test_metrics_stand_beside_their_baselines():
    text = render_metrics(
        {"step": 1200, "auc": math.nan, "accuracy": 0.5, "accuracy_baseline": 0.25}
    )
    assert [line.split() for line in text.splitlines()] == [
        ["step", "1,200"],
        ["auc", "undefined"],
        ["accuracy", "0.5000", "(baseline", "0.2500)"],
    ]
