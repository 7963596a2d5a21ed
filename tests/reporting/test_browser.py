"""The page in a real browser: it draws, is reached by keyboard, and fits phones and readers.

Needs playwright, axe-playwright-python (extra `full`) and an installed Chromium.
"""

import json
import math
import shutil

import pytest

from electra_jax.report import write_report
from electra_jax.reporting.samples import Sample, SampleToken
from electra_jax.tasks.task import Judgement

pytestmark = pytest.mark.full

SCHEMES = pytest.mark.parametrize("scheme", ["light", "dark"])
WIDTHS = pytest.mark.parametrize("width", [400, 1280])


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no Chromium is installed (apt install chromium)")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A page of a pretraining run beside another, and one of a fine-tuning run."""
    folder = tmp_path_factory.mktemp("runs")
    config = {"version": 1, "data": {"length": 64}, "model": {"vocab_size": 1000}}
    lines = []
    for n in range(1, 401):
        loss = 7 * math.exp(-n / 200) + math.sin(n) / 4
        lines.append({
            "step": n, "seconds": n * 1.5, "train/loss": loss, "train/generator_masked_loss": loss,
            "train/generator_masked_loss_baseline": 6.0, "train/learning_rate": 1e-3 / n,
            "train/gradient_norm/generator": 1.0, "train/gradient_norm/discriminator": 2 + 1 / n,
        })  # fmt: skip
        if n % 100 == 0:
            lines.append({"step": n, "seconds": n * 1.5, "eval/loss": loss + 0.1,
                          "eval/discriminator_auc": 0.5 + n / 1000,
                          "eval/generator_accuracy": 0.2, "eval/generator_accuracy_baseline": 0.1,
                          "warnings": {"loss_risen": "the <loss> rose" * 9}})  # fmt: skip
    for name in ("pretrained", "another", "tuned"):
        (folder / name).mkdir()
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / name / "metrics.jsonl").write_text(text)
        (folder / name / "config.json").write_text(json.dumps(config))
    tuned = folder / "tuned"
    (tuned / "config.json").write_text(json.dumps({"task": {"name": "classification"}}))
    metrics = {"accuracy": 0.75, "macro_f1": 0.5}
    (tuned / "results.json").write_text(
        json.dumps({"step": 4, "metric": "accuracy", "metrics": metrics, "trivial": metrics})
    )
    labels = [f"a rather long label {n}" for n in range(8)]
    judged = [
        Judgement("words " * 30, one, other, one == other, 0.9, [(one, other)])
        for one in labels for other in labels[:3]
    ]  # fmt: skip
    tokens = [
        SampleToken(f"word{n}", f"other{n}", n % 3 == 0, f"word{n}", n % 6 == 0, n / 60)
        for n in range(60)
    ]
    pretrained = folder / "pretrained"
    return {
        "pretraining": write_report(pretrained, [Sample(tokens)], (), [folder / "another"]),
        "fine-tuning": write_report(tuned, (), judged),
    }


def opened(browser, path, width=1280, scheme="light"):
    """The page in a window, and what its scripts complain of."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
    )
    page = context.new_page()
    page.set_default_timeout(120_000)
    said = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: said.append(request.url))
    page.goto(path.as_uri())
    page.wait_for_selector("canvas")
    return page, [text for text in said if text not in (path.as_uri(), "data:,")]


@SCHEMES
@WIDTHS
@pytest.mark.parametrize("kind", ["pretraining", "fine-tuning"])
def test_pages_fit_and_are_accessible(browser, pages, kind, width, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page, said = opened(browser, pages[kind], width, scheme)
    assert not said
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true })")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    found = axe.Axe().run(page).response["violations"]
    assert not [(one["id"], one["nodes"][0]["html"]) for one in found]
    page.context.close()


def test_controls_work_by_keyboard(browser, pages):
    page, said = opened(browser, pages["pretraining"])
    drawn = page.locator(".chart").filter(has_text="Learning rate").locator("canvas")
    before = drawn.evaluate("(canvas) => canvas.toDataURL()")
    page.focus("#smoothing")
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    assert page.text_content("#smoothing-value") == "0.1"
    page.wait_for_timeout(200)
    smoothed = drawn.evaluate("(canvas) => canvas.toDataURL()")
    assert smoothed != before

    page.focus("[name=axis][value=steps]")
    page.keyboard.press("ArrowRight")
    assert page.is_checked("[name=axis][value=tokens]")
    page.wait_for_timeout(200)
    assert drawn.evaluate("(canvas) => canvas.toDataURL()") != smoothed
    at = page.locator(".chart .at").first
    assert at.text_content() == "3.28M tokens"  # 400 steps of 128 rows of 64

    chart = page.locator(".chart").filter(has_text="Generator accuracy").first
    chart.locator(".plot").focus()
    page.keyboard.press("Home")
    status = chart.locator("[role=status]")
    assert "819k tokens: pretrained, held out 0.2" in status.text_content()
    page.keyboard.press("Escape")
    assert status.text_content() == ""

    button = chart.locator(".legend button").first
    button.focus()
    page.keyboard.press("Enter")
    assert button.get_attribute("aria-pressed") == "false"
    assert not said
    page.context.close()


def test_curves_follow_the_colour_scheme(browser, pages):
    page, _ = opened(browser, pages["fine-tuning"])
    key = page.locator(".legend path").first
    light = key.get_attribute("stroke")
    page.emulate_media(color_scheme="dark")
    page.wait_for_timeout(300)
    assert key.get_attribute("stroke") != light
    page.context.close()
