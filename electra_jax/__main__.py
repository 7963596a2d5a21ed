"""`python -m electra_jax` is the command `electra-jax`."""

import sys

if __name__ == "__main__":
    try:
        from electra_jax.cli import main

        status = main()
    except KeyboardInterrupt:  # before, or after, it heeds signals itself
        status = 130
    sys.exit(status)
