"""What is shown of work that takes long, in a terminal and without one."""

import errno
import io
import logging
import sys

from electra_jax.system import progress
from electra_jax.system.progress import Progress, stage, track


def open_terminal(monkeypatch):
    """Not a fixture: pytest sets the streams anew after those."""
    stream = io.StringIO()
    stream.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


class Gone:
    """A terminal that has been closed."""

    encoding = "utf-8"

    def write(self, text):
        raise OSError(errno.EIO, "Input/output error")

    flush = isatty = fileno = lambda self: self.write("")


def test_a_terminal_that_is_gone_does_not_stop_the_bar(monkeypatch, caplog):
    monkeypatch.setattr(sys, "stderr", Gone())
    with Progress(10) as bar:
        for step in range(10):
            bar.move(step + 1)
            bar.tell("loss")
            with bar.aside():
                pass
    assert caplog.text.count("no progress is shown any more") == 1


def test_without_a_terminal_there_is_a_line_now_and_then(monkeypatch, caplog, capsys):
    caplog.set_level("INFO", logger="electra_jax")
    clock = iter(range(0, 10_000, 25))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with Progress(100) as bar:
        bar.tell("loss 2.0")
        for step in range(1, 11):
            bar.move(step)
    assert 1 < len(caplog.messages) < 8
    assert "of 100 steps (" in caplog.text and "min left, 0.02" in caplog.text
    assert "\r" not in capsys.readouterr().err


def test_a_bar_by_the_clock_shows_its_share(monkeypatch):
    terminal = open_terminal(monkeypatch)
    with Progress(60.0, initial=15.0, by_clock=True) as bar:
        bar.move(30.0)
        bar.tell("step 7")
        bar.move(75.0)  # the last step ends late
    assert "25%" in terminal.getvalue() and "100%" in terminal.getvalue()
    assert "60/60 s, 00:00 left, step 7" in terminal.getvalue()


def test_a_share_of_the_work_gives_the_time_left(monkeypatch):
    """Text is read by bytes whose number of documents nobody knows before."""
    terminal = open_terminal(monkeypatch)
    shares = iter([0.1, 0.5, 1.0])
    assert list(track("abc", "text", "documents", lambda: next(shares))) == ["a", "b", "c"]
    assert "text: 100%" in terminal.getvalue() and "3/3" in terminal.getvalue()


def test_more_than_was_estimated_is_counted():
    with Progress(unit="documents") as bar:
        for share in (0.5, 0.9, 0.9, None):
            bar.add(10)
            bar.estimate(share)
        assert bar._done == 40


def test_quiet_shows_no_bar_and_no_line(monkeypatch, caplog):
    terminal = open_terminal(monkeypatch)
    monkeypatch.setattr(logging.getLogger("electra_jax"), "level", logging.WARNING)
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0)
    for is_terminal in (True, False):
        terminal.isatty = lambda is_terminal=is_terminal: is_terminal
        with Progress(2) as bar:
            bar.move(1)
    assert not terminal.getvalue() and not caplog.text


def test_parts_of_a_start_are_told_with_their_seconds(caplog):
    caplog.set_level("DEBUG", logger="electra_jax")
    with stage("reading the data"):
        pass
    assert "0.0 s: reading the data" in caplog.text


def test_bytes_are_told_in_large_units(caplog, monkeypatch):
    caplog.set_level("INFO", logger="electra_jax")
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0)
    with Progress(4e9, unit="B", label="verify") as bar:
        bar.add(1e9)
    assert "verify: 1.00G of 4.00G B (25%)" in caplog.text
