"""Objectives: what pretraining learns.

The contract is `electra_jax.objectives.objective.Objective`; docs/objectives.md shows how to add
an objective, in a module of this folder or of another package.
"""

from electra_jax.objectives.objective import Objective
from electra_jax.plugins import choose, find_classes


def objectives() -> dict[str, type[Objective]]:
    """All objectives by name: of this package, of entry points and of imported plugins."""
    return find_classes(Objective, __name__)  # type: ignore[type-abstract]


def find_objective(name: str) -> type[Objective]:
    """The class of an objective.

    Raises:
      UsageError: see `plugins.choose`.
    """
    return choose(objectives(), "objective.name", name)
