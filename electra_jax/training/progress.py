"""The progress bar of a run, which a terminal that is gone does not stop."""

import contextlib
import logging
import math
import sys
import time
from collections.abc import Iterator
from typing import Any

from tqdm import tqdm

log = logging.getLogger(__name__)


SECONDS_BETWEEN_LINES = 60  # where there is no terminal to draw a bar in
CLOCK_FORMAT = "{l_bar}{bar}| {n:.0f}/{total:.0f} s{postfix}"


class Progress:
    """A bar over a run, or a line a minute where there is no terminal. Use as a context manager.

    With its first error it is given up.

    Args:
      total: steps of the run, or seconds if it ends by the clock.
      initial: those that are done.
      by_clock: whether they are seconds.
      shown: whether anything is shown at all.
    """

    def __init__(self, total: float, initial: float, by_clock: bool, shown: bool) -> None:
        self._bar: Any = None
        self._total, self._initial, self._done = total, initial, initial
        self._unit = "s" if by_clock else "steps"
        self._text = ""
        self._start = time.monotonic()
        self._due = math.inf
        with self._giving_up():
            if shown and not sys.stderr.isatty():
                self._due = self._start + SECONDS_BETWEEN_LINES
                return
            self._bar = tqdm(
                total=total, initial=initial, unit="step", dynamic_ncols=True, disable=not shown,
                bar_format=CLOCK_FORMAT if by_clock else None,
            )  # fmt: skip

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exc: object) -> None:
        if self._bar is not None:
            with self._giving_up():
                self._bar.close()

    def move(self, done: float) -> None:
        """Moves the bar to what is done, in steps or seconds."""
        if self._bar is not None:
            try:  # of each step, and so without a block of its own
                self._bar.update(min(done, self._total) - self._done)
            except (OSError, ValueError) as error:
                self._give_up(error)
        elif time.monotonic() >= self._due:
            self._due = time.monotonic() + SECONDS_BETWEEN_LINES
            log.info("%s", self._line(done))
        self._done = min(done, self._total)

    def _line(self, done: float) -> str:
        pace = (time.monotonic() - self._start) / max(done - self._initial, 1e-9)
        minutes = pace * max(self._total - done, 0) / 60
        return (
            f"{done:,.0f} of {self._total:,.0f} {self._unit} ({done / self._total:.0%}), "
            f"{minutes:,.0f} min left{self._text}"
        )

    def tell(self, text: str) -> None:
        """Sets the text behind the bar."""
        self._text = f", {text}"
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
