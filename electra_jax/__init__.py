"""ELECTRA pretraining and fine-tuning in JAX.

`load(DIR)` opens a model directory: `.predict([...])`, `.embed([...])`, `.inspect(text)`.
"""

from typing import Any

__version__ = "0.1.0"
__all__ = ["load"]


def __getattr__(name: str) -> Any:
    # Only when it is asked for: JAX takes seconds to import, and `--version` needs none of it.
    if name == "load":
        from electra_jax.inference.finetuned import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
