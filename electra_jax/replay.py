"""Runs the step again at which a run met a number that was not finite."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from electra_jax.config import FinetuneConfig
from electra_jax.data.tokenizer import load_tokenizer
from electra_jax.errors import UsageError
from electra_jax.finetuning.finetune import finetuning_program
from electra_jax.inference.encoder import PretrainedEncoder
from electra_jax.inference.finetuned import read_task
from electra_jax.parallel.mesh import batch_sharding, make_mesh, replicated, with_mesh
from electra_jax.parallel.partition import path_name
from electra_jax.parallel.runtime import random_key, to_global
from electra_jax.pretraining.program import pretraining_program
from electra_jax.run_directory import TOKENIZER, typed_config
from electra_jax.system.json_files import reading
from electra_jax.training.checkpoint import Checkpoints
from electra_jax.training.program import Program
from electra_jax.training.replay import BUNDLE_FILE, Bundle, learnt, not_finite, read_bundle
from electra_jax.training.step import SupportsStep, make_gradients, prepare, step_keys

SHOWN = 5  # names of a list


def replay(folder: str | Path) -> str:
    """Runs the step of a bundle again, and says where the first number that is not finite is.

    Args:
      folder: a bundle in its run directory, whose tokenizer is used.

    Raises:
      UsageError: it is not a bundle, is damaged, or does not fit the devices that are here.
    """
    folder = Path(folder).resolve()
    bundle = read_bundle(folder)
    lines = [f"noticed    {bundle.content['what']}"]
    if bundle.step is None:
        lines.append(
            "step       none up to there had a loss, gradients or parameters that were not finite"
        )
        return "\n".join(lines)
    with reading(folder / BUNDLE_FILE):
        program, seed = bundle_program(bundle, folder.parent)
    with Checkpoints(folder, read_only=True) as checkpoints:
        restored = checkpoints.restore_latest(program.state, unchecked=True)
    if restored is None or restored.step != bundle.step:
        raise UsageError(f"{folder} does not hold the state before step {bundle.step}")
    state, mesh = restored.state, program.mesh
    run_key = random_key(seed, replicated(mesh))
    batch = {name: to_global(array, batch_sharding(mesh)) for name, array in bundle.batch.items()}
    examine = jax.jit(with_mesh(mesh, make_examination(program.objective)))
    share = to_global(np.array(bundle.content["progress"], np.float32), run_key.sharding)
    losses, norms = jax.device_get(examine(state.params, state.step, batch, run_key, share))
    before = not_finite(learnt(state))
    after = not_finite(learnt(program.train_step(state, batch, run_key, share)))
    bad_losses = [name for name, loss in losses.items() if not np.isfinite(loss)]
    bad_norms = [name for name, norm in norms.items() if not np.isfinite(norm)]
    found = {
        "the state before it": before, "the losses": bad_losses, "the gradients": bad_norms,
        "the state after it": after,
    }  # fmt: skip
    first = next((where for where, names in found.items() if names), "")
    lines += [
        f"step       {bundle.step:,}, from the state before it and with its batch",
        "losses     " + ", ".join(f"{name} {loss:.6g}" for name, loss in losses.items()),
        *(f"not finite in {where}: {shown(names)}" for where, names in found.items() if names),
        f"the first  in {first}" if first else "the first  none: on these devices all are finite",
    ]
    if after == bundle.content["not_finite_after"]:
        lines.append("as then    the same arrays are not finite after it")
    else:
        lines.append(f"then       not finite after it: {shown(bundle.content['not_finite_after'])}")
    return "\n".join(lines)


def shown(names: list[str]) -> str:
    """The first of some names, and how many there are."""
    if not names:
        return "none"
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def bundle_program(bundle: Bundle, workdir: Path) -> tuple[Program, int]:
    """The program of the run that left a bundle, and its seed."""
    record = bundle.content["record"]
    config = typed_config(record["config"])
    mesh = make_mesh(config.mesh)
    if not isinstance(config, FinetuneConfig):
        tokenizer = load_tokenizer(workdir / TOKENIZER)
        return pretraining_program(config, mesh, tokenizer), config.train.seed
    task, model = read_task(config, workdir)
    encoder = PretrainedEncoder(model, {}, task.tokenizer, config.train.length)
    return finetuning_program(config, encoder, task, record["steps"], mesh), config.train.seed


Examination = Callable[
    [Any, jax.Array, Mapping[str, jax.Array], jax.Array, jax.Array],
    tuple[dict[str, jax.Array], dict[str, jax.Array]],
]


def make_examination(objective: SupportsStep) -> Examination:
    """(parameters, step, batch, run key, progress) → mean losses, gradients' norms by path.

    Of the batch as a whole: with microbatches dropout differs from the run's.
    """
    gradients = make_gradients(objective)

    def examine(
        params: Any,
        step: jax.Array,
        batch: Mapping[str, jax.Array],
        run_key: jax.Array,
        progress: jax.Array,
    ) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        prepare_key, dropout_key = step_keys(run_key, step)
        prepared = prepare(objective, batch, prepare_key, progress)
        sums, _ = objective.losses(params, prepared, dropout_key, step, True)
        counts = objective.counts(prepared)
        losses = {name: total / jnp.maximum(counts[name], 1.0) for name, total in sums.items()}
        grads, _ = gradients(params, step, batch, run_key, progress)
        leaves = jax.tree_util.tree_leaves_with_path(grads)
        return losses, {path_name(path): optax.tree.norm(leaf) for path, leaf in leaves}

    return examine
