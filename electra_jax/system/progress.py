"""Progress of everything that takes long: a bar in a terminal, elsewhere a line a minute.

A terminal that is gone does not stop the work. Nothing is shown where the level of the logger
`electra_jax` is set above INFO (`--quiet`).
"""

import contextlib
import logging
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from tqdm import tqdm

log = logging.getLogger(__name__)

T = TypeVar("T")

SECONDS_BETWEEN_LINES = 60  # where there is no terminal to draw a bar in
CLOCK_FORMAT = "{l_bar}{bar}| {n:.0f}/{total:.0f} s, {remaining} left{postfix}"


class Progress:
    """A bar, or a line a minute where there is no terminal. Use as a context manager.

    With its first error it is given up.

    Args:
      total: of all work, in `unit`; None if that is not known.
      unit: what is counted, such as "steps"; "B" are bytes.
      initial: what is done before.
      label: what is being done.
      by_clock: whether seconds are counted.
      shown: whether anything is shown at all.
    """

    def __init__(
        self,
        total: float | None = None,
        *,
        unit: str = "steps",
        initial: float = 0,
        label: str = "",
        by_clock: bool = False,
        shown: bool = True,
    ) -> None:
        self._bar: Any = None
        self._total, self._initial, self._done = total, initial, initial
        self._unit, self._by_clock = "s" if by_clock else unit, by_clock
        self._label, self._text = label, ""
        self._start = time.monotonic()
        self._due = math.inf
        shown = shown and not is_quiet()
        with self._giving_up():
            if shown and not sys.stderr.isatty():
                self._due = self._start + SECONDS_BETWEEN_LINES
                return
            self._bar = tqdm(
                desc=label or None, total=total, initial=initial, dynamic_ncols=True,
                unit=unit if unit == "B" else f" {unit}", unit_scale=unit == "B",
                disable=not shown, bar_format=CLOCK_FORMAT if by_clock else None,
            )  # fmt: skip

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exc: object) -> None:
        if self._bar is not None:
            with self._giving_up():
                self._bar.close()

    def add(self, count: float) -> None:
        """Moves the bar by what was done since."""
        self.move(self._done + count)

    def move(self, done: float) -> None:
        """Moves the bar to what is done in all."""
        if self._by_clock and self._total:
            done = min(done, self._total)  # the last step ends late
        if self._bar is not None:
            try:  # of each step, and so without a block of its own
                self._bar.update(done - self._done)
            except (OSError, ValueError) as error:
                self._give_up(error)
        elif time.monotonic() >= self._due:
            self._due = time.monotonic() + SECONDS_BETWEEN_LINES
            log.info("%s", self._line(done))
        self._done = done

    def estimate(self, share: float | None) -> None:
        """Takes over which share of all work what is done so far is; None: not known."""
        if share:
            self._total = max(self._done / share, self._done)
            if self._bar is not None:
                self._bar.total = round(self._total)

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

    def _line(self, done: float) -> str:
        rate = (done - self._initial) / max(time.monotonic() - self._start, 1e-9)
        label = f"{self._label}: " if self._label else ""
        pace = "" if self._by_clock else f", {self._amount(rate)} {self._unit}/s"
        if not self._total:
            return f"{label}{self._amount(done)} {self._unit}{pace}{self._text}"
        minutes = max(self._total - done, 0) / max(rate, 1e-9) / 60
        return (
            f"{label}{self._amount(done)} of {self._amount(self._total)} {self._unit} "
            f"({done / self._total:.0%}), {minutes:,.0f} min left{pace}{self._text}"
        )

    def _amount(self, number: float) -> str:
        if self._unit == "B":
            return tqdm.format_sizeof(number)
        return f"{number:.2g}" if 0 < number < 10 and number % 1 else f"{number:,.0f}"

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


def track(
    items: Iterable[T], label: str, unit: str, share: Callable[[], float | None], shown: bool = True
) -> Iterator[T]:
    """Yields items, and shows how many have been.

    Args:
      share: of all items, those that have been read; None if that is not known.
    """
    with Progress(unit=unit, label=label, shown=shown) as bar:
        for item in items:
            yield item
            bar.add(1)
            bar.estimate(share())


@contextlib.contextmanager
def stage(name: str) -> Iterator[None]:
    """Logs the seconds that a part of a command took, for `--verbose`."""
    start = time.monotonic()
    yield
    log.debug("%-11s %.1f s: %s", "took", time.monotonic() - start, name)


def is_quiet() -> bool:
    """Whether only warnings and results are wanted."""
    return logging.getLogger("electra_jax").level > logging.INFO
