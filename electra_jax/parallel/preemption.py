"""Stopping: a signal to any one process ends all at the same step, with all saved."""

import contextlib
import itertools
import signal
from types import FrameType
from typing import Any

import jax

from electra_jax.errors import Stopped
from electra_jax.parallel.jax_internals import preemption_manager, replace_preemption_manager
from electra_jax.system.ending import RESUME, ends_itself


class Preemption:
    """JAX's preemption manager, asked with numbers that only grow.

    It lets every process stop at the number after the highest that any has asked with. Steps
    will not do: after a restart, or in the next of several runs, they may be beyond it already.
    """

    def __init__(self, manager: Any):
        self._manager, self._numbers = manager, itertools.count(1)

    def requested(self) -> bool:
        """Whether to stop now. All processes ask equally often."""
        return self._manager.reached_sync_point(next(self._numbers))

    def reached_sync_point(self, step: int) -> bool:
        """Answers Orbax, which asks with numbers of its own."""
        del step
        return False

    def shutdown(self) -> None:
        self._manager.shutdown()


def take_over() -> None:
    """Puts `Preemption` in the place of JAX's manager; after JAX has been initialised."""
    replace_preemption_manager(Preemption(preemption_manager()))


class StopSignal:
    """Notes SIGINT and SIGTERM, so that a run ends between two steps with all saved.

    A second SIGINT interrupts at once; so does the first signal of a run that is alone and has
    done no step (`begun`), which may be compiling for long. Use as a context manager.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._previous: dict[signal.Signals, Any] = {}
        # JAX handles SIGTERM itself where there are others to tell.
        self._alone = jax.process_count() == 1
        self._signals = (signal.SIGINT, signal.SIGTERM) if self._alone else (signal.SIGINT,)
        self._begun = False
        self._saves = contextlib.ExitStack()

    def __enter__(self) -> "StopSignal":
        self._previous = {number: signal.signal(number, self._note) for number in self._signals}
        if not self._alone:
            self.begun()
        return self

    def __exit__(self, *exc: object) -> None:
        self._saves.close()
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def begun(self) -> None:
        """From here on there is something to save."""
        if not self._begun:
            self._begun = True
            self._saves.enter_context(ends_itself())

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is signal.SIGINT and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = signal.Signals(number)
        if not self._begun:
            raise Stopped(number, RESUME)
        if not self._alone:
            signal.raise_signal(signal.SIGTERM)

    def heard_alone(self) -> signal.Signals | None:
        """The signal that a process without others has got, whenever that was."""
        return self.received if self._alone else None

    def requested(self) -> signal.Signals | None:
        """The signal to stop for, if it is time to. All processes ask equally often."""
        if self._alone:
            return self.received
        if preemption_manager().requested():
            return self.received or signal.SIGTERM
        return None
