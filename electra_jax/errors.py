"""How a command can end before its time, other than by a fault of the program."""

import signal

PREEMPTED = 75  # nothing is lost: launchers give the same command again, at will


class UsageError(Exception):
    """Wrong input, not a fault of the program.

    The message is one line: what is wrong, where, and what to do about it. The
    command line prints it alone and exits with `status`; a traceback would be a bug.
    """

    status = 2  # starting again would not help


class NotThereYet(UsageError):
    """Another process of the run has not come, or cannot be found, in the time it was given.

    On a preempted slice it may be on its way: nothing is lost, and the same command goes on.
    """

    status = PREEMPTED


class Stopped(Exception):
    """A signal stopped a run; the same command goes on from there."""

    def __init__(self, signal_number: int, message: str):
        super().__init__(message)
        self.signal = signal.Signals(signal_number)
