"""The Transformer encoder: embeddings, one layer, and the stack.

Two architectures come from this one code, told apart by the few fields of
`Architecture`: `published` (ELECTRA's post-norm BERT block) and `modern`
(the block of ModernBERT: Warner et al., 2024).
"""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from electra_jax.errors import UsageError, at_least, check_fields, checked, one_of, within
from electra_jax.models import attention
from electra_jax.models.dropout import Dropout
from electra_jax.models.layout import constrain
from electra_jax.models.norm import LayerNorm
from electra_jax.models.product import product


class Architecture(NamedTuple):
    """The differences between the blocks of the two architectures."""

    pre_norm: bool  # norm before each sublayer and once at the end, or after each sublayer
    bias: bool  # biases in dense layers and norms of the block
    rotary: bool  # rotary positions, or learned absolute ones with token types
    gated: bool  # GeGLU, or dense-GELU-dense
    norm_epsilon: float
    scaled_output_init: bool  # output matrices at 0.02/sqrt(2 layers)
    pooling: str  # what stands for a row before a task's head: [CLS], or the mean of its tokens


ARCHITECTURES = {
    "published": Architecture(False, True, False, False, 1e-12, False, "cls"),
    "modern": Architecture(True, False, True, True, 1e-5, True, "mean"),
}
POOLINGS = ("cls", "mean")
MOST_LAYERS = 10_000  # each of them is traced, or named: the millions of a damaged file never end
GLOBAL_THETA, LOCAL_THETA = 160_000.0, 10_000.0


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """An encoder's shape. Lengths are counted in tokens."""

    # published: BERT's block, as in the paper; modern: ModernBERT's
    architecture: str = checked("published", one_of(tuple(ARCHITECTURES)))
    vocab_size: int = checked(0, at_least(0))  # 0: the tokenizer's
    layers: int = checked(12, within(f"[1, {MOST_LAYERS}]"))  # of the discriminator
    hidden: int = checked(256, at_least(1))  # width of the layers
    heads: int = checked(4, at_least(1))  # of attention; hidden is a multiple of it
    intermediate: int = checked(1024, at_least(1))  # width within the feed-forward networks
    # width of the embeddings; modern: that of the layers
    embedding: int = checked(128, at_least(1))
    max_positions: int = checked(512, at_least(1))  # tokens of the longest row; modern: any
    token_types: int = checked(2, at_least(1))  # texts of a row that are told apart; modern: none
    # Reach to each side of local layers; 0: all layers are global.
    local_window: int = checked(0, at_least(0))
    global_every: int = checked(3, at_least(1))  # with local_window: every n-th layer is global
    dropout: float = checked(0.1, within("[0, 1)"))  # of embeddings and of what sublayers add
    attention_dropout: float = checked(0.1, within("[0, 1)"))  # of the weights of attention
    # Of a text's vector, as the model was trained for; empty: not known.
    pooling: str = checked("", one_of(("", *POOLINGS)))
    # Of the computation; auto: bfloat16 on accelerators, else float32.
    dtype: str = checked("auto", one_of(("auto", "float32", "bfloat16")))
    # The kernel; auto: splash attention on TPUs, without attention_dropout and for rows of a
    # multiple of 128; else xla.
    attention: str = checked("xla", one_of(attention.KERNELS))
    remat: bool = False  # recompute each layer in the backward pass
    scan: bool = False  # one compiled layer, scanned

    def __post_init__(self) -> None:
        check_fields("model", self)
        if self.attention == "cudnn" and self.attention_dropout:
            raise UsageError(
                "the kernel model.attention=cudnn has no dropout: set model.attention_dropout=0"
            )
        if self.hidden % self.heads:
            raise UsageError(
                f"model.hidden={self.hidden} is not a multiple of model.heads={self.heads}"
            )
        if self.block.rotary and (self.hidden // self.heads) % 2:
            raise UsageError("rotary positions need heads of even size: change model.heads")
        if self.architecture == "modern" and self.embedding != self.hidden:
            raise UsageError(
                f"the modern architecture has embeddings as wide as the model: set "
                f"model.embedding={self.hidden}, not {self.embedding}"
            )

    @property
    def block(self) -> Architecture:
        return ARCHITECTURES[self.architecture]

    @property
    def anywhere(self) -> "ModelConfig":
        """The same model with a kernel that every kind of device has."""
        return dataclasses.replace(self, attention="xla")

    @property
    def compute_dtype(self) -> jnp.dtype:
        if self.dtype == "auto":
            return jnp.dtype("float32" if jax.default_backend() == "cpu" else "bfloat16")
        return jnp.dtype(self.dtype)

    @property
    def least_params(self) -> int:
        """A number of parameters that the encoder has at least: those of its matrices."""
        layer = 4 * self.hidden**2 + 2 * self.hidden * self.intermediate
        return self.vocab_size * self.embedding + self.layers * layer

    def window(self, layer: int) -> int | None:
        """Reach of layer `layer`'s attention to each side; None is global."""
        return self.local_window if self.local_window and layer % self.global_every else None


normal_init = nn.initializers.truncated_normal(0.02)


def norm(config: ModelConfig, name: str | None) -> LayerNorm:
    """A layer norm with the architecture's epsilon and bias."""
    block = config.block
    return LayerNorm(block.norm_epsilon, block.bias, config.compute_dtype, name=name)


class Dense(nn.Dense):
    """A dense layer whose gradients are as fast as it is (see `product`)."""

    dot_general: Any = lambda x, kernel, *_, **__: product(x, kernel)


def dense(
    config: ModelConfig,
    features: int,
    name: str | None,
    *,
    bias: bool | None = None,
    output: bool = False,
    kernel_init: nn.initializers.Initializer | None = None,
) -> Dense:
    """A dense layer of the block; `output` marks those that write to the residual stream."""
    scaled = output and config.block.scaled_output_init
    init = nn.initializers.truncated_normal(0.02 / math.sqrt(2 * config.layers))
    return Dense(
        features,
        use_bias=config.block.bias if bias is None else bias,
        dtype=config.compute_dtype,
        kernel_init=kernel_init or (init if scaled else normal_init),
        name=name,
    )


@jax.custom_vjp
def gelu(x: jax.Array) -> jax.Array:
    """The exact (erf) GELU of the paper's code, not the tanh approximation.

    Computed in float32. Written with erf and not with erfc, as `jax.nn.gelu` has it, it takes a
    third of the time on a CPU; the gradient keeps the input alone.
    """
    wide = x.astype(jnp.float32)
    return (wide * _normal_cdf(wide)).astype(x.dtype)


def _gelu_backward(x: jax.Array, gradient: jax.Array) -> tuple[jax.Array]:
    wide = x.astype(jnp.float32)
    density = jnp.exp(-0.5 * wide * wide) / math.sqrt(2 * math.pi)
    return ((gradient * (_normal_cdf(wide) + wide * density)).astype(x.dtype),)


def _normal_cdf(x: jax.Array) -> jax.Array:
    return 0.5 + 0.5 * jax.lax.erf(x / math.sqrt(2))


gelu.defvjp(lambda x: (gelu(x), x), _gelu_backward)


class Embeddings(nn.Module):
    """Tokens (and absolute positions and types, where the architecture has them) to vectors."""

    config: ModelConfig

    def setup(self) -> None:
        c = self.config
        self.word = self.param("word", normal_init, (c.vocab_size, c.embedding))
        if not c.block.rotary:
            self.position = self.param("position", normal_init, (c.max_positions, c.embedding))
            self.type = self.param("type", normal_init, (c.token_types, c.embedding))
        self.norm = norm(c, None)
        self.drop = Dropout(c.dropout)

    def __call__(
        self,
        tokens_BL: jax.Array,
        types_BL: jax.Array,
        positions_BL: jax.Array,
        train: bool = False,
        word_VE: jax.Array | None = None,
    ) -> jax.Array:
        """`word_VE` stands in for the table of words, where it is given."""
        x_BLE = constrain(self.word if word_VE is None else word_VE, "vocabulary")[tokens_BL]
        if not self.config.block.rotary:
            x_BLE += constrain(self.position)[positions_BL] + constrain(self.type)[types_BL]
        return self.drop(self.norm(constrain(x_BLE, "batch")), deterministic=not train)


class Layer(nn.Module):
    """Self-attention, then the feed-forward network, each with its norm and residual."""

    config: ModelConfig
    window: int | None = None
    first: bool = False
    direction: int = 0

    @nn.compact
    def __call__(
        self,
        x_BLD: jax.Array,
        documents_BL: jax.Array,
        positions_BL: jax.Array,
        train: bool = False,
    ) -> jax.Array:
        c = self.config
        drop = Dropout(c.dropout, deterministic=not train)
        attention_norm, feedforward_norm = norm(c, "attention_norm"), norm(c, "feedforward_norm")
        if c.block.pre_norm:
            # The embedding norm stands right before layer 0, which so needs none of its own.
            normed_BLD = x_BLD if self.first else attention_norm(x_BLD)
            x_BLD += drop(self.attention(normed_BLD, documents_BL, positions_BL, train))
            return x_BLD + drop(self.feedforward(feedforward_norm(x_BLD)))
        x_BLD = attention_norm(
            x_BLD + drop(self.attention(x_BLD, documents_BL, positions_BL, train))
        )
        return feedforward_norm(x_BLD + drop(self.feedforward(x_BLD)))

    def attention(
        self, x_BLD: jax.Array, documents_BL: jax.Array, positions_BL: jax.Array, train: bool
    ) -> jax.Array:
        c = self.config
        heads = (*x_BLD.shape[:-1], c.heads, c.hidden // c.heads)
        query, key, value = (
            constrain(dense(c, c.hidden, name)(x_BLD).reshape(heads), "batch", None, "heads")
            for name in ("query", "key", "value")
        )
        if c.block.rotary:
            theta = GLOBAL_THETA if self.window is None else LOCAL_THETA
            query, key = (attention.rotate(x, positions_BL, theta) for x in (query, key))
        dropout = c.attention_dropout if train else 0.0
        mixed = attention.attend(
            query,
            key,
            value,
            documents_BL,
            window=self.window,
            direction=self.direction,
            dropout=dropout,
            dropout_key=self.make_rng("dropout") if dropout else None,
            kernel=c.attention,
        )
        return constrain(
            dense(c, c.hidden, "output", output=True)(mixed.reshape(x_BLD.shape)), "batch"
        )

    def feedforward(self, x_BLD: jax.Array) -> jax.Array:
        c = self.config
        if c.block.gated:
            wide, gate = jnp.split(dense(c, 2 * c.intermediate, "wide")(x_BLD), 2, axis=-1)
            wide = gelu(wide) * gate
        else:
            wide = gelu(dense(c, c.intermediate, "wide")(x_BLD))
        wide = constrain(wide, "batch", None, "features")
        return constrain(dense(c, c.hidden, "narrow", output=True)(wide), "batch")


class Period(nn.Module):
    """The layers between one global layer and the next: the body of the scan."""

    config: ModelConfig
    windows: tuple[int | None, ...]
    direction: int = 0

    @nn.compact
    def __call__(
        self, x_BLD: jax.Array, documents_BL: jax.Array, positions_BL: jax.Array, train: bool
    ) -> tuple[jax.Array, None]:
        for index, window in enumerate(self.windows):
            layer = layer_class(self.config)(
                self.config, window, direction=self.direction, name=f"layer_{index}"
            )
            x_BLD = layer(x_BLD, documents_BL, positions_BL, train)
        return x_BLD, None


def layer_class(config: ModelConfig) -> type[nn.Module]:
    """The layer, recomputed in the backward pass if the config says so."""
    # `train` is argument 4 of __call__, counted with self: a Python bool, not traced.
    return nn.remat(Layer, static_argnums=(4,)) if config.remat else Layer


def scan_plan(config: ModelConfig) -> tuple[int, int, int]:
    """The parts of a scanned stack: (layers before the scan, layers in a period, periods).

    A pre-norm stack's layer 0 lacks a norm and stands outside; layers that fill no
    whole period follow the scan.
    """
    before = 1 if config.block.pre_norm else 0
    period = config.global_every if config.local_window else 1
    return before, period, (config.layers - before) // period


class Encoder(nn.Module):
    """The stack: `layers` layers, and a final norm where the norms come first.

    Takes embeddings [B, L, E] and gives hidden states [B, L, D]; where E differs from
    D they are projected first (the paper's `embeddings_project`). `direction` is that of
    its attention (see `attention.attend`).
    """

    config: ModelConfig
    direction: int = 0

    @nn.compact
    def __call__(
        self,
        x_BLE: jax.Array,
        documents_BL: jax.Array,
        positions_BL: jax.Array,
        train: bool = False,
    ) -> jax.Array:
        c = self.config
        x_BLD = x_BLE
        if x_BLE.shape[-1] != c.hidden:
            x_BLD = Dense(
                c.hidden,
                dtype=c.compute_dtype,
                kernel_init=nn.initializers.glorot_uniform(),
                name="embeddings_project",
            )(x_BLE)
            x_BLD = constrain(x_BLD, "batch")

        unrolled = list(range(c.layers))
        before, period, periods = scan_plan(c)
        scanned = range(before, before + period * periods) if c.scan else range(0)
        for layer in unrolled:
            if layer not in scanned:
                module = layer_class(c)(
                    c, c.window(layer), layer == 0, self.direction, name=f"layer_{layer}"
                )
                x_BLD = module(x_BLD, documents_BL, positions_BL, train)
            elif layer == scanned.start:
                windows = tuple(c.window(layer + i) for i in range(period))
                stack = nn.scan(
                    Period,
                    variable_axes={"params": 0},
                    split_rngs={"params": True, "dropout": True},
                    in_axes=(nn.broadcast, nn.broadcast, nn.broadcast),
                    length=periods,
                )
                x_BLD, _ = stack(c, windows, self.direction, name="periods")(
                    x_BLD, documents_BL, positions_BL, train
                )
        return norm(c, "final_norm")(x_BLD) if c.block.pre_norm else x_BLD


def stack_layers(params: dict, config: ModelConfig) -> dict:
    """An unrolled encoder's parameters as a scanned encoder of `config` names them."""
    before, period, periods = scan_plan(config)
    params = dict(params)
    stacked = {}
    for index in range(period):
        members = [params.pop(f"layer_{before + n * period + index}") for n in range(periods)]
        if members:
            stacked[f"layer_{index}"] = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    return {**params, "periods": stacked} if periods else params


def unstack_layers(params: dict, config: ModelConfig) -> dict:
    """The inverse of `stack_layers`."""
    before, period, periods = scan_plan(config)
    params = dict(params)
    stacked = params.pop("periods", {})
    for name, layer in stacked.items():
        index = int(name.removeprefix("layer_"))
        for n in range(periods):
            leaves = jax.tree.map(lambda leaf, n=n: leaf[n], layer)
            params[f"layer_{before + n * period + index}"] = leaves
    return params
