"""What a run that diverges leaves is run again by the command."""

import csv

import numpy as np
import pytest
from tiny_encoder import WORDS
from tiny_run import make_store, one_device, tiny

from electra_jax import cli
from electra_jax.config import finetune_config, load_config
from electra_jax.data.mixture import Mixture
from electra_jax.finetuning.finetune import finetune
from electra_jax.pretraining.pretrain import pretrain
from electra_jax.training.loop import NonFiniteLoss
from electra_jax.training.replay import read_bundle

pytestmark = pytest.mark.slow


def replayed(folder, capsys):
    assert cli.main(["replay", str(folder)]) == 0
    return capsys.readouterr().out


def test_a_pretraining_step_is_run_again(tmp_path, capsys):
    """The first update is of size zero, as the rate warms up; the second is not."""
    config = tiny(make_store(tmp_path / "store"), "optimizer.learning_rate=1e38",
                  "optimizer.name=adamw", "checkpoint.every_steps=1")  # fmt: skip
    workdir = tmp_path / "run"
    with one_device(), pytest.raises(NonFiniteLoss) as caught:
        pretrain(config, workdir)
    folder = workdir / "not_finite-1"
    assert f"electra-jax replay {folder}" in str(caught.value)
    mixture = Mixture.open(config.data.store)
    batch = mixture.sampler("train", config.data, 16, config.train.seed).batch(1)
    for name, array in read_bundle(folder).batch.items():
        np.testing.assert_array_equal(array, batch[name])
    output = replayed(folder, capsys)
    assert "the first  in the state after it" in output
    assert "as then    the same arrays are not finite after it" in output
    assert "losses     discriminator 0." in output and "params/discriminator/" in output
    file = folder / "batch.npz"
    file.write_bytes(file.read_bytes()[:-90])
    assert cli.main(["replay", str(folder)]) == 2
    assert "batch.npz: it is damaged" in capsys.readouterr().err


def test_a_finetuning_step_is_run_again(encoder_dir, tmp_path, capsys):
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, 5)) for _ in range(80)]
    with (tmp_path / "train.csv").open("w") as file:
        csv.writer(file).writerows([("text", "label"), *((text, text[0]) for text in texts)])
    config = finetune_config(
        load_config("finetune/classification", [
            f"init.from={encoder_dir}", f"task.train={tmp_path / 'train.csv'}", "train.length=16",
            "train.epochs=3", "optimizer.learning_rate=1e38", "train.batch_size=16",
        ])
    )  # fmt: skip
    with one_device(), pytest.raises(NonFiniteLoss):
        finetune(config, tmp_path / "run")
    [folder] = (tmp_path / "run").glob("not_finite-*")
    output = replayed(folder, capsys)
    assert "as then    the same arrays are not finite after it" in output
    assert "losses     task " in output
