"""The page: what stands on it, that it stands alone, and that nothing of a run becomes markup."""

import json
import os
import re
from html.parser import HTMLParser

import pytest

from electra_jax.errors import UsageError
from electra_jax.report import write_report
from electra_jax.reporting.page import inline, printable
from electra_jax.reporting.samples import Sample, SampleToken
from electra_jax.tasks.task import Judgement

LINES = [
    {"step": 1, "seconds": 1.0, "train/loss": 3.0, "train/tokens_per_second": 5000.0},
    {"step": 2, "seconds": 60.0, "train/loss": 2.0, "train/x": None,
     "eval/auc": 0.7, "eval/auc_baseline": 0.5},
]  # fmt: skip
PAIRS = {
    "step": 1200, "file": "<pairs>.jsonl", "minimal_pairs": 0.625, "minimal_pairs_baseline": 0.5,
    "pairs": 3000, "ties": 4, "phenomena": {"ellipsis": {"paradigms": 2, "accuracy": 0.625}},
    "paradigms": {
        "ellipsis_1": {"phenomenon": "ellipsis", "pairs": 1000, "accuracy": 0.5},
        "ellipsis_2": {"phenomenon": "ellipsis", "pairs": 2000, "accuracy": 0.75},
    },
}  # fmt: skip
RESULTS = {
    "step": 2, "metric": "accuracy", "metrics": {"accuracy": 0.75}, "trivial": {"accuracy": 0.25},
    "words": {"accuracy": 0.5}, "rows": {"train": 20, "validation": 4},
}  # fmt: skip
VOID = {"meta", "link", "input", "br"}
# What would be markup, a string's end, another direction, or no text at all.
HOSTILE = (
    "</script><script>alert(1)</script>\"'<img src=x onerror=a>&amp;$x^{{ 7*7 }}"
    "\u202e\u05d0\0\ud800"
)


