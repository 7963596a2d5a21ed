"""How a command can end before its time, other than by a fault of the program."""

import signal


class UsageError(Exception):
    """Wrong input, not a fault of the program.

    The message is one line: what is wrong, where, and what to do about it. The
    command line prints it alone and exits with status 2; a traceback would be a bug.
    """


class Stopped(Exception):
    """A signal stopped a run; the same command goes on from there."""

    def __init__(self, signal_number: int, message: str):
        super().__init__(message)
        self.signal = signal.Signals(signal_number)
