"""Token stores prepared on many machines, with Apache Beam.

The store is byte for byte the one that `prepare` makes of the same sources and settings.
Workers read and tokenize the parts of the sources, which are single files, or whole sources of
another kind, with the functions that `prepare` uses, and leave the chunks in temporary files.
This process then writes the store from them, part after part, so that documents come in the
order in which one process would have read them. Of equal documents the first is kept: a hash
of each goes through the pipeline to find out which that is.

What is held in memory: by a worker, a chunk of documents (see `chunks`) and, with
`deduplicate`, 8 bytes for each document that is kept of a part; by this process, a chunk, and
some hundred bytes a part. On disk or in a bucket, the temporary files are about as large as
the store.

This is the only file that imports apache_beam.
"""

import contextlib
import dataclasses
import difflib
import hashlib
import io
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from electra_jax.data.chunks import Chunk, cut, encode
from electra_jax.data.documents import (
    REASONS_TO_DROP,
    DocumentOptions,
    Documents,
    Part,
    digest,
)
from electra_jax.data.text_files import File, Found, find_files
from electra_jax.data.token_store import TokenStore, write_store
from electra_jax.data.tokenizer import Tokenizer, load_tokenizer
from electra_jax.errors import UsageError

try:
    import apache_beam as beam
    from apache_beam.io.filesystem import CompressionTypes
    from apache_beam.io.filesystems import FileSystems
    from apache_beam.options import pipeline_options
    from apache_beam.runners.runner import PipelineState
except ImportError as error:
    raise UsageError(
        "--beam needs Apache Beam, which is not installed: pip install '.[beam]' in the checkout"
    ) from error

_LONGEST_LINE = 1000  # characters of an error of Beam's that are shown
# Their job server may know flags that Beam's Python code does not.
_RUNNERS_WITH_OWN_FLAGS = ("flink", "spark", "portable", "prism")


def prepare_on_beam(
    sources: Sequence[str],
    options: DocumentOptions,
    tokenizer: Tokenizer,
    output: str | os.PathLike[str],
    flags: Sequence[str] = (),
    *,
    validation_share: float = 0.005,
    progress: bool = True,
) -> TokenStore:
    """Does on Beam what `prepare` does with `Documents(sources, options)`.

    Files may lie anywhere where Beam can read ("text:gs://bucket/*.gz"); they are copied to the
    worker that reads them.

    Args:
      flags: Beam's own, such as --runner=DataflowRunner. Temporary files go to the folder
        --temp_location, or else beside the output, and are removed at the end.

    Raises:
      UsageError: as `prepare` and `Documents`, with the message of the first part that is at
        fault; flags that Beam does not take; a pipeline that failed.
    """
    beam_options = _parse(flags)
    with _refusing(OSError, ValueError):
        documents = Documents(sources, options, find=_find)
        run = _Run(documents, beam_options)
    return write_store(
        run.chunks,
        tokenizer,
        output,
        validation_share=validation_share,
        source=documents.describe(),
        fraction=lambda: run.fraction,
        progress=progress,
    )


def _parse(flags: Sequence[str]) -> pipeline_options.PipelineOptions:
    """Beam's options; the default runner works on this machine, and downloads nothing.

    Raises:
      UsageError: a flag that Beam does not know, or a value that it does not take.
    """
    options = pipeline_options.PipelineOptions(list(flags))
    known = pipeline_options.PipelineOptions([]).get_all_options()
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            given = options.get_all_options(retain_unknown_options=True)
    except SystemExit as error:
        raise UsageError(f"Beam: {printed.getvalue().split('error: ')[-1].strip()}") from error
    standard = options.view_as(pipeline_options.StandardOptions)
    standard.runner = standard.runner or "FnApiRunner"
    # Beam only warns; a misspelt --runner would then have all the work done here.
    unknown = sorted(given.keys() - known.keys())
    if unknown and not any(name in standard.runner.lower() for name in _RUNNERS_WITH_OWN_FLAGS):
        nearest = difflib.get_close_matches(unknown[0], known, n=1)
        suggestion = f": did you mean --{nearest[0]}?" if nearest else ""
        raise UsageError(f"Beam has no flag --{unknown[0]}{suggestion}")
    if "dataflow" in standard.runner.lower() and not _temp_location(options):
        raise UsageError(f"--runner={standard.runner} needs --temp_location=gs://BUCKET/FOLDER")
    return options


def _temp_location(options: pipeline_options.PipelineOptions) -> str | None:
    return options.view_as(pipeline_options.GoogleCloudOptions).temp_location


