"""Classes that a config finds by name: objectives and tasks, of this package and of others.

A module adds the classes that it defines as soon as it is imported. Modules in the folders of
this package are imported first, then those that installed packages name as entry points;
`--plugin MODULE` imports any other.
"""

import functools
import hashlib
import importlib
import inspect
import os
import pkgutil
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from electra_jax.errors import UsageError

T = TypeVar("T")


def find_classes(base: type[T], package: str) -> dict[str, type[T]]:
    """Finds the subclasses of a contract that set a `name` of their own, by that name.

    Args:
      base: the contract. Subclasses without a name of their own are bases of others.
      package: its modules are imported first, and the entry points of the group of this name.

    Raises:
      UsageError: two classes share a name, or an entry point cannot be imported.
    """
    _import_all(package)
    found: dict[str, type[T]] = {}
    for kind in _subclasses(base):
        name = vars(kind).get("name")
        if not isinstance(name, str) or not name:
            continue
        first = _where(found.get(name, kind))
        if first != _where(kind):
            raise UsageError(f"{first} and {_where(kind)} are both named {name!r}: rename one")
        found[name] = kind  # the last one of a module that was imported again
    return found


def choose(known: Mapping[str, type[T]], field: str, name: str) -> type[T]:
    """The class that a field of a config names.

    Raises:
      UsageError: the name is unknown, or the class lacks methods or attributes of its contract.
    """
    if name not in known:
        raise UsageError(
            f"{field}={name!r} is unknown; use {', '.join(sorted(known))}, or give the module "
            "that adds it: --plugin MODULE"
        )
    kind = known[name]
    if missing := {*kind.__abstractmethods__, *_unset_attributes(kind)}:  # type: ignore[attr-defined]
        raise UsageError(f"{field}={name!r}: {_where(kind)} lacks {', '.join(sorted(missing))}")
    return kind


def import_plugin(module: str) -> None:
    """Imports a module of the current directory, of PYTHONPATH or of an installed package.

    Raises:
      UsageError: it cannot be imported.
    """
    # The directory of the command is on Python's path, and not that in which it is called.
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        importlib.import_module(module)
    except Exception as error:
        raise UsageError(f"--plugin {module} cannot be imported: {_reason(error)}") from error


def fingerprint(plugins: Iterable[str]) -> dict[str, str]:
    """The code of imported plugins, for processes to compare."""
    files = {name: Path(sys.modules[name].__file__ or "") for name in plugins}
    return {
        f"the code of --plugin {name}": hashlib.sha256(file.read_bytes()).hexdigest()[:16]
        for name, file in files.items()
        if file.is_file()
    }


@functools.cache
def _import_all(package: str) -> None:
    from importlib import metadata  # slow to import, and `--help` needs none of it

    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        importlib.import_module(f"{package}.{module.name}")
    for point in metadata.entry_points(group=package):
        try:
            point.load()
        except Exception as error:
            owner = point.dist.name if point.dist else "a package"
            raise UsageError(
                f"the entry point {point.name} of {owner} cannot be loaded: {_reason(error)}"
            ) from error


def _subclasses(base: type[T]) -> Iterator[type[T]]:
    for kind in base.__subclasses__():
        yield kind
        yield from _subclasses(kind)


def _unset_attributes(kind: type) -> Iterator[str]:
    """The class variables that a contract declares and the class does not set."""
    for base in kind.__mro__:
        for name, annotation in inspect.get_annotations(base).items():
            if "ClassVar" in str(annotation) and not hasattr(kind, name):
                yield name


def _where(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _reason(error: Exception) -> str:
    """An error in one line, with the line of code that raised it."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return text if "importlib" in frame.filename else f"{text} ({frame.filename}:{frame.lineno})"
