"""English text that every installation has: the documentation of its Python packages.

Documentation is read from source files, never by importing a package: docstrings and
other long string literals, comments of a paragraph's length, bundled `.md`, `.rst` and
`.txt` files, and the package's description. One source file makes one document. Markup
and code are taken off, and only what reads as English sentences stays; a paragraph met
before, in any package, is left out.
"""

import ast
import hashlib
import importlib.metadata
import importlib.util
import inspect
import os
import platform
import re
import sysconfig
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from electra_jax.data import prose
from electra_jax.data.json_values import without_surrogates
from electra_jax.errors import UsageError
from electra_jax.system.workers import may_have_workers, worker_pool

# Raised when the rules below change what text comes out, so that a store made by older
# rules is not taken for one made by these.
RULES = 1

# The standard library ("python") and what this project's dependencies bring, by import
# name. A package that is not installed is left out.
PACKAGES = (
    "python",
    "absl", "anyio", "array_record", "astunparse", "attr", "attrs", "certifi",
    "charset_normalizer", "click", "contourpy", "cycler", "dateutil", "docstring_parser",
    "einops", "etils", "filelock", "flatbuffers", "flax", "fontTools", "fsspec", "gast",
    "google", "grpc", "h5py", "httpcore2", "httpx2", "huggingface_hub", "humanize", "idna",
    "immutabledict", "jax", "jaxlib", "keras", "kiwisolver", "markdown_it", "matplotlib",
    "ml_collections", "ml_dtypes", "mpl_toolkits", "msgpack", "namex", "numpy", "opt_einsum",
    "optax", "optree", "orbax", "packaging", "PIL", "prometheus_client", "promise", "psutil",
    "pyarrow", "pygments", "pyparsing", "requests", "rich", "safetensors", "scipy",
    "sentencepiece", "setuptools", "simple_parsing", "simplejson", "tensorboardX",
    "tensorflow", "tensorflow_datasets", "tensorstore", "termcolor", "tokenizers", "tqdm",
    "tree", "treescope", "urllib3", "wrapt", "yaml", "zipp", "zstandard",
)  # fmt: skip

_SKIPPED_FOLDERS = {"__pycache__", "dist-packages", "site-packages", "test", "testing", "tests"}
_TEXT_SUFFIXES = {".md", ".rst", ".txt"}
_SUFFIXES = _TEXT_SUFFIXES | {".py", ".pyi", ".h", ".hpp"}
_LARGEST_FILE = 4 << 20  # bytes; larger ones are tables
_SHORTEST_STRING = 40  # characters; shorter ones are not sentences


