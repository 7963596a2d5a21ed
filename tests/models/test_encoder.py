"""The encoder: documents, windows, scan, rematerialisation, dropout and number formats."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from scipy.special import erf

from electra_jax.errors import UsageError
from electra_jax.models import encoder
from electra_jax.models.electra import Electra, GeneratorConfig, init_params
from electra_jax.models.encoder import Encoder, ModelConfig, stack_layers, unstack_layers
from electra_jax.models.norm import LayerNorm

PUBLISHED = ModelConfig(
    vocab_size=50, layers=2, hidden=16, heads=2, intermediate=32, embedding=8, max_positions=16
)
MODERN = dataclasses.replace(PUBLISHED, architecture="modern", embedding=16)
CONFIGS = {
    "published": PUBLISHED,
    "modern": MODERN,
    "local": dataclasses.replace(MODERN, layers=3, local_window=2, global_every=2),
}
LENGTH = 16


def drawn(init):
    """Parameters for `init`'s of larger weights than at the start, for attention to matter."""
    shapes = jax.eval_shape(init, jax.random.key(0))
    rng = np.random.default_rng(0)
    return jax.tree_util.tree_map_with_path(
        lambda path, x: (
            jnp.asarray(0.15 * rng.normal(size=x.shape), x.dtype)
            if x.ndim > 1
            else jnp.full(x.shape, path[-1].key == "scale", x.dtype)
        ),
        shapes,
    )


@functools.cache
def model(name):
    """(parameters, jitted hidden states of tokens and documents) of a tiny Electra."""
    electra = Electra(CONFIGS[name], GeneratorConfig(width=1.0, depth=0.5))
    params = drawn(functools.partial(init_params, electra))

    @jax.jit
    def hidden(tokens, documents):
        types = (tokens % 2) * (documents > 0)
        return electra.apply({"params": params}, tokens, documents, types, method="encode")

    return params, hidden


def packed_row(seed=0):
    """One row: documents of 7 and 6 tokens, then padding."""
    tokens = np.random.default_rng(seed).integers(5, 50, (1, LENGTH))
    documents = np.array([[1] * 7 + [2] * 6 + [0] * 3])
    return tokens * (documents > 0), documents


@pytest.mark.parametrize("name", CONFIGS)
def test_attention_never_crosses_documents_nor_sees_padding(name):
    _, hidden = model(name)
    tokens, documents = packed_row()
    before = np.asarray(hidden(tokens, documents))
    other = tokens.copy()
    other[0, 9] += 1
    other[0, 14] = 33
    after = np.asarray(hidden(other, documents))
    np.testing.assert_array_equal(before[0, :7], after[0, :7])
    assert np.abs(before - after)[0, 7:13].max() > 1e-2
    padding = tokens.copy()
    padding[0, 13:] = 44
    np.testing.assert_array_equal(before[0, :13], hidden(padding, documents)[0, :13])


