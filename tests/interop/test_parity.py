"""Our networks beside those of the transformers library, on the same weights.

`make test` compares with recorded figures (tests/golden/record.py), `make test-all` with
the library itself.
"""

import dataclasses
import os
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from electra_jax.interop import huggingface, names
from electra_jax.models import electra as electra_module
from electra_jax.models import encoder
from electra_jax.models.electra import Discriminator, Electra, GeneratorConfig, MaskedLanguageModel
from electra_jax.models.encoder import Embeddings
from electra_jax.objectives import corruption, replaced_token
from electra_jax.objectives.config import ObjectiveConfig
from electra_jax.objectives.masking import Masked, SpecialTokens

GOLDEN = Path(__file__).parent.parent / "golden"
sys.path.insert(0, str(GOLDEN))
import record  # noqa: E402

TOLERANCE = 1e-4


def read_flat(config: dict, network: str, shapes: dict) -> tuple[encoder.ModelConfig, dict]:
    """The shape and our flat parameters, from the library's names and `record.fill`."""
    model = huggingface.model_config(config)
    tensors = {
        key.removeprefix(f"{network}:"): record.fill(key.removeprefix(f"{network}:"), tuple(shape))
        for key, shape in shapes.items()
        if key.startswith(f"{network}:")
    }
    # Tied: the library names the same tensor twice.
    tensors.pop("generator_lm_head.weight", None)
    tensors.pop("decoder.weight", None)
    table = [*names.body(model), *names.head(model, network)]
    assert {name.theirs for name in table} == set(tensors)
    return model, names.read_tensors(table, tensors)


def run(model, flat: dict, network: str) -> dict[str, np.ndarray]:
    """Hidden states and logits on the recorded sentences."""
    tokens, mask, types = (jnp.asarray(x, jnp.int32) for x in record.sentences())
    tree = names.unflatten(flat)
    embeddings = tree.pop("embeddings")
    positions = electra_module.positions_in_documents(mask)
    x = Embeddings(model).apply({"params": embeddings}, tokens, types, positions)
    hidden = encoder.Encoder(model).apply({"params": tree["encoder"]}, x, mask, positions)
    if network == "discriminator":
        logits = Discriminator(model).apply({"params": tree}, x, mask, positions)
    else:
        every = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
        logits = (
            MaskedLanguageModel(model)
            .apply({"params": tree}, x, embeddings["word"], mask, positions, every)
            .whole()
        )
    return {"hidden": np.asarray(hidden), "logits": np.asarray(logits)}


def differences(config: dict, golden: dict) -> float:
    """The largest absolute difference over both networks' hidden states and logits."""
    real = record.sentences()[1] > 0
    largest = 0.0
    for network in ("discriminator", "generator"):
        ours = run(*read_flat(config, network, golden), network)
        logits = ours["logits"]
        if network == "generator":
            normaliser = jax.nn.logsumexp(logits, axis=-1)
            largest = max(largest, np.abs(normaliser - golden["masked_lm_normaliser"])[real].max())
            logits = logits[..., : record.COLUMNS]
        for mine, theirs in (
            (ours["hidden"], golden[f"{network}_hidden"]),
            (logits, golden[f"{network}_logits"]),
        ):
            largest = max(largest, np.abs(mine - theirs)[real].max())
    return largest


@pytest.mark.slow
@pytest.mark.parametrize("name", record.CONFIGS)
def test_networks_are_those_of_transformers(name):
    golden = dict(np.load(GOLDEN / f"{name}.npz"))
    largest = differences(record.CONFIGS[name], golden)
    print(f"{name}: largest difference of outputs {largest:.1e}")
    assert largest <= TOLERANCE


@pytest.mark.full
@pytest.mark.parametrize("name", record.CONFIGS)
def test_goldens_are_what_transformers_computes_now(name):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    live = record.forward(record.CONFIGS[name])
    assert differences(record.CONFIGS[name], live) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("name", ["base", "modern"])
@pytest.mark.parametrize("fault", ["epsilon", "gelu", "kernel", "window"])
def test_parity_tells_faults(name, fault, monkeypatch):
    """A norm's epsilon, the approximate GELU, a kernel left as it lay, a window one too wide."""
    golden = dict(np.load(GOLDEN / f"{name}.npz"))
    if fault == "epsilon":
        blocks = {
            key: block._replace(norm_epsilon=1e-6) for key, block in encoder.ARCHITECTURES.items()
        }
        monkeypatch.setattr(encoder, "ARCHITECTURES", blocks)
    elif fault == "gelu":
        for module in (encoder, electra_module):
            monkeypatch.setattr(module, "gelu", jax.nn.gelu)
    elif fault == "kernel":
        read = names.read_tensors

        def untransposed(table, tensors):
            return {
                path: array.T if path.endswith("layer_1/output/kernel") else array
                for path, array in read(table, tensors).items()
            }

        monkeypatch.setattr(names, "read_tensors", untransposed)
    elif name == "modern":
        config = {**record.CONFIGS[name], "local_attention": 8}
        assert differences(config, golden) > TOLERANCE
        return
    else:
        pytest.skip("published layers have no window")
    assert differences(record.CONFIGS[name], golden) > TOLERANCE


