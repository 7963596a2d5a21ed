"""The time that a training step should take on a chip: arithmetic, before anything has run.

A step is bound by the slower of its arithmetic and its memory traffic, which overlap; what
is sent between chips is added, as if nothing overlapped with it. Data sheets are not
reached: each term has an assumed attainable share. Latency is not counted, so steps of
less than a few milliseconds will take longer than estimated.
"""

import dataclasses

from electra_jax.config import PretrainConfig
from electra_jax.models.electra import generator_model
from electra_jax.models.encoder import ModelConfig
from electra_jax.objectives import find_objective
from electra_jax.objectives.masking import max_masked
from electra_jax.parallel.hardware import Chip
from electra_jax.pretraining.program import flops_per_token

# Assumed, not measured: what a well-compiled Transformer reaches of the data sheets.
ATTAINABLE = {"compute": 0.5, "memory": 0.7, "interconnect": 0.7}

# Passes over arrays that one layer makes in training, counted for ordinary fusion: each
# matrix product reads and writes three arrays of each side's width (forward, and for both
# gradients), what is element-wise stands fused where it can. In widths of the hidden
# vectors, of the feed-forward network, and of the attention scores (heads x row length).
PASSES = {"hidden": 54, "intermediate": 11, "scores": 9}
GATED_INTERMEDIATE = 17
FORWARD_PASSES = {"hidden": 20, "intermediate": 4, "scores": 4}  # what remat does again
LOGIT_PASSES = 8  # of float32, over masked positions x vocabulary: loss, samples, gradient
# Of each parameter in each microbatch: bfloat16 read forward and backward, float32 gradient.
PARAMETER_BYTES = 2 + 2 + 4


@dataclasses.dataclass(frozen=True)
class Estimate:
    """One step of one chip: what there is to do, and how fast it can be done.

    Attributes:
      flops: operations, those of rematerialisation among them.
      hbm_bytes: read from and written to memory: by the formulas below, or as counted from
        the compiled program (`traffic.memory_traffic`).
      wire_bytes: sent to other chips.
      chip: what it can do.
    """

    flops: float
    hbm_bytes: float
    wire_bytes: float
    chip: Chip

    def terms(self, attainable: bool = True) -> dict[str, float]:
        """Seconds for each of the three, at the assumed shares or at the data sheet's speed."""
        seconds = {
            "compute": self.flops / self.chip.flops,
            "memory": self.hbm_bytes / self.chip.hbm_bandwidth,
            "interconnect": self.wire_bytes / self.chip.link_bandwidth,
        }
        shares = ATTAINABLE if attainable else dict.fromkeys(ATTAINABLE, 1.0)
        return {name: time / shares[name] for name, time in seconds.items()}

    def seconds(self, attainable: bool = True) -> float:
        """A step's time."""
        terms = self.terms(attainable)
        return max(terms["compute"], terms["memory"]) + terms["interconnect"]

    @property
    def binds(self) -> str:
        """The longest of the three."""
        terms = self.terms()
        return max(terms, key=lambda name: terms[name])


def layer_bytes_per_token(model: ModelConfig, length: int, tensor: int = 1) -> float:
    """Memory traffic of the encoder's layers in training, bytes a token and chip."""
    passes = dict(PASSES)
    if model.block.gated:
        passes["intermediate"] = GATED_INTERMEDIATE
    if model.remat:
        passes = {name: count + FORWARD_PASSES[name] for name, count in passes.items()}
    widths = {
        "hidden": model.hidden,
        "intermediate": model.intermediate / tensor,
        "scores": model.heads * length / tensor,
    }
    numbers = sum(passes[name] * widths[name] for name in passes)
    return model.layers * numbers * model.compute_dtype.itemsize


def activation_bytes_per_token(config: PretrainConfig, tensor: int = 1) -> float:
    """Memory traffic of activations in training, bytes a token and chip.

    ELECTRA-Small at 128 tokens: 1.0 MB.
    """
    length = config.data.length
    total = layer_bytes_per_token(config.model, length, tensor)
    if config.generator.kind in ("transformer", "two_tower"):
        generator = generator_model(config.model, config.generator)
        # Heads that do not divide are computed whole on each chip.
        parts = 1 if generator.heads % tensor else tensor
        towers = 2 if config.generator.kind == "two_tower" else 1
        total += towers * layer_bytes_per_token(generator, length, parts)
    return total + LOGIT_PASSES * 4 * logits_per_token(config) / tensor


def logits_per_token(config: PretrainConfig) -> float:
    """Entries of all logits over the vocabulary, a token of the batch."""
    length = config.data.length
    masked = max_masked(config.objective.largest_mask_rate, length) / length
    shares = {"detector": 0.0, "masked_lm": masked, "copying_lm": 1.0}[config.electra.head]
    if config.generator.kind in ("transformer", "two_tower"):
        everywhere = find_objective(config.objective.name).generates_everywhere
        shares += 1.0 if everywhere else masked
    return shares * config.model.vocab_size


def saved_bytes_per_token(config: PretrainConfig, tensor: int = 1) -> float:
    """Activations kept for the backward pass, bytes a token and chip: a low guess.

    Only good enough to tell what cannot fit; the compiler knows the rest.
    """
    model = config.model
    layer = 8 * model.hidden + 2 * model.intermediate / tensor
    layer += model.heads * config.data.length / tensor
    kept = model.hidden * model.layers + layer if model.remat else layer * model.layers
    return kept * model.compute_dtype.itemsize + 4 * logits_per_token(config) / tensor


def estimate_step(
    config: PretrainConfig,
    chip: Chip,
    mesh: dict[str, int],
    parameters: int,
    state_bytes: float,
    wire_bytes: float,
) -> Estimate:
    """The estimate of a config's training step.

    Args:
      config: with its vocabulary size and dtype resolved.
      chip: each of the mesh.
      mesh: its sizes by axis.
      parameters: of the model.
      state_bytes: of the training state on one chip.
      wire_bytes: that one chip sends in a step.
    """
    tokens = config.train.batch_size * config.data.length
    share = tokens / (mesh["data"] * mesh["fsdp"])  # of a chip, or of those that are one in tensor
    recomputed = 4 / 3 if config.model.remat else 1.0
    flops = sum(flops_per_token(config).values()) * recomputed * share / mesh["tensor"]
    weights = config.train.accumulate * PARAMETER_BYTES * parameters / mesh["tensor"]
    traffic = share * activation_bytes_per_token(config, mesh["tensor"])
    # The optimizer reads the state and the gradients, and writes the state.
    return Estimate(flops, traffic + weights + 2 * state_bytes, wire_bytes, chip)