class Page(HTMLParser):
    """A page as a tree of its elements would be: tags in order, ids, text by tag."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.ids, self.text, self.open = [], [], {}, []
        self.attributes = []
        self.turned = set()  # elements within which the direction of writing turns
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, *attribute) for attribute in attributes]
        self.ids += [value for name, value in attributes if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        tag = self.open[-1] if self.open else ""
        if "\u202e" in data:
            self.turned.add(tag)
        self.text[tag] = self.text.get(tag, "") + data


def write_run(folder, lines=LINES, **files):
    folder.mkdir(exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def read(path):
    return Page(path.read_text("utf-8"))


def shown(page):
    """All that a reader sees."""
    hidden = ("script", "style")
    return " ".join(text for tag, text in page.text.items() if tag not in hidden)


def test_a_page_stands_alone_and_shows_everything(tmp_path):
    run = write_run(tmp_path, config={"data": {"store": "<mine>"}})
    with (run / "metrics.jsonl").open("a") as file:
        file.write("{cut")
    token = SampleToken("<b>", "cat", True, "<b>", True, 0.875)
    page = read(write_report(run, [Sample([token, token])]))
    text = shown(page)
    for part in ("AUC", "tokens_per_second", "<mine>", "<b>", "cat", "88%", "caught", "1 min"):
        assert part in text, part
    assert [tag for tag in page.tags if tag in ("h1", "main", "header", "footer", "nav")] == [
        "header", "h1", "nav", "main", "footer"
    ]  # fmt: skip
    assert len(page.ids) == len(set(page.ids))
    links = [value for _, name, value in page.attributes if name == "href" and value[0] == "#"]
    assert links and {link[1:] for link in links} <= set(page.ids)
    for _, name, value in page.attributes:
        assert name not in ("src", "srcset") and not (name == "href" and "//" in value)


def test_only_scripts_of_the_package_run(tmp_path):
    """The policy names each by its hash, and forbids all that would be loaded."""
    page = read(write_report(write_run(tmp_path)))
    [policy] = [v for tag, name, v in page.attributes if name == "content" and "default-src" in v]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-inline" not in policy.split(";")[1] and policy.count("sha256-") == 2
    assert page.tags.count("script") == 3  # one of them data


def test_the_data_of_the_curves(tmp_path):
    text = write_report(write_run(tmp_path)).read_text()
    [data] = re.findall(r'id="data">(.*?)</script>', text)
    found = json.loads(data)
    assert found["runs"] == [
        {"name": tmp_path.name, "tokens": None, "clock": [[1, 2], [1.0, 60.0]]}
    ]
    by_title = {chart["title"]: chart["curves"] for chart in found["charts"]}
    assert by_title["Loss"] == [
        {"run": 0, "kind": "training", "steps": [1, 2], "values": [3.0, 2.0]}
    ]
    assert [curve["kind"] for curve in by_title["AUC"]] == ["held out", "baseline"]


def hostile_run(folder):
    lines = [
        {"step": 1, "seconds": 1.0, "train/loss": 1.0, f"train/{HOSTILE}": 2.0,
         f"train/norm/{HOSTILE}": 2.0, "warnings": {HOSTILE: HOSTILE}},
        {"step": 2, "seconds": 2.0, f"eval/{HOSTILE}": 3.0, f"eval/{HOSTILE}_baseline": 3.0},
    ]  # fmt: skip
    pairs = {**PAIRS, "file": HOSTILE, "phenomena": {HOSTILE: {"accuracy": 1.0}}}
    results = {**RESULTS, "metric": HOSTILE, "metrics": {HOSTILE: 1.0}, "trivial": {HOSTILE: 0.5}}
    config = {"data": {"store": HOSTILE, HOSTILE: [HOSTILE]}, HOSTILE: HOSTILE}
    return write_run(folder, lines, config=config, minimal_pairs=pairs, results=results)


def test_nothing_of_a_run_becomes_markup(tmp_path):
    run, other = hostile_run(tmp_path / "a"), tmp_path / "\"'<i>$x^{{ 7*7 }}"
    write_run(other)
    token = SampleToken(HOSTILE, HOSTILE, True, HOSTILE, True, 0.9)
    judgement = Judgement(HOSTILE, HOSTILE, "b", False, 0.5, [(HOSTILE, "b")])
    path = write_report(run, [Sample([token])], [judgement], [other])
    page = read(path)
    assert page.tags.count("script") == 3 and not {"img", "i"} & set(page.tags)
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    text = shown(page)
    assert "<script>alert(1)</script>" in text and "$x^{{ 7*7 }}" in text and "49" not in text
    assert "\\ud800" in text and "\0" not in path.read_text("utf-8")
    # What turns the direction of writing does so in an element of its own, or of its own lines.
    assert page.turned <= {"bdi", "p", "pre", "title"}


def test_scripts_and_styles_end_where_they_are_meant_to():
    assert inline("a='</script>';b='</STYLE';c='<!--'") == (
        "a='\\x3c/script>';b='\\x3c/STYLE';c='\\x3c!--'"
    )
    assert printable("a\x00\x85\ud800b") == "a\ufffd\ufffd\\ud800b"


def test_a_page_of_a_fine_tuned_model(tmp_path):
    rows = [("go", "left", "left"), ("no", "right", "left"), ("up", "right", "right")]
    judgements = [
        Judgement(text, gold, answer, gold == answer, 0.75, [(gold, answer)])
        for text, gold, answer in rows
    ]
    config = {"task": {"name": "classification"}}
    page = read(write_report(write_run(tmp_path, config=config, results=RESULTS), (), judgements))
    text = shown(page)
    for part in (
        "Fine-tuning report", "accuracy 0.75 at step 2", "a linear model of its word pieces",
        "the baseline", "3 validation rows", "The worst mistakes", "75.0% certain",
    ):  # fmt: skip
        assert part in text, part
    assert "go" not in text.split("The worst mistakes")[-1].split()


def test_runs_side_by_side(tmp_path):
    lines = [{"step": 1, "seconds": 1.0, "train/loss": 9.0, "eval/auc": 0.25}]
    one = write_run(tmp_path / "one", config={"train": {"seed": 1, "steps": 7}})
    two = write_run(tmp_path / "two", lines, config={"train": {"seed": 2, "steps": 7}})
    path = write_report(one, compare=[two, one])
    text = path.read_text()
    rows = [re.findall(r"<bdi>(.*?)</bdi>", row) for row in re.findall(r"<tr>(.*?)</tr>", text)]
    assert ["metric", "one", "two", "one (2)"] in rows and ["auc", "0.7", "0.25", "0.7"] in rows
    assert ["train.seed", "1", "2", "1"] in rows
    assert "train.steps" not in {row[0] for row in rows if row}
    assert '"kind":"training","steps":[1],"values":[9.0]' in text
    with pytest.raises(UsageError, match="nothing to report"):
        write_report(one, compare=[tmp_path / "none"])


def test_a_page_shows_the_minimal_pairs_that_were_scored(tmp_path):
    assert "Minimal pairs" not in write_report(write_run(tmp_path)).read_text()
    text = shown(read(write_report(write_run(tmp_path, minimal_pairs=PAIRS))))
    for part in ("62.5%", "<pairs>", "ellipsis_2", "75.0%", "Step 1,200"):
        assert part in text, part


def test_a_run_without_metrics_has_no_page(tmp_path):
    with pytest.raises(UsageError, match="nothing to report"):
        write_report(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "minimal_pairs.json", "results.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'{"pairs": {}}'])
def test_a_damaged_file_is_named(name, content, tmp_path):
    write_run(tmp_path)
    (tmp_path / name).write_bytes(content)
    if (name, content) == ("config.json", b'{"pairs": {}}'):
        write_report(tmp_path)
        return
    with pytest.raises(UsageError, match=f"/{name}") as error:
        write_report(tmp_path)
    assert "\n" not in str(error.value)


def test_numbers_that_nobody_counts_to_do_no_harm(tmp_path):
    lines = [
        {"step": 10**300, "seconds": 1.0, "train/loss": 1.0},
        {"step": 7, "seconds": -1e308, "train/loss": 1e308, "train/tokens_per_second": 1e-308},
        {"step": 3, "seconds": 1e308, "train/loss": 10**300, "eval/loss": -1e308},
    ]
    text = shown(read(write_report(write_run(tmp_path, lines))))
    assert "7 steps in an unknown time" in text


def test_a_folder_of_a_name_that_is_not_utf8_has_its_page(tmp_path):
    folder = write_run(tmp_path / os.fsdecode(b"\xff"))
    assert "\\udcff" in write_report(folder).read_text("utf-8")