@pytest.mark.parametrize("name", CONFIGS)
def test_a_document_is_read_alike_alone_and_packed(name):
    _, hidden = model(name)
    tokens, documents = packed_row()
    alone = np.zeros_like(tokens)
    alone[0, :6] = tokens[0, 7:13]
    found = hidden(alone, (np.arange(LENGTH) < 6).astype(int)[None])
    expected = hidden(tokens, documents)
    np.testing.assert_allclose(found[0, :6], expected[0, 7:13], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_order_of_tokens_matters(name):
    """Positions that reach no layer would leave the network a bag of words."""
    _, hidden = model(name)
    tokens, documents = packed_row()
    swapped = tokens.copy()
    swapped[0, [1, 3]] = tokens[0, [3, 1]]
    # Types follow the tokens, so only positions tell the two rows apart for token 0.
    difference = np.abs(hidden(tokens, documents) - hidden(swapped, documents))[0, 0].max()
    assert difference > 1e-3


def test_local_layers_reach_their_window_and_no_further():
    """One global layer, then a local one: seen through the local one alone."""
    config = dataclasses.replace(MODERN, layers=1, local_window=3)
    layer = encoder.Layer(config, window=3)
    x = jax.random.normal(jax.random.key(0), (1, LENGTH, 16))
    documents = jnp.ones((1, LENGTH), jnp.int32)
    positions = jnp.arange(LENGTH)[None]
    params = drawn(lambda key: layer.init(key, x, documents, positions))
    apply = jax.jit(layer.apply)
    moved = apply(params, x.at[0, 8, 0].add(1.0), documents, positions)
    changed = np.abs(moved - apply(params, x, documents, positions))[0].max(-1) > 0
    np.testing.assert_array_equal(np.flatnonzero(changed), np.arange(5, 12))


def test_every_third_layer_is_global():
    config = dataclasses.replace(MODERN, layers=7, local_window=4)
    assert [config.window(i) for i in range(7)] == [None, 4, 4, None, 4, 4, None]
    assert MODERN.window(1) is None


STACKS = {
    "published": PUBLISHED,
    # Layer 0, two periods of (local, global), and one layer left over.
    "modern": dataclasses.replace(MODERN, layers=6, local_window=2, global_every=2, dropout=0.0),
}


@functools.cache
def stack_gradient(name, remat, scan, train=False):
    """(config, loss, unrolled gradient) of an encoder with the same parameters each time."""
    config = dataclasses.replace(STACKS[name], remat=remat, scan=scan)
    x = jax.random.normal(jax.random.key(1), (2, LENGTH, config.embedding))
    documents = jnp.asarray(np.repeat(packed_row()[1], 2, axis=0))
    positions = jnp.arange(LENGTH)[None] + jnp.zeros((2, 1), jnp.int32)
    plain = Encoder(STACKS[name])
    params = drawn(lambda key: plain.init(key, x, documents, positions)["params"])
    weights = jax.random.normal(jax.random.key(2), (2, LENGTH, config.hidden))

    def loss(params):
        rngs = {"dropout": jax.random.key(3)} if train else None
        args = ({"params": params}, x, documents, positions, train)
        return jnp.sum(jnp.square(Encoder(config).apply(*args, rngs=rngs) + weights))

    if scan:
        params = stack_layers(params, config)
    value, gradient = jax.jit(jax.value_and_grad(loss))(params)
    return float(value), unstack_layers(gradient, config) if scan else gradient


def assert_same(found, expected):
    assert found[0] == pytest.approx(expected[0], rel=1e-6)
    scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected[1]))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6 * scale),
        found[1],
        expected[1],
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", STACKS)
@pytest.mark.parametrize(("remat", "scan"), [(False, True), (True, True)])
def test_scan_and_remat_change_neither_loss_nor_gradient(name, remat, scan):
    """A scan that skips, repeats or reorders layers, or mixes up their windows."""
    assert_same(stack_gradient(name, remat, scan), stack_gradient(name, False, False))


@pytest.mark.slow
def test_remat_repeats_the_same_dropout():
    """A backward pass that draws dropout anew."""
    with_dropout = stack_gradient("published", True, False, True)
    assert_same(with_dropout, stack_gradient("published", False, False, True))
    assert with_dropout[0] != pytest.approx(stack_gradient("published", False, False)[0])


@pytest.mark.parametrize("name", STACKS)
def test_stacking_round_trip(name):
    config = dataclasses.replace(STACKS[name], scan=True)
    shapes = jax.eval_shape(
        Encoder(STACKS[name]).init,
        jax.random.key(0),
        jnp.zeros((1, 4, config.embedding)),
        jnp.ones((1, 4), jnp.int32),
        jnp.zeros((1, 4), jnp.int32),
    )["params"]
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), shapes)
    there = stack_layers(params, config)
    assert there["periods"]["layer_0"]["query"]["kernel"].shape == (2, 16, 16)
    back = unstack_layers(there, config)
    assert jax.tree.structure(back) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, back, params)


@pytest.mark.slow
def test_a_scanned_model_starts_as_the_unrolled_one():
    electra = Electra(MODERN, GeneratorConfig(width=1.0))
    scanned = Electra(dataclasses.replace(MODERN, scan=True), GeneratorConfig(width=1.0))
    # In one program, which draws but once what is the same.
    init = jax.jit(lambda key: [init_params(e, key) for e in (electra, scanned)])
    expected, found = init(jax.random.key(0))
    for network in ("generator", "discriminator"):
        stack = found[network]["encoder"]
        found[network]["encoder"] = unstack_layers(stack, scanned.model)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_gelu_is_exact_everywhere():
    """The tanh approximation, in the block or in a head."""
    x = np.linspace(-4, 4, 33)
    np.testing.assert_allclose(encoder.gelu(x), x / 2 * (1 + erf(x / np.sqrt(2))), atol=1e-6)
    one = jnp.ones((1, 4), jnp.int32)
    for config in (PUBLISHED, MODERN):
        electra = Electra(config, GeneratorConfig(width=1.0))
        params = jax.eval_shape(functools.partial(init_params, electra), jax.random.key(0))
        jaxpr = str(jax.make_jaxpr(electra.apply)({"params": params}, one, one, one, one))
        assert "erf" in jaxpr
        assert "tanh" not in jaxpr


