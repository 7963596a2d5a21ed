"""Checkpoints of the official code, written here with its names."""

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from tiny_model import make_params

from electra_jax import cli
from electra_jax.errors import UsageError
from electra_jax.exchange import import_model
from electra_jax.inference.pretrained import load_pretrained
from electra_jax.interop import names, tensorflow1
from electra_jax.models.electra import GeneratorConfig, generator_model
from electra_jax.models.encoder import ModelConfig

MODEL = ModelConfig(
    vocab_size=9, layers=2, hidden=128, heads=2, intermediate=64, embedding=16, max_positions=16
)
GENERATOR = GeneratorConfig(width=0.5)
# What the official code calls a few of them, written down by hand.
SHAPES = {
    "electra/embeddings/word_embeddings": (9, 16),
    "electra/embeddings/LayerNorm/gamma": (16,),
    "electra/embeddings_project/kernel": (16, 128),
    "electra/encoder/layer_1/attention/self/query/kernel": (128, 128),
    "electra/encoder/layer_1/attention/output/LayerNorm/beta": (128,),
    "electra/encoder/layer_0/intermediate/dense/kernel": (128, 64),
    "electra/encoder/layer_0/output/dense/bias": (128,),
    "discriminator_predictions/dense/kernel": (128, 128),
    "discriminator_predictions/dense_1/kernel": (128, 1),
    "generator/embeddings_project/bias": (64,),
    "generator/encoder/layer_1/output/LayerNorm/gamma": (64,),
    "generator_predictions/dense/kernel": (64, 16),
    "generator_predictions/LayerNorm/beta": (16,),
    "generator_predictions/output_bias": (9,),
}


@pytest.fixture(scope="module")
def params():
    return make_params(MODEL, GENERATOR)


def variables(params):
    shapes = {"discriminator": MODEL, "generator": generator_model(MODEL, GENERATOR)}
    return {
        name: value
        for network, flat in names.split_networks(params).items()
        for name, value in names.write_tensors(
            names.tensorflow1(shapes[network], network), flat
        ).items()
    }


def write(folder, values, step=7):
    tf = pytest.importorskip("tensorflow")
    folder.mkdir()
    (folder / "vocab.txt").write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c", "##d"]) + "\n"
    )
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        made = [tf.compat.v1.get_variable(name, initializer=x) for name, x in values.items()]
        made.append(tf.compat.v1.get_variable("global_step", initializer=np.int64(step)))
        session.run(tf.compat.v1.global_variables_initializer())
        return tf.compat.v1.train.Saver(made).save(session, str(folder / "model.ckpt"))


def test_names_are_the_official_ones(params):
    written = variables(params)
    assert {name: written[name].shape for name in SHAPES} == SHAPES
    assert not any(name.startswith("generator/embeddings/") for name in written)


def test_names_of_one_shape_are_not_mixed_up(params):
    """A swap of names would be undone by reading with the same table."""
    written = variables(params)
    layer = params["discriminator"]["encoder"]["layer_1"]
    for name, ours in {
        "embeddings/LayerNorm/gamma": params["embeddings"]["norm"]["scale"],
        "embeddings/LayerNorm/beta": params["embeddings"]["norm"]["bias"],
        "encoder/layer_1/attention/self/query/kernel": layer["query"]["kernel"],
        "encoder/layer_1/attention/self/value/kernel": layer["value"]["kernel"],
        "encoder/layer_1/attention/output/LayerNorm/gamma": layer["attention_norm"]["scale"],
        "encoder/layer_1/output/LayerNorm/gamma": layer["feedforward_norm"]["scale"],
    }.items():
        np.testing.assert_array_equal(written[f"electra/{name}"], ours, name)


@pytest.mark.slow
def test_a_checkpoint_with_slots_goes_on_where_it_stopped(params, tmp_path):
    values = variables(params)
    slots = {}
    for name, value in values.items():
        slots[f"{name}/adam_m"], slots[f"{name}/adam_v"] = 0.5 * value, value**2
    prefix = write(tmp_path / "tf1", {**values, **slots})
    assert import_model(prefix, tmp_path / "run") == []
    model = load_pretrained(tmp_path / "run", "last")
    assert (model.step, model.config.model.heads) == (7, 2)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(model.params), params)
    saved = ocp.StandardCheckpointer().restore(tmp_path / "run" / "checkpoints" / "7" / "rest")
    saved = saved["opt_state"]
    moments = [leaf for leaf in jax.tree.leaves(saved) if getattr(leaf, "shape", None) == (9, 16)]
    np.testing.assert_array_equal(moments[0], 0.5 * params["embeddings"]["word"])
    np.testing.assert_array_equal(moments[1], params["embeddings"]["word"] ** 2)


@pytest.mark.slow
def test_a_released_checkpoint_has_no_slots_and_begins_anew(params, tmp_path):
    prefix = write(tmp_path / "tf1", variables(params))
    import_model(prefix, tmp_path / "run")
    assert load_pretrained(tmp_path / "run", "last").step == 0


def test_a_missing_variable_is_named(params, tmp_path):
    values = variables(params)
    del values["electra/encoder/layer_1/attention/self/query/kernel"]
    prefix = write(tmp_path / "tf1", values)
    with pytest.raises(UsageError, match="layer_1/attention/self/query/kernel is missing"):
        tensorflow1.read_checkpoint(prefix)


def test_a_truncated_checkpoint_is_one_line(params, tmp_path, capsys):
    prefix = write(tmp_path / "tf1", variables(params))
    data = tmp_path / "tf1" / "model.ckpt.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:100])
    assert cli.main(["import", "--from", prefix, "--to", str(tmp_path / "run")]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()
