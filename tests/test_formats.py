"""What version 0.1 wrote opens, and gives the same answers.

`golden/formats-0.1.tar.xz` holds a token store, a pretraining run, its export and a fine-tuned
model, made by tiny runs of version 0.1, and what that version answered with them. A format that
changes gets an archive of its own; this one stays.
"""

import json
import tarfile
from pathlib import Path

import pytest
from tiny_run import tiny

import electra_jax
from electra_jax.data.token_store import TokenStore
from electra_jax.pretraining.pretrain import pretrain
from electra_jax.training.metrics import read_metrics

ARCHIVE = Path(__file__).parent / "golden" / "formats-0.1.tar.xz"
TEXT = "the cat eats the dog ."


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("formats")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture(scope="module")
def expected(folder):
    return json.loads((folder / "expected.json").read_text())


@pytest.mark.parametrize("name", ["run", "exported"])
def test_pretrained_model_gives_the_same_probabilities(folder, expected, name):
    tokens = electra_jax.load(folder / name).inspect(TEXT)
    assert [token.replaced for token in tokens] == pytest.approx(expected[name], abs=1e-5)


def test_finetuned_model_gives_the_same_answer(folder, expected):
    [answer] = electra_jax.load(folder / "finetuned").predict([TEXT])
    assert answer["scores"] == pytest.approx(expected["finetuned"][0]["scores"], abs=1e-5)


def test_store_opens(folder):
    store = TokenStore.open(folder / "store")
    assert len(store.split("train").tokens) > len(store.split("validation").tokens) > 0


def test_run_resumes(folder, monkeypatch):
    monkeypatch.chdir(folder)
    config = tiny(
        "store", "model.layers=1", "generator.depth=1.0", "train.steps=10",
        "eval.every_steps=10", "checkpoint.every_steps=10",
    )  # fmt: skip
    pretrain(config, folder / "run")  # finished: restored, and nothing left to do
    assert [line["step"] for line in read_metrics(folder / "run") if "eval/loss" in line] == [10]
