"""How large the gradient of each matrix is at the start, as the optimizer gets it.

    python benchmarks/gradients.py [--config pretrain/small] [--rows 32]

Prints the root mean square of each kind of matrix over the layers of each network, on rows of
random words, after clipping, and beside it Adam's epsilon: updates of what lies below are smaller
than the learning rate says.
"""

import argparse
import collections
import re

import jax
import jax.numpy as jnp
import optax
from jax_step import make_batch, make_config

from electra_jax.parallel.mesh import MeshConfig, make_mesh
from electra_jax.parallel.partition import path_name
from electra_jax.pretraining.program import pretraining_program


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="pretrain/small")
    parser.add_argument("--rows", type=int, default=32)
    args = parser.parse_args()
    config = make_config(args.config, f"train.batch_size={args.rows}")
    program = pretraining_program(config, make_mesh(MeshConfig(), jax.devices()[:1]), None)
    objective = program.objective
    params = program.create(jax.random.key(0)).params

    @jax.jit
    def gradient(batch):
        prepared = objective.prepare(batch, jax.random.key(1))
        counts, weights = objective.counts(prepared), objective.weights(0)

        def total(params):
            losses, _ = objective.losses(params, prepared, jax.random.key(2), jnp.int32(0), True)
            return sum(weights[name] * loss / counts[name] for name, loss in losses.items())

        return jax.grad(total)(params)

    grads = gradient(make_batch(config))
    norm = float(optax.global_norm(grads))
    squares = collections.defaultdict(list)
    for path, value in jax.tree_util.tree_leaves_with_path(grads):
        name = re.sub(r"layer_\d+", "layer", path_name(path))
        if value.ndim > 1:
            squares[name].append(
                float(jnp.mean((value / max(norm / config.optimizer.clip, 1)) ** 2))
            )
    print(f"norm before clipping {norm:.1f}, epsilon {config.optimizer.epsilon:.0e}")
    for name, values in squares.items():
        print(f"{name:50} {(sum(values) / len(values)) ** 0.5:.1e}")


if __name__ == "__main__":
    main()
