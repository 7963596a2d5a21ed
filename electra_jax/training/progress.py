"""The progress bar of a run, which a terminal that is gone does not stop."""

import contextlib
import logging
import sys
from collections.abc import Iterator
from typing import Any

from tqdm import tqdm

log = logging.getLogger(__name__)


class Progress:
    """A bar over steps. Use as a context manager; with its first error it is given up.

    Args:
      total: steps; None if the run ends by the clock.
      initial: steps that are done.
      shown: whether there is a bar at all.
    """

    def __init__(self, total: int | None, initial: int, shown: bool) -> None:
        self._bar: Any = None
        with self._giving_up():
            self._bar = tqdm(
                total=total, initial=initial, unit="step", dynamic_ncols=True, disable=not shown
            )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exc: object) -> None:
        if self._bar is not None:
            with self._giving_up():
                self._bar.close()

    def step(self) -> None:
        """Moves the bar by one step."""
        if self._bar is not None:
            try:  # of each step, and so without a block of its own
                self._bar.update()
            except (OSError, ValueError) as error:
                self._give_up(error)

    def tell(self, text: str) -> None:
        """Sets the text behind the bar."""
        if self._bar is not None:
            with self._giving_up():
                self._bar.set_postfix_str(text, refresh=False)

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Makes room for lines in the terminal."""
        if self._bar is None:
            yield
            return
        with contextlib.ExitStack() as stack:
            with self._giving_up():
                stack.enter_context(tqdm.external_write_mode(sys.stderr))
            yield
            with self._giving_up():
                stack.close()

    @contextlib.contextmanager
    def _giving_up(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:  # of a file that is closed, the second
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.disable = True
        log.warning("no progress is shown any more: %s", error)
