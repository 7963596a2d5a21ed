"""electra-jax's training step on random words, in turns (turns.py).

As a command it reads {"config": SPEC, "overrides": […]} as a line of JSON.
"""

import json
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

import jax
import jax.numpy as jnp
import numpy as np
from turns import host_memory, take_turns

from electra_jax.config import BERT_TOKENS, PretrainConfig, load_config, pretrain_config
from electra_jax.parallel.mesh import MeshConfig, make_mesh
from electra_jax.parallel.runtime import enable_compilation_cache
from electra_jax.pretraining.program import pretraining_program

VOCAB_SIZE = 30522


def make_config(spec: str, *overrides: str) -> PretrainConfig:
    return pretrain_config(load_config(spec, [f"model.vocab_size={VOCAB_SIZE}", *overrides]))


def make_batch(config: PretrainConfig, seed: int = 0) -> dict[str, jax.Array]:
    """Rows of random words, each one document."""
    shape = (config.train.batch_size, config.data.length)
    tokens = np.random.default_rng(seed).integers(1000, VOCAB_SIZE, shape, dtype=np.int32)
    tokens[:, 0], tokens[:, -1] = BERT_TOKENS.cls, BERT_TOKENS.sep
    ones = np.ones(shape, np.int32)
    return jax.device_put({"tokens": tokens, "documents": ones, "types": 0 * ones})


def make_step(config: PretrainConfig):
    """The program of a config on one device, a fresh state, and the compiled training step."""
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    program = pretraining_program(config, mesh, None)
    state = program.create(jax.random.key(0))
    step = program.train_step.lower(state, make_batch(config), jax.random.key(0), jnp.float32(0.5))
    return program, state, step.compile()


def main() -> None:
    enable_compilation_cache()
    content = json.loads(sys.stdin.readline())
    config = make_config(content["config"], *content["overrides"])
    _, state, compiled = make_step(config)
    batch, key, progress = make_batch(config), jax.random.key(0), jnp.float32(0.5)

    def step() -> None:
        nonlocal state
        state = jax.block_until_ready(compiled(state, batch, key, progress))

    def compiled_bytes() -> float:
        memory = compiled.memory_analysis()
        return memory.argument_size_in_bytes + memory.temp_size_in_bytes

    memory = host_memory if jax.default_backend() == "cpu" else compiled_bytes
    take_turns(step, {"version": f"jax {jax.__version__}"}, memory)


if __name__ == "__main__":
    main()