@contextlib.contextmanager
def _refusing(*kinds: type[Exception]) -> Iterator[None]:
    """Turns what Beam raises into a line."""
    try:
        yield
    except kinds as error:
        line = " ".join(str(error).split()) or type(error).__name__
        if len(line) > _LONGEST_LINE:  # of a traceback, what it is about stands at the end
            line = f"{line[: _LONGEST_LINE // 2]} … {line[-_LONGEST_LINE // 2 :]}"
        raise UsageError(f"Beam: {line}") from error


def _find(pattern: str) -> list[Found]:
    if "://" not in pattern:
        return find_files(pattern)
    (result,) = FileSystems.match([pattern])
    return [
        Found(file.path, file.size_in_bytes, file.last_updated_in_seconds)
        for file in result.metadata_list
    ]


@dataclasses.dataclass
class _Record:
    """A worker's report on a part."""

    part: int  # its number
    file: str  # of its chunks
    chunks: int = 0
    sha256: str = ""
    text_bytes: int = 0
    documents: int = 0  # that are kept
    dropped: dict[str, int] = dataclasses.field(
        default_factory=lambda: dict.fromkeys(REASONS_TO_DROP, 0)
    )
    error: str | None = None


class _Run:
    """One run of the pipeline.

    Attributes:
      fraction: share of the text whose tokens have been fetched; None while there are none.
    """

    def __init__(self, documents: Documents, options: pipeline_options.PipelineOptions) -> None:
        self._documents = documents
        self._parts = documents.parts()
        self._options = options
        self.fraction: float | None = None

    def chunks(self, tokenizer: Path) -> Generator[Chunk]:
        """Runs the pipeline, then yields all chunks in order."""
        parent = _temp_location(self._options) or str(tokenizer.parent.resolve())
        with _refusing(ValueError):
            folder = FileSystems.join(parent, f"electra-jax-{uuid.uuid4().hex}")
        try:
            with _refusing(Exception):
                self._tokenize(folder, {p.name: p.read_bytes() for p in tokenizer.iterdir()})
            with _refusing(OSError):
                records = self._records(folder)
                total = sum(record.text_bytes for record in records)
                fetched = 0
                for record in records:
                    for chunk in _read_chunks(FileSystems.join(folder, record.file), record):
                        fetched += chunk.text_bytes
                        self.fraction = fetched / total
                        yield chunk
        finally:
            _remove(folder)

    def _tokenize(self, folder: str, tokenizer: dict[str, bytes]) -> None:
        """Leaves in `folder` a file of chunks for each part, and records that tell of them."""
        options = self._documents.options
        pipeline = beam.Pipeline(options=self._options)
        parts = (
            pipeline
            | beam.Create(list(enumerate(self._parts))).with_output_types(tuple[int, Any])
            | "spread parts" >> beam.Reshuffle()
        )
        if options.deduplicate:
            first = (
                parts
                | beam.ParDo(_Digest(options)).with_output_types(tuple[bytes, tuple[int, int]])
                | "first of equals" >> beam.CombinePerKey(min)
                | beam.Values().with_output_types(tuple[int, int])
            )
            tasks = {"part": parts, "first": first} | beam.CoGroupByKey()
        else:
            tasks = parts | beam.MapTuple(lambda number, part: (number, {"part": [part]}))
        _ = (
            tasks
            | beam.ParDo(_Tokenize(options, tokenizer, folder)).with_output_types(str)
            | beam.io.WriteToText(FileSystems.join(folder, "records"))
        )
        result = pipeline.run()
        try:
            state = result.wait_until_finish()
        except BaseException:
            with contextlib.suppress(Exception):
                result.cancel()
            raise
        if state != PipelineState.DONE:
            raise RuntimeError(f"the pipeline is {state}")

    def _records(self, folder: str) -> list[_Record]:
        """The workers' reports on all parts, in order.

        Raises:
          UsageError: a part is at fault, or no document is kept.
        """
        (files,) = FileSystems.match([FileSystems.join(folder, "records*")])
        records = []
        for file in files.metadata_list:
            with FileSystems.open(file.path) as lines:
                records += [_Record(**json.loads(line)) for line in lines.read().splitlines()]
        records.sort(key=lambda record: record.part)
        if [record.part for record in records] != list(range(len(self._parts))):
            raise UsageError(
                f"what the workers wrote to {folder} is not there: give a --temp_location that"
                " this machine and theirs can reach"
            )
        for record in records:
            if record.error:
                raise UsageError(record.error)
        if not any(record.documents for record in records):
            self._documents.dropped = {
                reason: sum(record.dropped[reason] for record in records)
                for reason in REASONS_TO_DROP
            }
            raise self._documents.none_kept()
        return records


