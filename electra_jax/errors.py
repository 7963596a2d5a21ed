"""How a command can end before its time, other than by a fault of the program."""

import signal

PREEMPTED = 75  # nothing is lost: launchers give the same command again, at will


class ElectraError(Exception):
    """An error that is not a fault of the program.

    The message is one line: what is wrong, where, and what to do about it. The
    command line prints it alone and exits with `status`; a traceback would be a bug.
    """

    status = 1


class UsageError(ElectraError):
    """Wrong input."""

    status = 2  # starting again would not help


class ProcessMissing(ElectraError):
    """Another process of the run is not found, or does not report, in the time it was given.

    On a preempted slice it may be on its way: nothing is lost, and the same command resumes.
    """

    status = PREEMPTED


class Stopped(Exception):
    """A signal stopped a run; the same command goes on from there."""

    def __init__(self, signal_number: int, message: str):
        super().__init__(message)
        self.signal = signal.Signals(signal_number)
