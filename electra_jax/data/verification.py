"""The stores of a run compared with their checksums: at once, or while it trains.

Small stores are read before the first step. Larger ones are read by a thread of low priority,
which the disk and the hash keep out of Python, so that steps take no longer.
"""

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Sequence

from electra_jax.data.token_store import TokenStore
from electra_jax.errors import UsageError

log = logging.getLogger(__name__)

AT_ONCE = 512 << 20  # bytes of all stores, which take a third of a second at 1.5 GB/s
_LOWEST_PRIORITY = 19


class Verification:
    """Reads the stores of a run and compares their checksums; to be entered while it trains."""

    def __init__(self, stores: Sequence[TokenStore]) -> None:
        """Takes the stores, and verifies them here and now if all of them are small.

        Raises:
          UsageError: a file differs from what its store says of it.
        """
        self._stores = stores
        self._error: UsageError | None = None
        self._left = threading.Event()
        self._thread: threading.Thread | None = None
        if sum(store.size for store in stores) > AT_ONCE:
            self._thread = threading.Thread(target=self._run, name="verification", daemon=True)
        else:
            for store in stores:
                store.verify()

    def check(self) -> None:
        """Stops the run if a difference was found; to be called often.

        Raises:
          UsageError: names the file.
        """
        if self._error is not None:
            raise UsageError(
                f"{self._error}; the steps since the run was started have read it: resume from a "
                "checkpoint of before"
            ) from self._error

    def __enter__(self) -> "Verification":
        if self._thread:
            self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._left.set()
        if self._thread:
            self._thread.join()

    def _run(self) -> None:
        if sys.platform == "linux":  # where a thread has a priority of its own
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWEST_PRIORITY)
        start = time.monotonic()
        try:
            for store in self._stores:
                store.verify(self._seen)
        except UsageError as error:
            self._error = error
        except _Left:
            log.debug("the run ended before its token store was read whole")
        else:
            size, seconds = sum(store.size for store in self._stores), time.monotonic() - start
            log.info("%-11s verified: %.1f GB in %.0f s", "token store", size / 1e9, seconds)

    def _seen(self, size: int) -> None:
        del size
        if self._left.is_set():
            raise _Left


class _Left(Exception):
    """The run has ended."""
