"""The page and the terminal's tables."""

import json
import math
import os
import re

import pytest

from electra_jax.errors import UsageError
from electra_jax.inference.pretrained import TokenReport
from electra_jax.inference.terminal import render_inspection, render_metrics, render_minimal_pairs
from electra_jax.report import Sample, SampleToken, curves, write_report

LINES = [
    {"step": 1, "seconds": 1.0, "train/loss": 3.0, "train/tokens_per_second": 5000.0},
    {"step": 2, "seconds": 60.0, "train/loss": 2.0, "train/x": None,
     "eval/auc": 0.7, "eval/auc_baseline": 0.5},
]  # fmt: skip


def test_a_page_stands_alone_and_shows_everything(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in LINES) + "{cut")
    (tmp_path / "config.json").write_text('{"data": {"store": "<mine>"}}')
    token = SampleToken("<b>", "cat", True, "<b>", True, 0.875)
    page = write_report(tmp_path, [Sample([token, token])]).read_text()
    assert page.count("<svg") == 3
    for text in ("auc", "tokens_per_second", "&lt;mine&gt;", "&lt;b&gt;", "was cat", "0.88"):
        assert text in page, text
    assert "<b>" not in page and "<mine>" not in page
    assert not re.search(r'(src|href)="http', page)


def test_curves_pair_training_evaluation_and_baseline():
    assert curves(LINES)["auc"] == {"eval": ([2], [0.7]), "eval baseline": ([2], [0.5])}
    assert curves(LINES)["loss"] == {"train": ([1, 2], [3.0, 2.0])}


def test_networks_of_a_metric_share_a_plot(tmp_path):
    values = {"train/learning_rate": 0.1, "train/gradient_norm/encoder": 2.5,
              "train/gradient_norm/head": 1.5}  # fmt: skip
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 1, "seconds": 1.0, **values}))
    page = write_report(tmp_path).read_text()
    assert page.count("<svg") == 2
    for text in ("<td>gradient_norm/encoder", "<td>gradient_norm/head", "<!-- encoder -->", "2.5"):
        assert text in page, text


PAIRS = {
    "step": 1200, "file": "<pairs>.jsonl", "minimal_pairs": 0.625, "minimal_pairs_baseline": 0.5,
    "pairs": 3000, "ties": 4, "phenomena": {"ellipsis": {"paradigms": 2, "accuracy": 0.625}},
    "paradigms": {
        "ellipsis_1": {"phenomenon": "ellipsis", "pairs": 1000, "accuracy": 0.5},
        "ellipsis_2": {"phenomenon": "ellipsis", "pairs": 2000, "accuracy": 0.75},
    },
}  # fmt: skip


def test_a_page_shows_the_minimal_pairs_that_were_scored(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in LINES))
    assert "Minimal pairs" not in write_report(tmp_path).read_text()
    (tmp_path / "minimal_pairs.json").write_text(json.dumps(PAIRS))
    page = write_report(tmp_path).read_text()
    for text in ("62.5%", "&lt;pairs&gt;", "ellipsis_2</td><td class=number>75.0%", "Step 1,200"):
        assert text in page, text


def test_minimal_pairs_in_a_table():
    assert [line.split() for line in render_minimal_pairs(PAIRS).splitlines()[:3]] == [
        ["phenomenon", "paradigms", "accuracy"],
        ["ellipsis", "2", "0.6250"],
        ["mean", "over", "paradigms", "2", "0.6250"],
    ]


def test_a_run_without_metrics_has_no_page(tmp_path):
    with pytest.raises(UsageError, match="nothing to report"):
        write_report(tmp_path)


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


def test_names_that_matplotlib_takes_for_mathematics_are_drawn(tmp_path):
    values = {"train/$x^": 1.0, "train/norm/$a$b$": 2.0, "train/norm/%s\\frac": 2.0}
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 1, "seconds": 1.0, **values}))
    page = write_report(tmp_path).read_text()
    assert page.count("<svg") == 2 and "<td>$x^" in page


@pytest.mark.parametrize("name", ["config.json", "minimal_pairs.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'{"pairs": {}}'])
def test_a_damaged_file_is_named(name, content, tmp_path):
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in LINES))
    (tmp_path / name).write_bytes(content)
    if (name, content) == ("config.json", b'{"pairs": {}}'):
        write_report(tmp_path)
        return
    with pytest.raises(UsageError, match=f"/{name}") as error:
        write_report(tmp_path)
    assert "\n" not in str(error.value)


def test_a_folder_of_a_name_that_is_not_utf8_has_its_page(tmp_path):
    folder = tmp_path / os.fsdecode(b"\xff")
    folder.mkdir()
    (folder / "metrics.jsonl").write_text(json.dumps(LINES[0]))
    assert "\\udcff" in write_report(folder).read_text("utf-8")
