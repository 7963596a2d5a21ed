"""The second start with large pages: the same command, once, and only where it helps."""

import os
import subprocess
import sys

import pytest

from electra_jax.system import huge_pages

TUNABLE = "glibc.malloc.hugetlb=1"


@pytest.fixture
def starts(tmp_path, monkeypatch):
    """The commands that were started again, where the kernel gives pages on request."""
    setting = tmp_path / "enabled"
    setting.write_text("always [madvise] never\n")
    found = []
    monkeypatch.setattr(huge_pages, "SETTING", setting)
    monkeypatch.setattr(os, "execv", lambda program, argv: found.append((program, argv)))
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    return found


def test_the_same_command_starts_once_more(starts, monkeypatch):
    """Another interpreter or other flags; a start without end; settings of others that are lost."""
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.check=1")
    huge_pages.use_huge_pages()
    assert starts == [(sys.executable, sys.orig_argv)]
    assert os.environ["GLIBC_TUNABLES"] == f"glibc.malloc.check=1:{TUNABLE}"
    huge_pages.use_huge_pages()
    assert len(starts) == 1


@pytest.mark.parametrize("setting", ["[always] madvise never", "always madvise [never]", None])
def test_not_where_the_kernel_has_its_own_mind(starts, setting):
    if setting is None:
        huge_pages.SETTING.unlink()
    else:
        huge_pages.SETTING.write_text(setting)
    huge_pages.use_huge_pages()
    assert not starts and "GLIBC_TUNABLES" not in os.environ


@pytest.mark.skipif(not huge_pages._on_request(), reason="the kernel gives no pages on request")
def test_flags_input_and_status_are_kept():
    """What a shell sees of a program that starts again."""
    program = (
        "import os, sys; from electra_jax.system.huge_pages import use_huge_pages\n"
        "use_huge_pages(); print(os.environ['GLIBC_TUNABLES'], sys.argv[1:], sys.stdin.read())\n"
        "sys.exit(7)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    done = subprocess.run(
        [sys.executable, "-c", program, "a b", "--c"],
        input="text", capture_output=True, text=True, env=environment,
    )  # fmt: skip
    assert (done.stdout.strip(), done.returncode) == (f"{TUNABLE} ['a b', '--c'] text", 7)
