"""The command `electra-jax`, also as `python -m electra_jax`."""

import sys

from electra_jax.system.huge_pages import use_huge_pages


def run() -> None:
    """Runs the command and ends the program with its status."""
    try:
        use_huge_pages()
        from electra_jax.cli import main

        status = main()
    except KeyboardInterrupt:  # before, or after, it heeds signals itself
        status = 130
    sys.exit(status)


if __name__ == "__main__":
    run()
