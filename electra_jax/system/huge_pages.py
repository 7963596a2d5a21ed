"""Large pages for what is allocated, where the kernel gives them to those who ask."""

import contextlib
import os
import sys
from pathlib import Path

TUNABLES, HUGE_PAGES = "GLIBC_TUNABLES", "glibc.malloc.hugetlb"
SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def use_huge_pages() -> None:
    """Starts this program again with large pages, unless it has them or cannot.

    A training step allocates gigabytes and returns them. In pages of 4 KiB the kernel takes a
    seventh of the step's time for that on a CPU. The C library (glibc 2.35 and newer) reads the
    setting before the program starts, hence the second start, which takes the place of the first
    within some hundredths of a second: call it before anything else.
    """
    tunables = os.environ.get(TUNABLES, "")
    if HUGE_PAGES in tunables or not _on_request():
        return
    os.environ[TUNABLES] = ":".join(filter(None, (tunables, f"{HUGE_PAGES}=1")))
    with contextlib.suppress(OSError):
        os.execv(sys.executable, sys.orig_argv)


def _on_request() -> bool:
    """Whether the kernel gives large pages to programs that ask, and to them alone."""
    try:
        return "[madvise]" in SETTING.read_text()
    except OSError:  # another system
        return False
