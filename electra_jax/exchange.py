"""Models out of run directories, and into them."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from electra_jax.config import build_objective, config_fields
from electra_jax.data.tokenizer import load_tokenizer
from electra_jax.errors import UsageError
from electra_jax.inference.finetuned import FinetunedModel, load
from electra_jax.inference.pretrained import PretrainedModel, imported_config, load_hugging_face
from electra_jax.interop import huggingface, names, tensorflow1
from electra_jax.interop.hub import local_model
from electra_jax.models.electra import count_params, generator_model, unstack_params
from electra_jax.pretraining.program import create_state
from electra_jax.pretraining.resume import IMPORTED
from electra_jax.pretraining.warm_start import warm_start
from electra_jax.run_directory import CONFIG_FILE, RESULTS_FILE, TOKENIZER, save_config
from electra_jax.system.atomic_files import atomic_folder, write_text
from electra_jax.system.json_files import read_object, reading
from electra_jax.training.checkpoint import FOLDER, Checkpoints, SaveFailed, holds_checkpoint
from electra_jax.training.metrics import held_out_metrics
from electra_jax.training.optimizer import AdamState, make_optimizer
from electra_jax.training.records import read_record

README = "README.md"  # the model card
SETTLE_SECONDS = 1.0  # after a save that failed


class CardFacts(NamedTuple):
    """What a model card says that the run does not know; "" for what is left out.

    Attributes:
      licence: as the hub has it, such as "apache-2.0".
      language: as the hub has it, such as "en"; or several with commas.
    """

    licence: str = ""
    language: str = ""

    def front_matter(self, *lines: str) -> list[str]:
        """The lines of a card that the hub reads, with those that are known beforehand."""
        languages = ", ".join(part.strip() for part in self.language.split(",") if part.strip())
        return [
            "---",
            *([f"license: {self.licence}"] if self.licence else []),
            *([f"language: [{languages}]"] if languages else []),
            "library_name: transformers",
            *lines,
            "---",
            "",
        ]


def export_model(
    path: str | Path, to: str | Path, checkpoint: str = "best", facts: CardFacts | None = None
) -> list[str]:
    """Writes `discriminator/`, `generator/` and a model card for the transformers library.

    A masked language model becomes `masked_lm/`, and of one that copies, for which there is no
    class, the encoder alone `encoder/`; a fine-tuned model lies in `to` itself.

    Args:
      path: a run directory, or another model directory.
      to: is made; must not hold anything yet.
      checkpoint: of a run directory.
      facts: for the model card.

    Returns:
      The folders written.

    Raises:
      UsageError: no model, none that the library knows, one whose fine-tuning has not ended,
        or `to` is not empty or cannot be written.
    """
    path = local_model(path)
    with atomic_folder(to, CONFIG_FILE) as folder:
        model = load(path, checkpoint)
        if isinstance(model, FinetunedModel):
            _export_task_model(model, path, folder, facts or CardFacts())
            return [str(to)]
        networks = _export_networks(model, path, folder, facts or CardFacts())
    return [str(Path(to, network)) for network in networks]


def _export_networks(
    model: PretrainedModel, path: str | Path, to: Path, facts: CardFacts
) -> list[str]:
    params = jax.device_get(unstack_params(model.config.electra, model.params))
    networks = names.split_networks(params)
    if not networks:
        raise UsageError(f"{path} holds no network that the transformers library knows")
    small = generator_model(model.config.model, model.config.generator)
    card = model_card(
        model,
        count_params(params),
        list(networks),
        _held_out(path, model.step),
        _origin(path, model),
        facts,
    )
    for network, flat in networks.items():
        folder = to / network
        shape = small if network == "generator" else model.config.model
        huggingface.write_network(
            folder, network, flat, shape, model.tokenizer, model.config.data.length
        )
        write_text(folder / README, card)
    write_text(to / README, card)
    return list(networks)


def _export_task_model(model: FinetunedModel, path: str | Path, to: Path, facts: CardFacts) -> None:
    kind, task = model.task.exported_as, model.task
    if not kind:
        raise UsageError(
            f"transformers has no class for the task {task.name} with head={task.config.head}: "
            "keep the run directory, and use `predict`"
        )
    metrics = _metrics_at(path, model.step)
    opens_with = huggingface.write_task_model(
        to, kind, names.flatten(jax.device_get(model.params)), model.model, task.tokenizer,
        task.state.get("labels", ["score"] if kind == "ForSequenceClassification" else ()),
        task.row_pooling(model.model), model.config.train.length,
    )  # fmt: skip
    write_text(to / README, task_card(model, opens_with, metrics, facts))


def _metrics_at(path: str | Path, step: int) -> dict[str, float]:
    """The metrics of a fine-tuning run at a step: its results, or what it logged then."""
    file = Path(path) / RESULTS_FILE
    if not file.exists():
        raise UsageError(
            f"{file} is missing: give the same `finetune` again and let the run finish"
        )
    results = read_object(file)
    with reading(file):
        if results.get("step", step) != step:
            return held_out_metrics(path, step)
        metrics = results["metrics"]
        return {name: float(value) for name, value in metrics.items() if value is not None}


def task_card(
    model: FinetunedModel, opens_with: str, metrics: Mapping[str, float], facts: CardFacts
) -> str:
    """A model card: what it does, how it was trained, how well it does."""
    train = model.config.train
    scale = getattr(model.task.config, "scale", 1)
    lines = [
        *facts.front_matter(),
        f"# {model.task.name}",
        "",
        f"Fine-tuned with electra-jax from `{Path(model.config.init.from_).name}`: "
        f"{model.step:,} steps of {train.batch_size} rows of at most {train.length} tokens, "
        f"learning rate {model.config.learning_rate(model.model):g}, seed {train.seed}.",
        f"Opens with `{opens_with}`:",
        "",
        "```python",
        f"from transformers import AutoTokenizer, {opens_with}",
        "",
        f'model = {opens_with}.from_pretrained("FOLDER")',
        'tokenizer = AutoTokenizer.from_pretrained("FOLDER")',
        "```",
        "",
        *([f"Its scores are to be multiplied by {scale:g}."] if scale != 1 else []),
        "",
        "| metric on validation data | value |",
        "|---|---|",
        *(f"| {name} | {value:.4g} |" for name, value in metrics.items()),
    ]
    return "\n".join(lines) + "\n"


def import_model(
    path: str | Path,
    to: str | Path,
    generator: str | Path | None = None,
    vocab: str | Path = "",
    special_tokens: Mapping[str, str] | Sequence[str] = (),
) -> list[str]:
    """Makes a run directory of a Hugging Face directory or of an official TF1 checkpoint.

    `pretrain` resumes from it, and every other command takes it.

    Args:
      path: a directory, or the prefix of a TF1 checkpoint's files.
      to: is made; must not hold anything yet.
      generator: a Hugging Face generator, where it lies apart.
      vocab: the vocab.txt of a TF1 checkpoint; by default the one beside it.
      special_tokens: see `load_tokenizer`.

    Returns:
      The parts that were not there and are fresh.

    Raises:
      UsageError: see `huggingface.read_model` and `tensorflow1.read_checkpoint`; or `to` is not
        empty or cannot be written.
    """
    path = local_model(path)
    with atomic_folder(to, CONFIG_FILE) as folder:
        return _import_model(path, folder, generator, vocab, special_tokens)


def _import_model(
    path: str | Path,
    to: Path,
    generator: str | Path | None,
    vocab: str | Path,
    special_tokens: Mapping[str, str] | Sequence[str],
) -> list[str]:
    slots: dict[str, Any] = {}
    if huggingface.is_hugging_face(path):
        source = load_hugging_face(path, generator, special_tokens)
    elif tensorflow1.is_checkpoint(path):
        read = tensorflow1.read_checkpoint(path)
        tokenizer = load_tokenizer(
            vocab or Path(path).parent / "vocab.txt", special_tokens=special_tokens
        )
        if tokenizer.vocab_size != read.model.vocab_size:
            raise UsageError(
                f"the vocabulary has {tokenizer.vocab_size} pieces, the checkpoint "
                f"{read.model.vocab_size}"
            )
        config = imported_config(read.model, read.generator)
        source = PretrainedModel(config, read.params, tokenizer, read.step)
        slots = {"mu": read.first_moments, "nu": read.second_moments} if read.slots else {}
    else:
        raise UsageError(
            f"{path} is neither a Hugging Face directory (config.json) nor a TF1 checkpoint "
            "(PREFIX.index)"
        )
    config = source.config
    objective = build_objective(config, source.tokenizer)
    optimizer = make_optimizer(config.optimizer)
    state = jax.jit(lambda key: create_state(config, objective, optimizer, key))(jax.random.key(0))
    fresh = jax.device_get(state.params)
    params = warm_start(config, source.tokenizer, fresh, source)
    state = state.replace(
        step=np.int32(source.step), params=params, opt_state=_with_slots(state.opt_state, slots)
    )
    there = names.flatten(source.params)
    missing = [path for path in names.flatten(params) if path not in there]
    origin = {
        "name": Path(path).resolve().name,
        "fresh": sorted({"/".join(path.split("/")[:2]) for path in missing}),
    }
    record = {
        "store": IMPORTED, "tokenizer": source.tokenizer.identity, "origin": origin,
        "config": config_fields(config), "elapsed": 0.0,
    }  # fmt: skip
    save_config(config, to)
    source.tokenizer.save(to / TOKENIZER)
    try:
        with Checkpoints(to) as checkpoints:
            checkpoints.save(source.step, jax.tree.map(jax.numpy.asarray, state), record)
            checkpoints.wait()
    except SaveFailed:
        # Its threads still write, and would make the folder again once it is cleared away.
        time.sleep(SETTLE_SECONDS)
        raise
    return sorted({path.split("/")[0] for path in missing})


def _origin(path: str | Path, model: PretrainedModel) -> dict[str, Any] | None:
    """Where a model comes from that was imported and not trained since; None for others."""
    if huggingface.is_hugging_face(path):
        return {"name": Path(path).resolve().name, "fresh": []}
    if not holds_checkpoint(path):
        return None
    record = read_record(Path(path) / FOLDER / str(model.step)).content
    if record.get("store") != IMPORTED:
        return None
    return record.get("origin") or {"name": "another program's model", "fresh": []}


def model_card(
    model: PretrainedModel,
    parameters: int,
    networks: list[str],
    held_out: dict[str, float],
    origin: dict[str, Any] | None,
    facts: CardFacts,
) -> str:
    """A model card: what it is, how it was trained or where it is from, how well it does."""
    config = model.config
    architecture = config.model.architecture
    lines = [
        *facts.front_matter("tags: [electra, replaced-token-detection]"),
        f"# ELECTRA ({architecture}), {parameters:,} parameters",
        "",
        _training(model, origin),
        "",
        "| network | layers | hidden | opens with |",
        "|---|---|---|---|",
    ]
    small = generator_model(config.model, config.generator)
    for network in networks:
        shape = small if network == "generator" else config.model
        opens = huggingface.CLASSES[architecture, network]
        lines.append(f"| `{network}/` | {shape.layers} | {shape.hidden} | `{opens}` |")
    lines += [
        "",
        "`AutoModel` opens any of them as an encoder, to be fine-tuned:",
        "",
        "```python",
        "from transformers import AutoModel, AutoTokenizer",
        "",
        f'model = AutoModel.from_pretrained("FOLDER", subfolder="{networks[0]}")',
        f'tokenizer = AutoTokenizer.from_pretrained("FOLDER", subfolder="{networks[0]}")',
        "```",
        "",
    ]
    if held_out:
        lines += ["Measured on held-out text:", "", "| metric | value |", "|---|---|"]
        lines += [f"| {name} | {value:.4g} |" for name, value in held_out.items()]
        lines.append("")
    if origin:
        return "\n".join(lines)
    settings = config_fields(config)
    lines += ["Settings:", "", "| field | value |", "|---|---|"]
    for section in ("objective", "optimizer", "train"):
        lines += [f"| {section}.{name} | {v} |" for name, v in settings[section].items() if v != ""]
    return "\n".join(lines) + "\n"


def _training(model: PretrainedModel, origin: dict[str, Any] | None) -> str:
    config = model.config
    if not origin:
        return (
            f"Pretrained with electra-jax (objective: {config.objective.name}) for {model.step:,} "
            f"steps of {config.train.batch_size} rows of {config.data.length} tokens."
        )
    text = f"Imported with electra-jax from `{origin['name']}`, and not trained since."
    if origin["fresh"]:
        parts = ", ".join(f"`{name}`" for name in origin["fresh"])
        text += f" These parts were not in it and are random, to be trained before use: {parts}."
    return text


def _held_out(path: str | Path, step: int) -> dict[str, float]:
    """The metrics that a run logged when it evaluated that step, as the log names them."""
    return {f"eval/{name}": value for name, value in held_out_metrics(path, step).items()}


def _with_slots(opt_state: Any, slots: dict[str, Any]) -> Any:
    """An optimizer state with the moments that a checkpoint had."""
    if not slots:
        return opt_state
    return jax.tree.map(
        lambda x: AdamState(**slots) if isinstance(x, AdamState) else x,
        opt_state,
        is_leaf=lambda x: isinstance(x, AdamState),
    )
