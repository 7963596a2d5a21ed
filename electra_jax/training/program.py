"""The program of a run: compiled steps and a placed state, for any objective on any mesh."""

import logging
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from electra_jax.parallel.mesh import replicated, with_mesh
from electra_jax.parallel.partition import Rules, place
from electra_jax.training.checkpoint import Checkpoints
from electra_jax.training.state import TrainState
from electra_jax.training.step import SupportsStep, make_eval_step, make_train_step

log = logging.getLogger(__name__)

COMPILING = "the training step; the first time this takes a minute or two, later starts are quicker"


class Program(NamedTuple):
    """Compiled steps, and where their arrays live.

    Attributes:
      objective: what is learnt.
      optimizer: how.
      mesh: of the devices.
      create: run key → a fresh state, placed.
      state: the state's shapes with their shardings.
      train_step: (state, batch, run key, progress) → state; donates its state.
      eval_step: (parameters, batch, key) → metric sums, replicated.
    """

    objective: SupportsStep
    optimizer: optax.GradientTransformationExtraArgs
    mesh: Mesh
    create: Callable[[jax.Array], TrainState]
    state: TrainState
    train_step: Any
    eval_step: Any


def build_program(
    objective: SupportsStep,
    optimizer: optax.GradientTransformationExtraArgs,
    create: Callable[[jax.Array], TrainState],
    rules: Rules,
    mesh: Mesh,
    accumulate: int = 1,
    frozen: str = "",
    skip_non_finite: bool = False,
    average: float = 0.0,
) -> Program:
    """Builds the program of a run; nothing is compiled before it is called.

    Args:
      objective: what is learnt.
      optimizer: takes `step` and `progress` in its update.
      create: run key → a fresh state.
      rules: where the arrays of the state lie.
      mesh: of devices, or of descriptions of devices that are not here.
      accumulate: microbatches of a step.
      frozen: regular expression: paths that the optimizer leaves as they are.
      skip_non_finite: whether steps that are not finite are skipped (see `make_train_step`).
      average: the decay of the average of the parameters, if the state has one.
    """
    state = abstract_state(create, rules, mesh)
    shardings = jax.tree.map(lambda x: x.sharding, state)
    return Program(
        objective,
        optimizer,
        mesh,
        jax.jit(create, out_shardings=shardings),
        state,
        jax.jit(
            with_mesh(
                mesh,
                make_train_step(objective, optimizer, accumulate, frozen, skip_non_finite, average),
            ),
            donate_argnums=0,
            out_shardings=shardings,
        ),
        jax.jit(with_mesh(mesh, make_eval_step(objective)), out_shardings=replicated(mesh)),
    )


def abstract_state(
    create: Callable[[jax.Array], TrainState], rules: Rules, mesh: Mesh
) -> TrainState:
    """The shapes of a state with their shardings; warns of paths that no rule matched."""
    shapes = jax.eval_shape(create, jax.random.key(0))
    shardings, unmatched = place(shapes, rules, mesh)
    for name in unmatched:
        log.warning("no partition rule matches %s: it is replicated", name)
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings
    )


def compile_step(
    program: Program,
    batch: Mapping[str, jax.ShapeDtypeStruct],
    options: Mapping[str, Any] | None = None,
) -> jax.stages.Compiled:
    """Compiles the training step for the devices of its mesh, which need not be here.

    Args:
      program: of the run.
      batch: the global batch's shapes with their shardings.
      options: of the compiler.
    """
    key = jax.eval_shape(jax.random.key, 0)
    key = jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=replicated(program.mesh))
    progress = jax.ShapeDtypeStruct((), jnp.float32, sharding=replicated(program.mesh))
    lowered = program.train_step.lower(program.state, batch, key, progress)
    return lowered.compile(compiler_options=dict(options) if options else None)


def start(
    program: Program,
    checkpoints: Checkpoints,
    run_key: jax.Array,
    warm_start: Callable[[TrainState], TrainState] | None = None,
) -> tuple[TrainState, float]:
    """Restores the latest state of a run, or creates its first.

    Args:
      program: of the run.
      checkpoints: of the run.
      run_key: replicated.
      warm_start: puts parameters of another model into a fresh state.

    Returns:
      The state, and the seconds that the run has taken so far.

    Raises:
      UsageError: there are checkpoints, but none can be read.
    """
    restored = checkpoints.restore_latest(program.state)
    if restored is not None:
        return restored.state, restored.record["elapsed"]
    return first_state(program, run_key, warm_start), 0.0


def first_state(
    program: Program,
    run_key: jax.Array,
    warm_start: Callable[[TrainState], TrainState] | None = None,
) -> TrainState:
    """The state that a run begins with (see `start`)."""
    state = program.create(run_key)
    if warm_start is None:
        return state
    state = warm_start(state)
    # Copied: a step donates both.
    return state.replace(average=jax.tree.map(jnp.copy, state.params)) if state.average else state