def joint_gradients(golden: dict, monkeypatch) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Our losses, and the largest relative difference of each tensor's gradient."""
    model, discriminator = read_flat(record.JOINT, "discriminator", shapes_of(golden))
    small, generator = read_flat(record.JOINT_GENERATOR, "generator", shapes_of(golden))
    model = dataclasses.replace(model, dropout=0.0, attention_dropout=0.0)
    params = {"discriminator": names.unflatten(discriminator)}
    params["embeddings"] = params["discriminator"].pop("embeddings")
    params["generator"] = names.unflatten(generator)
    params["generator"].pop("embeddings")
    batch = record.joint_batch()
    documents = (batch["tokens"] != 0).astype(np.int32)
    prepared = {
        **{key: jnp.asarray(batch[key], jnp.int32) for key in ("tokens", "masked_tokens", "types")},
        "masked": Masked(jnp.asarray(batch["positions"], jnp.int32), jnp.asarray(batch["weights"])),
        "documents": jnp.asarray(documents),
        "uniform": jnp.zeros((*batch["positions"].shape, 2)),
    }
    samples = jnp.asarray(batch["samples"], jnp.int32)
    read = corruption.read
    monkeypatch.setattr(corruption, "read", lambda *a: read(*a)._replace(sample=samples))
    objective = replaced_token.ReplacedTokenDetection(
        ObjectiveConfig(),
        Electra(model, GeneratorConfig(width=small.hidden / model.hidden)),
        SpecialTokens(0, 1, 2, 4),
    )
    counts = objective.counts(prepared)
    weights = objective.weights(0)

    def total(params):
        sums, _ = objective.losses(params, prepared, None, jnp.int32(0), False)
        means = {name: sums[name] / counts[name] for name in sums}
        return sum(weights[name] * mean for name, mean in means.items()), means

    gradient, means = jax.jit(jax.grad(total, has_aux=True))(params)
    flat = names.split_networks(jax.device_get(gradient))
    differences = {}
    for network, shape in (("discriminator", model), ("generator", small)):
        table = [*names.body(shape), *names.head(shape, network)]
        for name, ours in names.write_tensors(table, flat[network]).items():
            theirs = golden[f"{network}:{name}"]
            # A bias of the keys has no gradient at all: the softmax does not see it.
            scale = max(np.abs(theirs).max(), 1e-3)
            differences[f"{network}:{name}"] = np.abs(ours - theirs).max() / scale
    return {name: float(mean) for name, mean in means.items()}, differences


def shapes_of(golden: dict) -> dict:
    shapes = {name: x.shape for name, x in golden.items() if ":" in name}
    body = {n: s for n, s in shapes.items() if n.startswith("discriminator:electra.embeddings.")}
    # Recorded once, as both networks share them.
    shared = {n.replace("discriminator:", "generator:"): s for n, s in body.items()}
    return {**shapes, **shared}


def test_joint_loss_and_gradients_are_the_definition(monkeypatch):
    golden = dict(np.load(GOLDEN / "joint.npz"))
    losses, differences = joint_gradients(golden, monkeypatch)
    assert losses["generator"] == pytest.approx(float(golden["generator_loss"]), rel=1e-5)
    assert losses["discriminator"] == pytest.approx(float(golden["discriminator_loss"]), rel=1e-5)
    print(f"joint loss: largest relative difference of gradients {max(differences.values()):.1e}")
    assert max(differences.values()) <= 1e-3, differences


@pytest.mark.full
def test_recorded_gradients_are_what_pytorch_computes_now(monkeypatch):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    _, differences = joint_gradients(record.joint(), monkeypatch)
    assert max(differences.values()) <= 1e-3


def test_released_small_gives_the_published_slice():
    """The figures of the library's own integration test of its converter."""
    folder = os.environ.get("ELECTRA_JAX_RELEASED_SMALL")
    if not folder:
        pytest.skip(
            "ELECTRA_JAX_RELEASED_SMALL is unset: it names a copy of electra-small-discriminator"
        )
    read = huggingface.read_model(folder)
    tokens = jnp.array([[0, 345, 232, 328, 740, 140, 1695, 69, 6078, 1588, 2]])
    mask = jnp.ones_like(tokens).at[0, 0].set(0)
    # There, the first token is hidden but still counts as position 0.
    positions = jnp.arange(tokens.shape[1])[None]
    x = Embeddings(read.model).apply(
        {"params": read.params["embeddings"]}, tokens, jnp.zeros_like(tokens), positions
    )
    hidden = encoder.Encoder(read.model).apply(
        {"params": read.params["discriminator"]["encoder"]}, x, mask, positions
    )
    expected = [[0.4471, 0.6821, -0.3265], [0.4627, 0.5255, -0.3668], [0.4532, 0.3313, -0.4344]]
    np.testing.assert_allclose(hidden[0, 1:4, 1:4], expected, atol=1e-4)