def find_packages(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Versions of those `packages` that are installed, by import name, in the order given.

    Raises:
      UsageError: none is installed, or a name outside `PACKAGES` is not.
    """
    distributions = importlib.metadata.packages_distributions()
    found = {}
    for name in packages:
        if name == "python":
            found[name] = platform.python_version()
        elif name in distributions and _folders(name):
            found[name] = importlib.metadata.version(distributions[name][0])
        elif name not in PACKAGES:
            raise UsageError(f"docs:{name}: no installed package of that name")
    if not found:
        raise UsageError(f"docs: none of these packages is installed: {', '.join(packages)}")
    return found


def find_sources(packages: Iterable[str]) -> list[Path]:
    """Files of installed `packages` that may hold documentation, package by package, sorted."""
    files = []
    for name in packages:
        for folder in _folders(name):
            for parent, subfolders, names in os.walk(folder):
                subfolders[:] = sorted(set(subfolders) - _SKIPPED_FOLDERS)
                files += [
                    Path(parent, file)
                    for file in sorted(names)
                    if os.path.splitext(file)[1] in _SUFFIXES
                ]
        files += _descriptions(name)
    # A link may lead nowhere.
    return [file for file in files if file.is_file() and file.stat().st_size <= _LARGEST_FILE]


def read_documents(files: Sequence[Path], workers: int | None = None) -> Iterator[tuple[str, int]]:
    """Yields a document, one paragraph a line, and the bytes of `files` read so far.

    Args:
      files: from `find_files`.
      workers: processes that read; by default as many as there are cores, at most 8. The
        documents do not depend on it.
    """
    if workers is None:
        workers = min(8, os.cpu_count() or 1, len(files) // 200)
    if not may_have_workers():
        workers = 1
    seen: set[bytes] = set()
    consumed = 0
    for file, paragraphs in zip(files, _read_all(files, workers), strict=True):
        consumed += file.stat().st_size
        fresh = []
        for paragraph in map(without_surrogates, paragraphs):
            digest = hashlib.blake2b(paragraph.lower().encode(), digest_size=16).digest()
            if digest not in seen:
                seen.add(digest)
                fresh.append(paragraph)
        if fresh:
            yield "\n".join(fresh), consumed


def _read_all(files: Sequence[Path], workers: int) -> Iterator[list[str]]:
    if workers < 2:
        yield from map(_paragraphs_of_file, files)
        return
    executor = worker_pool(workers)
    done = 0
    try:
        for paragraphs in executor.map(_paragraphs_of_file, files, chunksize=32):
            yield paragraphs
            done += 1
    except BrokenProcessPool:
        yield from map(_paragraphs_of_file, files[done:])
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


def _folders(name: str) -> list[str]:
    if name == "python":
        return [sysconfig.get_path("stdlib")]
    spec = importlib.util.find_spec(name)
    return sorted(spec.submodule_search_locations or []) if spec else []


def _descriptions(name: str) -> list[Path]:
    distributions = importlib.metadata.packages_distributions().get(name, [])
    paths = [
        Path(str(file.locate()))
        for distribution in sorted(set(distributions))
        for file in importlib.metadata.files(distribution) or []
        if file.name == "METADATA"
    ]
    return [path for path in paths if path.exists()]


# Runs of two whole-line comments or more.
_PYTHON_COMMENT = re.compile(r"(?:^[ \t]*#[^\n]*\n){2,}", re.MULTILINE)
_C_COMMENT = re.compile(r"(?:^[ \t]*//[^\n]*\n){2,}|/\*.*?\*/", re.MULTILINE | re.DOTALL)
_COMMENT_MARK = re.compile(r"^[ \t]*(?:#+:?|//+[!<]*|/\*+!?|\*+/|\*)|\*/[ \t]*$", re.MULTILINE)


def _paragraphs_of_file(file: Path) -> list[str]:
    """Prose in one file, in the file's order; none if the file cannot be read."""
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return []
    if file.suffix in _TEXT_SUFFIXES:
        pieces = [text]
    elif file.name == "METADATA":
        pieces = [text.partition("\n\n")[2]]
    elif file.suffix in {".py", ".pyi"}:
        located = [*_comments(text, _PYTHON_COMMENT), *_strings(text)]
        pieces = [piece for _, piece in sorted(located)]
    else:
        pieces = [piece for _, piece in _comments(text, _C_COMMENT)]
    return [paragraph for piece in pieces for paragraph in prose.paragraphs(piece)]


def _comments(text: str, pattern: re.Pattern[str]) -> Iterator[tuple[int, str]]:
    """Comments without their marks, each with its line number."""
    line = 1
    counted = 0
    for match in pattern.finditer(text):
        line += text.count("\n", counted, match.start())
        counted = match.start()
        # The newline keeps the first line's indentation in account.
        yield line, inspect.cleandoc("\n" + _COMMENT_MARK.sub("", match[0]))


def _strings(text: str) -> Iterator[tuple[int, str]]:
    """Docstrings and other long string literals of Python source, each with its line number."""
    if '"""' not in text and "'''" not in text:
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in others' code
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return
    torn: set[int] = set()  # literal parts of f-strings
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            torn.update(map(id, node.values))
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and len(node.value) >= _SHORTEST_STRING
            and id(node) not in torn
        ):
            yield node.lineno, inspect.cleandoc(node.value)
