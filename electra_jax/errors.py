"""The one error a user can cause."""


class UsageError(Exception):
    """Wrong input, not a fault of the program.

    The message is one line: what is wrong, where, and what to do about it. The
    command line prints it alone and exits with status 2; a traceback would be a bug.
    """
