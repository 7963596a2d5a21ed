"""What a finished encoder is fine-tuned for.

A task is a class in a module of this package, derived from `electra_jax.tasks.task.Task`,
with a `name`, by which `task.name` of a config finds it, and a `Config` of its own fields.
docs/tasks.md shows how to add one.
"""

import functools
import importlib
import pkgutil
from typing import Any


@functools.cache
def tasks() -> dict[str, Any]:
    """All tasks of this package by name."""
    found: dict[str, Any] = {}
    for module in pkgutil.iter_modules(__path__):
        for value in vars(importlib.import_module(f"{__name__}.{module.name}")).values():
            if isinstance(value, type) and hasattr(value, "Config") and vars(value).get("name"):
                found[vars(value)["name"]] = value
    return found
