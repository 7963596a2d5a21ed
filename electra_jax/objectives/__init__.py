"""What is learnt.

An objective is a class in a module of this package, with a `name`, by which
`objective.name` of a config finds it, a `head`, the kind of main network it trains (see
`electra_jax.models.electra`), the kinds of `generators` that fit it, and whether its generator
`generates_everywhere`, which costs more. It is told to the training step through five functions:

- `prepare(batch, key)`: draws what is random about the batch as a whole (positions,
  uniform numbers) and adds it to the batch's arrays, all of leading size B. It is done
  once for the global batch, so neither the mesh nor gradient accumulation changes it.
- `counts(prepared)`: by loss, how many terms the global batch has. They follow from the
  prepared batch alone, so every microbatch's gradient is at once on the right scale.
- `losses(params, prepared, key, step, train)`: by loss, the sum over a microbatch, and
  the metric sums, which add over microbatches, steps and hosts.
- `weights(step)`: by loss, its weight. The total is the sum of weight * loss sum / count.
- `summarise(sums)`: names and values of the metrics, from added-up metric sums; "loss" is
  the total.

docs/objectives.md shows how to add one.
"""

import functools
import importlib
import pkgutil
from typing import Any


@functools.cache
def objectives() -> dict[str, Any]:
    """All objectives of this package by name."""
    found: dict[str, Any] = {}
    for module in pkgutil.iter_modules(__path__):
        for value in vars(importlib.import_module(f"{__name__}.{module.name}")).values():
            # Modules of a network have a head and a name, too, but their name is not set.
            if isinstance(value, type) and hasattr(value, "head") and vars(value).get("name"):
                found[vars(value)["name"]] = value
    return found
