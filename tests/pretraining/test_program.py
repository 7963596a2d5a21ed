"""A program on any mesh: the same masks, samples and losses, and nothing gathered in vain."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from electra_jax.config import load_config, pretrain_config
from electra_jax.errors import UsageError
from electra_jax.parallel.mesh import MeshConfig, make_mesh, with_mesh
from electra_jax.pretraining.program import batch_shapes, flops_per_token, pretraining_program
from electra_jax.training.step import make_train_step, step_keys

pytestmark = pytest.mark.slow

STEPS = 20
ROWS, LENGTH, VOCABULARY = 16, 32, 256
TINY = [
    "model.layers=2", "model.hidden=32", "model.heads=4", "model.intermediate=64",
    f"model.vocab_size={VOCABULARY}", f"data.length={LENGTH}", f"train.batch_size={ROWS}",
    "optimizer.warmup_steps=5", "optimizer.learning_rate=1e-3",
]  # fmt: skip
ARCHITECTURES = {
    "published": [
        "pretrain/small",
        *TINY,
        "model.layers=1",
        "model.embedding=16",
        "model.max_positions=32",
    ],
    "modern": ["pretrain/tiny", *TINY, "model.embedding=32", "train.time_budget="],
}
ONE, MIXED = MeshConfig(data=1), MeshConfig(data=2, fsdp=2, tensor=2)
CASES = [("published", MIXED)]
FULL_CASES = [
    ("published", MeshConfig()),
    ("modern", MeshConfig(data=1, fsdp=8)),
    ("published", MeshConfig(data=1, fsdp=8)),
    ("published", MeshConfig(data=2, tensor=4)),
    ("modern", MIXED),
]


def make_config(architecture, *overrides):
    spec, *fields = ARCHITECTURES[architecture]
    return pretrain_config(load_config(spec, [*fields, *overrides]))


def rows(step):
    """Rows of two documents of very different lengths, the rest of each padding."""
    rng = np.random.default_rng(step)
    ends = np.sort(rng.integers(4, LENGTH + 1, (ROWS, 2)), axis=1)
    places = np.arange(LENGTH)
    documents = np.where(places < ends[:, :1], 1, 2) * (places < ends[:, 1:])
    tokens = rng.integers(200, VOCABULARY, (ROWS, LENGTH)) * (documents > 0)
    batch = {"tokens": tokens, "documents": documents, "types": 0 * tokens}
    return {name: array.astype(np.int32) for name, array in batch.items()}


@functools.cache
def start(architecture):
    """A fresh state, on the host."""
    mesh = make_mesh(ONE, jax.devices()[:1])
    program = pretraining_program(make_config(architecture), mesh, None)
    return jax.device_get(program.create(jax.random.key(7)))


@functools.cache
def history(architecture, mesh_config):
    """Of each step: the masked rows, the corrupted rows, and the total loss."""
    mesh = make_mesh(mesh_config, jax.devices()[: 1 if mesh_config == ONE else 8])
    program = pretraining_program(make_config(architecture), mesh, None)
    train_step = make_train_step(program.objective, program.optimizer)

    def step(state, batch, run_key, progress):
        """The training step, and what it reads."""
        prepared = program.objective.prepare(batch, step_keys(run_key, state.step)[0])
        out = program.objective.forward(state.params, prepared)
        state = train_step(state, batch, run_key, progress)
        return state, prepared["masked_tokens"], out["corrupted"]

    shardings, batch_shardings = (
        jax.tree.map(lambda x: x.sharding, tree)
        for tree in (program.state, batch_shapes(make_config(architecture), mesh))
    )
    step = jax.jit(with_mesh(mesh, step), out_shardings=(shardings, None, None))
    state = jax.device_put(start(architecture), shardings)
    seen = []
    for number in range(STEPS):
        batch = jax.device_put(rows(number), batch_shardings)
        state, *tokens = step(state, batch, jax.random.key(7), jnp.float32(number / STEPS))
        loss = program.objective.summarise(jax.device_get(state.metric_sums))["loss"]
        seen.append((*jax.device_get(tokens), loss))
        state = state.reset_metrics()
    return seen


@pytest.mark.parametrize(
    ("architecture", "mesh"),
    [*CASES, *(pytest.param(*case, marks=pytest.mark.full) for case in FULL_CASES)],
    ids=lambda x: x if isinstance(x, str) else f"{x.data}x{x.fsdp}x{x.tensor}",
)
def test_the_mesh_changes_neither_masks_nor_samples_nor_losses(architecture, mesh):
    """Dropout is on in `published`: it must not depend on the mesh either."""
    for one, many in zip(history(architecture, ONE), history(architecture, mesh), strict=True):
        np.testing.assert_array_equal(one[0], many[0])
        np.testing.assert_array_equal(one[1], many[1])
        assert many[2] == pytest.approx(one[2], rel=1e-5)
    assert any((masked != corrupted).any() for masked, corrupted, _ in history(architecture, ONE))


def test_every_large_array_is_placed_by_a_rule(caplog):
    for architecture in ARCHITECTURES:
        program = pretraining_program(
            make_config(architecture), make_mesh(MeshConfig(fsdp=8)), None
        )
        assert "no partition rule" not in caplog.text
        for path, leaf in jax.tree_util.tree_leaves_with_path(program.state.params):
            if leaf.size >= 1000:
                assert leaf.sharding.shard_shape(leaf.shape) != leaf.shape, path


def test_heads_are_never_cut():
    mesh = make_mesh(MeshConfig(data=1, tensor=8))
    with pytest.raises(UsageError, match="mesh.tensor=8 does not divide the 4 .* 2 or 4"):
        pretraining_program(make_config("modern"), mesh, None)


def test_a_vocabulary_that_does_not_divide_is_told_which_would(caplog):
    mesh = make_mesh(MeshConfig(data=2, tensor=4))
    pretraining_program(make_config("modern", "model.vocab_size=254"), mesh, None)
    assert "model.vocab_size=512" in caplog.text


def test_flops_have_a_part_for_each_network():
    flops = flops_per_token(make_config("published"))
    assert set(flops) == {"discriminator", "generator", "masked_lm_head"}
    assert min(flops.values()) > 0
