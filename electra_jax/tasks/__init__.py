"""Tasks: what an encoder is fine-tuned for.

The contract is `electra_jax.tasks.task.Task`; docs/tasks.md shows how to add a task, in a module
of this folder or of another package.
"""

from electra_jax.plugins import choose, find_classes
from electra_jax.tasks.task import Task


def tasks() -> dict[str, type[Task]]:
    """All tasks by name: of this package, of entry points and of imported plugins."""
    return find_classes(Task, __name__)  # type: ignore[type-abstract]


def find_task(name: str) -> type[Task]:
    """The class of a task.

    Raises:
      UsageError: see `plugins.choose`.
    """
    return choose(tasks(), "task.name", name)
