"""Stores are compared with their checksums before a run reads them, or while it does."""

import threading
import time

import pytest
from tiny_run import make_store, tiny

from electra_jax.cli import main
from electra_jax.data import verification
from electra_jax.data.token_store import TokenStore
from electra_jax.data.verification import Verification
from electra_jax.errors import UsageError
from electra_jax.pretraining.pretrain import pretrain
from electra_jax.training.metrics import read_metrics


@pytest.fixture
def damaged(tmp_path):
    """A store with another id of the vocabulary in it, which checksums alone tell."""
    store = make_store(tmp_path / "store")
    file = store / "train" / "tokens.npy"
    content = bytearray(file.read_bytes())
    content[2001 * 2] ^= 1
    file.write_bytes(content)
    return store


def wait_for(verification, seconds=30):
    end = time.monotonic() + seconds
    while verification._thread.is_alive() and time.monotonic() < end:
        time.sleep(0.01)


def test_a_small_store_is_compared_before_the_first_step(damaged, tmp_path):
    with pytest.raises(UsageError, match="tokens.npy is damaged"):
        pretrain(tiny(damaged), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_large_store_is_compared_in_the_background(damaged, monkeypatch):
    monkeypatch.setattr(verification, "AT_ONCE", 0)
    with Verification([TokenStore.open(damaged)]) as found:
        wait_for(found)
        with pytest.raises(UsageError, match=r"tokens.npy is damaged.* resume from a checkpoint"):
            found.check()


@pytest.mark.slow
@pytest.mark.usefixtures("one_device")
def test_a_run_on_a_damaged_large_store_stops_with_what_was_saved(damaged, tmp_path, monkeypatch):
    monkeypatch.setattr(verification, "AT_ONCE", 0)
    started, run = threading.Event(), Verification._run
    monkeypatch.setattr(Verification, "_run", lambda self: (started.wait(), run(self))[-1])
    check, steps = Verification.check, []

    def check_late(self):
        """The thread reads after the seventh step, and has ended by the eighth."""
        steps.append(len(steps) + 1)
        if len(steps) == 7:
            started.set()
            wait_for(self)
        check(self)

    monkeypatch.setattr(Verification, "check", check_late)
    with pytest.raises(UsageError, match="tokens.npy is damaged"):
        pretrain(tiny(damaged), tmp_path / "run")
    assert steps[-1] == 7 and [x["step"] for x in read_metrics(tmp_path / "run")] == [5]


def test_reading_ends_with_the_run(damaged, monkeypatch):
    monkeypatch.setattr(verification, "AT_ONCE", 0)
    monkeypatch.setattr(TokenStore, "verify", lambda self, seen: [seen(1) for _ in iter(int, 1)])
    with Verification([TokenStore.open(damaged)]) as found:
        assert found._thread.is_alive()
        found.check()
    assert not found._thread.is_alive()


def test_the_command_names_the_damaged_file(damaged, tmp_path, capsys):
    whole = make_store(tmp_path / "whole")
    assert main(["verify", str(whole)]) == 0
    output = capsys.readouterr().out
    assert output.count("\n") == 1 and "4 files" in output and "GB/s" in output
    for path, named in ((damaged, "train/tokens.npy"), (tmp_path, "neither a token store")):
        assert main(["verify", str(path)]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and named in error


@pytest.mark.slow
@pytest.mark.usefixtures("one_device")
def test_the_command_loads_the_model_of_every_checkpoint(tmp_path, capsys):
    store = make_store(tmp_path / "store")
    pretrain(tiny(store), tmp_path / "run")
    assert main(["verify", str(tmp_path / "run")]) == 0
    assert "the models of checkpoints" in capsys.readouterr().out
    file = tmp_path / "run" / "tokenizer" / "vocab.txt"
    file.write_bytes(file.read_bytes()[:-9])
    assert main(["verify", str(tmp_path / "run")]) == 2
    assert "tokenizer" in capsys.readouterr().err