@pytest.mark.parametrize(
    ("config", "epsilon", "layers"), [(PUBLISHED, 1e-12, 2), (MODERN, 1e-5, 2)]
)
def test_every_norm_has_the_epsilon_of_its_architecture(config, epsilon, layers):
    """Flax's default of 1e-6 in one of them."""
    electra, found = Electra(config, GeneratorConfig(width=1.0)), []

    def note(call, args, kwargs, context):
        assert not isinstance(context.module, nn.LayerNorm)
        if isinstance(context.module, LayerNorm):
            found.append(context.module.epsilon)
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        jax.eval_shape(functools.partial(init_params, electra), jax.random.key(0))
    assert len(found) >= 4 * layers
    assert set(found) == {epsilon}


@pytest.mark.parametrize("name", ["published", "modern"])
def test_dropout_is_active_in_training_alone(name):
    config = dataclasses.replace(CONFIGS[name], dropout=0.3, attention_dropout=0.3)
    electra, (params, hidden) = Electra(config, GeneratorConfig(width=1.0)), model(name)
    tokens, documents = packed_row()
    types = (tokens % 2) * (documents > 0)

    @functools.partial(jax.jit, static_argnums=1)
    def run(key, train):
        rngs = {"dropout": key}
        args = ({"params": params}, tokens, documents, types, train)
        return electra.apply(*args, method="encode", rngs=rngs)

    keys = jax.random.split(jax.random.key(0), 2)
    np.testing.assert_allclose(run(keys[0], False), hidden(tokens, documents), atol=1e-5)
    np.testing.assert_array_equal(run(keys[0], True), run(keys[0], True))
    assert float(jnp.abs(run(keys[0], True) - run(keys[1], True)).max()) > 1e-2


@pytest.mark.parametrize("rate", ["dropout", "attention_dropout"])
def test_each_dropout_rate_is_used(rate):
    """A rate of the config that reaches no layer."""
    config = dataclasses.replace(PUBLISHED, **{"dropout": 0.0, "attention_dropout": 0.0, rate: 0.5})
    layer = encoder.Layer(config)
    x = jax.random.normal(jax.random.key(0), (1, LENGTH, 16))
    documents = jnp.ones((1, LENGTH), jnp.int32)
    params = drawn(lambda key: layer.init(key, x, documents, documents))
    run = jax.jit(
        lambda key: layer.apply(params, x, documents, documents, True, rngs={"dropout": key})
    )
    outs = [run(key) for key in jax.random.split(jax.random.key(2), 2)]
    assert float(jnp.abs(outs[0] - outs[1]).max()) > 1e-2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["published", "modern"])
def test_bfloat16_computes_on_float32_parameters_to_float32_logits(name):
    config = dataclasses.replace(CONFIGS[name], dtype="bfloat16")
    electra = Electra(config, GeneratorConfig(width=1.0, depth=0.5))
    exact = Electra(CONFIGS[name], electra.generator_config)
    params = drawn(functools.partial(init_params, electra))
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    tokens, documents = packed_row()
    args = ({"params": params}, tokens, documents, tokens * 0, np.array([[1, 2, 8]]))
    outputs = [jax.jit(electra.apply)(*args), jax.jit(exact.apply)(*args)]
    for low, high in zip(*((x.whole(), y) for x, y in outputs), strict=True):
        assert low.dtype == high.dtype == jnp.float32
        np.testing.assert_allclose(low, high, atol=0.03 * float(jnp.abs(high).max()))
    hidden = jax.eval_shape(functools.partial(electra.apply, method="encode"), *args[:4])
    assert hidden.dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("fields", "hint"),
    [
        ({"architecture": "post"}, "use published, modern"),
        ({"hidden": 10, "heads": 4}, "not a multiple of model.heads=4"),
        ({"layers": 0}, "model.layers must be in"),
        ({"dropout": 1.0}, r"in \[0, 1\)"),
        ({"architecture": "modern", "embedding": 8, "hidden": 16}, "model.embedding=16"),
        ({"architecture": "modern", "embedding": 6, "hidden": 6, "heads": 2}, "even size"),
    ],
)
def test_a_shape_that_makes_no_sense_is_refused_with_its_field(fields, hint):
    with pytest.raises(UsageError, match=hint):
        ModelConfig(**fields)
