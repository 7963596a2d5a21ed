"""TensorBoard's file of events."""

import contextlib
import logging
import os
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import RecordWriter
from tensorboardX.summary import scalar, text

from electra_jax.system.json_files import short_reason

log = logging.getLogger(__name__)

FLUSH_SECONDS = 30.0


class EventFile:
    """A file of events for TensorBoard, written by whoever calls: no thread, nothing to wait for.

    With its first error it is given up.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self._records: RecordWriter | None = None
        self._flushed = time.monotonic()
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}-{step}"
        with self._giving_up(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._records = RecordWriter(str(folder / name))
            self._write(Event(file_version="brain.Event:2"))
            # What an earlier start wrote of later steps is not shown any more.
            self._write(Event(step=step + 1, session_log=SessionLog(status=SessionLog.START)))
            self._records.flush()
        self._folder = folder

    def append(
        self, step: int, values: Mapping[str, float | None], warnings: Mapping[str, str | None]
    ) -> None:
        if self._records is None:
            return
        with self._giving_up(self._folder):
            parts = [scalar(name, value) for name, value in values.items() if value is not None]
            parts += [text(f"warnings/{name}", told or "over") for name, told in warnings.items()]
            summary = Summary(value=[value for part in parts for value in part.value])
            self._write(Event(step=step, summary=summary))
            if time.monotonic() - self._flushed > FLUSH_SECONDS:
                self._records.flush()
                self._flushed = time.monotonic()

    def _write(self, event: Event) -> None:
        assert self._records is not None
        event.wall_time = time.time()
        self._records.write(event.SerializeToString())

    def close(self) -> None:
        if self._records is None:
            return
        with self._giving_up(self._folder):
            self._records.flush()
            self._records.close()
            self._records = None

    @contextlib.contextmanager
    def _giving_up(self, folder: Path) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # protocol buffers raise many kinds
            log.warning(
                "%s cannot be written (%s): the run goes on without it",
                folder, short_reason(error),
            )  # fmt: skip
            records, self._records = self._records, None
            with contextlib.suppress(Exception):
                if records is not None:
                    records.close()
