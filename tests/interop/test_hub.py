"""Models of the hub, by a stand-in that keeps them in folders."""

import importlib.util
import shutil

import huggingface_hub
import pytest

from electra_jax.cli import main
from electra_jax.errors import UsageError
from electra_jax.inference.finetuned import load
from electra_jax.inference.pretrained import read_shape
from electra_jax.interop.hub import local_model, push


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Folders by name and revision, behind the functions that are used of the library."""
    root = tmp_path / "hub"

    class Api:
        def create_repo(self, name, private, exist_ok):
            (root / name / ("private" if private else "public")).mkdir(parents=True, exist_ok=True)

        def create_branch(self, name, branch, exist_ok):
            (root / name / branch).mkdir(exist_ok=exist_ok)

        def upload_folder(self, *, repo_id, folder_path, revision, commit_message):
            target = root / repo_id / (revision or "main")
            shutil.copytree(folder_path, target, dirs_exist_ok=True)
            return f"https://hub/{repo_id}"

    def download(name, revision):
        if not (root / name).is_dir():
            raise FileNotFoundError(f"no model {name}")
        return str(root / name / (revision or "main"))

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return root


def test_a_model_is_pushed_with_its_card_and_opened_from_there(hub, encoder_dir, capsys):
    words = ["--push", "me/small", "--revision", "step-0", "--private"]
    card = ["--licence", "apache-2.0", "--language", "en,de"]
    assert main(["export", "--model", str(encoder_dir), *words, *card]) == 0
    assert capsys.readouterr().out == "pushed: https://hub/me/small\n"
    assert (hub / "me/small/private").is_dir() and not (hub / "me/small/main").exists()
    text = (hub / "me/small/step-0/README.md").read_text()
    assert "license: apache-2.0\nlanguage: [en, de]\n" in text and "from_pretrained" in text
    here, there = load(encoder_dir), load("hub:me/small@step-0")
    assert there.config.model.hidden == here.config.model.hidden
    assert read_shape("hub:me/small@step-0")[0].hidden == here.config.model.hidden


def test_mistakes_are_told_in_a_line(hub, monkeypatch, capsys):
    assert main(["export", "--model", "hub:me/none", "--to", "x"]) == 2
    assert "hub:me/none cannot be read from the hub: no model me/none" in capsys.readouterr().err
    assert main(["export", "--model", "x"]) == 2
    assert main(["export", "--model", "x", "--to", "y", "--private"]) == 2
    assert "--push NAME" in capsys.readouterr().err
    assert local_model("runs/small") == "runs/small"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for call in (lambda: local_model("hub:a/b"), lambda: push("x", "a/b")):
        with pytest.raises(UsageError, match=r"pip install '\.\[hub\]'"):
            call()
