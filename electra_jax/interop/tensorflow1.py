"""Reads checkpoints of the official TensorFlow 1 code (google-research/electra).

The released ones lack the optimizer's slots; checkpoints of one's own runs have them, as
`VARIABLE/adam_m` and `VARIABLE/adam_v`.
"""

import dataclasses
import glob
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from electra_jax.errors import UsageError
from electra_jax.interop import names
from electra_jax.models.electra import GeneratorConfig
from electra_jax.models.encoder import ModelConfig
from electra_jax.system.json_files import DAMAGE, short_reason

HEAD_SIZE = 64  # of every network of the official code; the variables do not tell


@dataclasses.dataclass
class TensorFlow1Model:
    """A checkpoint that was read; a missing generator's part is missing in `params`."""

    model: ModelConfig
    generator: GeneratorConfig
    params: dict[str, Any]
    step: int
    slots: bool  # whether there were an optimizer's moments for every parameter
    first_moments: dict[str, Any]
    second_moments: dict[str, Any]


def is_checkpoint(prefix: str | Path) -> bool:
    """Whether PREFIX.index is there."""
    return Path(f"{prefix}.index").is_file()


def read_checkpoint(prefix: str | Path) -> TensorFlow1Model:
    """Parameters, step and, where there are any, optimizer slots.

    Args:
      prefix: of the checkpoint's files, such as `electra_small/model.ckpt-1000000`.

    Raises:
      UsageError: damaged, no ELECTRA, or a variable is missing.
    """
    import tensorflow as tf

    try:
        reader = tf.train.load_checkpoint(str(prefix))
        shapes = reader.get_variable_to_shape_map()
        _check_sizes(shapes, prefix)
    # A damaged index may ask TensorFlow for more memory than there is.
    except (tf.errors.OpError, UsageError, MemoryError, *DAMAGE) as error:
        raise UsageError(f"{prefix} cannot be read: {short_reason(error)}") from error
    try:
        model = _shape(shapes, "electra")
        tables = {"discriminator": names.tensorflow1(model, "discriminator")}
        generator = GeneratorConfig()
        if any(name.startswith("generator/encoder/") for name in shapes):
            small = _shape(shapes, "generator")
            generator = GeneratorConfig(
                width=small.hidden / model.hidden, depth=small.layers / model.layers
            )
            small = dataclasses.replace(small, embedding=model.embedding)
            tables["generator"] = names.tensorflow1(small, "generator")
        needed = [name.theirs for table in tables.values() for name in table]
        if missing := [name for name in needed if name not in shapes]:
            raise UsageError(f"variable {missing[0]} is missing")
        _check_unread(shapes, set(needed), tables.keys())
        slots = all(f"{name}/{slot}" in shapes for name in needed for slot in ("adam_m", "adam_v"))

        def read(suffix: str) -> dict[str, Any]:
            flat = {}
            for network, table in tables.items():
                tensors = {n.theirs: reader.get_tensor(n.theirs + suffix) for n in table}
                for path, value in names.read_tensors(table, tensors).items():
                    shared = path.startswith("embeddings/")
                    flat[path if shared else f"{network}/{path}"] = value
            return names.unflatten(flat)

        step = int(reader.get_tensor("global_step")) if "global_step" in shapes else 0
        return TensorFlow1Model(
            model,
            generator,
            read(""),
            step if slots else 0,  # without slots a new schedule begins
            slots,
            read("/adam_m") if slots else {},
            read("/adam_v") if slots else {},
        )
    except (tf.errors.OpError, UsageError, *DAMAGE) as error:
        raise UsageError(f"{prefix}: {short_reason(error)}") from error


def _check_sizes(shapes: Mapping[str, Sequence[int]], prefix: str | Path) -> None:
    """Refuses shapes that the files of the values are too small for, before memory is taken.

    Raises:
      UsageError: they are.
    """
    files = Path(prefix).parent.glob(f"{glob.escape(Path(prefix).name)}.data-*")
    held = sum(file.stat().st_size for file in files)
    if sum(math.prod(map(abs, shape)) for shape in shapes.values()) > held:
        raise UsageError("its index announces more values than its data holds")


def _check_unread(shapes: Iterable[str], read: set[str], networks: Iterable[str]) -> None:
    """Refuses variables of the networks that would change what is read.

    Raises:
      UsageError: names the first; a generator's own embeddings, for one.
    """
    roots = {"discriminator": ("electra/", "discriminator_predictions/"),
             "generator": ("generator/", "generator_predictions/")}  # fmt: skip
    for name in sorted(shapes):
        variable = re.sub("/(adam_m|adam_v)$", "", name)
        inside = variable.startswith(tuple(root for n in networks for root in roots[n]))
        # The official code's pooler serves its fine-tuning.
        if inside and variable not in read and "/pooler/" not in variable:
            raise UsageError(f"variable {name} is not read: this model has no place for it")


def _shape(shapes: dict[str, list[int]], root: str) -> ModelConfig:
    """A network's shape, from the shapes of its variables."""
    try:
        vocab_size, embedding = shapes["electra/embeddings/word_embeddings"]
        positions, _ = shapes["electra/embeddings/position_embeddings"]
        types, _ = shapes["electra/embeddings/token_type_embeddings"]
        hidden, intermediate = shapes[f"{root}/encoder/layer_0/intermediate/dense/kernel"]
    except KeyError as error:
        raise UsageError(f"no ELECTRA: variable {error} is missing") from None
    pattern = re.compile(rf"{root}/encoder/layer_(\d+)/")
    layers = {int(match[1]) for name in shapes if (match := pattern.match(name))}
    return ModelConfig(
        vocab_size=vocab_size,
        layers=max(layers) + 1,
        hidden=hidden,
        heads=max(1, hidden // HEAD_SIZE),
        intermediate=intermediate,
        embedding=embedding,
        max_positions=positions,
        token_types=types,
    )