class _Digest(beam.DoFn):
    """(number of a part, part) → (hash, (number, position)) of the documents that may be kept."""

    def __init__(self, options: DocumentOptions) -> None:
        self._options = options

    def process(self, element: tuple[int, Part]) -> Iterator[tuple[bytes, tuple[int, int]]]:
        number, part = element
        # `_Tokenize` meets the same error and records it.
        with contextlib.suppress(UsageError):
            for position, text in enumerate(_read(part)):
                if not self._options.reason_to_drop(text):
                    yield digest(text), (number, position)


class _Tokenize(beam.DoFn):
    """(number of a part, the part and, to deduplicate, positions in it) → a record, as JSON.

    Errors in the input are results, too: a runner would try again what raises.
    """

    def __init__(self, options: DocumentOptions, tokenizer: dict[str, bytes], folder: str) -> None:
        self._options = options
        self._files = tokenizer
        self._folder = folder

    def setup(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            for name, content in self._files.items():
                Path(folder, name).write_bytes(content)
            self._tokenizer = load_tokenizer(folder)

    def process(self, element: tuple[int, dict[str, Any]]) -> Iterator[str]:
        number, given = element
        (part,) = given["part"]
        first = np.sort(np.fromiter(given["first"], np.int64)) if "first" in given else None
        # A runner may do a part twice, at the same time even.
        record = _Record(number, f"part-{number:06}-{uuid.uuid4().hex}.chunks")
        try:
            with FileSystems.create(FileSystems.join(self._folder, record.file)) as stream:
                file = _Summed(stream)
                for texts in cut(self._keep(part, first, record)):
                    chunk = encode(self._tokenizer, texts)
                    for value in chunk:
                        np.lib.format.write_array(file, np.asarray(value))
                    record.chunks += 1
                    record.text_bytes += chunk.text_bytes
            record.sha256 = file.sha256.hexdigest()
        except UsageError as error:
            record.error = str(error)
        yield json.dumps(dataclasses.asdict(record))

    def _keep(self, part: Part, first: np.ndarray | None, record: _Record) -> Iterator[str]:
        """The documents that are kept, of equal ones those at the positions `first`; counts."""
        next_first = 0
        for position, text in enumerate(_read(part)):
            reason = self._options.reason_to_drop(text)
            if not reason and first is not None:
                if next_first < len(first) and first[next_first] == position:
                    next_first += 1
                else:
                    reason = "duplicate"
            if reason:
                record.dropped[reason] += 1
            else:
                record.documents += 1
                yield text


def _read(part: Part) -> Iterator[str]:
    """The documents of a part, stripped; a file that lies elsewhere is copied here first."""
    if not isinstance(part, File) or "://" not in part.path:
        for text, _ in part.read():
            yield text.strip()
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, os.path.basename(part.path))
        stream = FileSystems.open(part.path, compression_type=CompressionTypes.UNCOMPRESSED)
        with stream, copy.open("wb") as file:
            shutil.copyfileobj(stream, file, 1 << 20)
        try:
            for text, _ in part.reader(copy):
                yield text.strip()
        except UsageError as error:
            raise UsageError(str(error).replace(str(copy), part.path)) from error


def _read_chunks(path: str, record: _Record) -> Iterator[Chunk]:
    """The chunks of a part.

    Raises:
      UsageError: they are not as they were written.
    """
    damaged = UsageError(f"{path} was damaged on its way: prepare the store again")
    with FileSystems.open(path) as stream:
        file = _Summed(stream)
        for _ in range(record.chunks):
            try:
                tokens, lengths, hashes, text_bytes, unknown = (
                    np.lib.format.read_array(file) for _ in Chunk._fields
                )
            except ValueError as error:
                raise damaged from error
            yield Chunk(tokens, lengths, hashes, int(text_bytes), unknown)
    if file.sha256.hexdigest() != record.sha256:
        raise damaged


class _Summed:
    """A stream that sums up what goes through."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.sha256 = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        return self._stream.write(data)

    def read(self, size: int = -1, /) -> bytes:
        data = self._stream.read(size)
        self.sha256.update(data)
        return data


def _remove(folder: str) -> None:
    if "://" in folder:
        with contextlib.suppress(OSError):
            FileSystems.delete([f"{folder}/"])
    else:
        shutil.rmtree(folder, ignore_errors=True)
