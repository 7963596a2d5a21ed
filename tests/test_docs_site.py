"""The pages of docs/ as a site, and its notebook run from start to end."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]


def pages(nav) -> set[str]:
    """The files that a navigation names."""
    if isinstance(nav, str):
        return {nav}
    return set().union(*map(pages, nav.values() if isinstance(nav, dict) else nav))


def test_every_page_is_in_the_navigation():
    named = pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    there = {file.name for file in (ROOT / "docs").iterdir() if file.suffix in (".md", ".ipynb")}
    assert named == there


@pytest.mark.full
def test_the_site_builds_without_a_warning(tmp_path):
    """A link that leads nowhere, a page or a function that is gone."""
    pytest.importorskip("material", reason="mkdocs-material is not installed (extra docs)")
    pytest.importorskip("mkdocs_jupyter", reason="mkdocs-jupyter is not installed (extra docs)")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "train_tokenizer" in (tmp_path / "site" / "api" / "index.html").read_text()


@pytest.mark.full
def test_the_notebook_runs(tmp_path, monkeypatch):
    """With seconds of pretraining: what it shows is not judged, only that it is shown."""
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed (extra full)")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed (extra full)")
    import nbformat

    monkeypatch.setenv("NOTEBOOK_BUDGET", "10s")
    monkeypatch.setenv("NOTEBOOK_FOLDER", str(tmp_path / "runs"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(ROOT / "docs" / "notebook.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, timeout=900, kernel_name="python3").execute()
    assert (tmp_path / "runs" / "exported" / "config.json").is_file()
    assert not any(cell.get("outputs") for cell in nbformat.read(
        ROOT / "docs" / "notebook.ipynb", as_version=4).cells)  # fmt: skip
