"""Vectors are made as sentence-transformers' files say, at import and after an export."""

import json
import logging
import shutil

import numpy as np
import pytest

from electra_jax import load
from electra_jax.exchange import export_model, import_model
from electra_jax.interop.sentence_transformers import (
    SentenceVectors,
    read_sentence_vectors,
    write_sentence_vectors,
)

TEXTS = ["the cat sat", "a dog ran over the old bridge"]


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_what_is_written_is_read(pooling, tmp_path):
    write_sentence_vectors(tmp_path, SentenceVectors(pooling, 100), 16)
    assert read_sentence_vectors(tmp_path) == (pooling, 100)
    modules = json.loads((tmp_path / "modules.json").read_text())
    assert [module["path"] for module in modules] == ["", "1_Pooling", "2_Normalize"]


def test_a_folder_without_such_files_says_nothing_and_gets_none(tmp_path):
    write_sentence_vectors(tmp_path, SentenceVectors("", 100), 16)
    assert not list(tmp_path.iterdir()) and read_sentence_vectors(tmp_path) == ("", 0)


@pytest.mark.parametrize(
    ("content", "pooling", "warned"),
    [
        ({"pooling_mode": "cls"}, "cls", False),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls", False),
        ({"pooling_mode_max_tokens": True}, "", True),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, "", True),
        ({"pooling_mode": "lasttoken"}, "", True),
    ],
)
def test_pooling_is_followed_or_warned_of(content, pooling, warned, tmp_path, caplog):
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(content))
    with caplog.at_level(logging.WARNING):
        assert read_sentence_vectors(tmp_path).pooling == pooling
    assert bool(caplog.messages) == warned


def test_modules_that_are_left_out_are_warned_of(tmp_path, caplog):
    write_sentence_vectors(tmp_path, SentenceVectors("mean", 100), 16)
    modules = json.loads((tmp_path / "modules.json").read_text())
    modules.append({"type": "sentence_transformers.models.Dense", "path": "3_Dense"})
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    with caplog.at_level(logging.WARNING):
        read_sentence_vectors(tmp_path)
    assert "has a module Dense" in caplog.text


@pytest.mark.slow
def test_vectors_are_those_of_the_files_after_import_and_export(encoder_dir, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(encoder_dir, folder)
    before = load(folder).embed(TEXTS)
    write_sentence_vectors(folder, SentenceVectors("cls", 12), 16)
    expected = load(folder).embed(TEXTS, "cls")
    assert not np.allclose(before, expected, atol=1e-3)
    assert load(folder).config.data.length == 12
    import_model(folder, tmp_path / "run")
    export_model(tmp_path / "run", tmp_path / "out")
    for path in (folder, tmp_path / "run", tmp_path / "out"):
        np.testing.assert_allclose(load(path).embed(TEXTS), expected, atol=1e-6)
