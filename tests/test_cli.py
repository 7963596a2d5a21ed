"""The command: whatever a user gets wrong ends in one line and exit status 2."""

import argparse
import logging
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from electra_jax import __version__, cli
from electra_jax.command_line import build_parser, split_overrides, without_display_flags
from electra_jax.data.tokenizer import load_tokenizer
from electra_jax.errors import ElectraError, ProcessMissing, UsageError
from electra_jax.inference.terminal import wants_colour
from electra_jax.training.checkpoint import SaveFailed
from electra_jax.training.loop import NonFiniteLoss

TEXT = "\n\n".join(f"A document about the {word} and more." for word in ["cat", "dog", "owl"])


@pytest.fixture
def text(tmp_path):
    file = tmp_path / "text.txt"
    file.write_text(TEXT * 30)
    return f"text:{file}"


def fails(capsys, *argv) -> str:
    assert cli.main(list(argv)) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("electra-jax: ") and "\n" not in error.splitlines()[-1]
    return error.splitlines()[-1]


def test_help_and_version_are_there_and_quick():
    for flags in (["--help"], ["--version"], ["pretrain", "--help"]):
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "electra_jax", *flags],
            capture_output=True, text=True, cwd=Path(__file__).parent.parent, check=True,
        )  # fmt: skip
        assert done.stdout
        for library in ("jax", "tensorflow", "orbax"):
            assert f"| {library}\n" not in done.stderr
    assert __version__ in subprocess.run(
        [sys.executable, "-m", "electra_jax", "--version"], capture_output=True, text=True,
        cwd=Path(__file__).parent.parent, check=True,
    ).stdout  # fmt: skip


def test_overrides_may_stand_anywhere():
    argv = ["--config.a.b=1", "pretrain", "--config.c", "2", "--workdir", "w", "--config", "f"]
    flags, overrides = split_overrides(argv)
    assert flags == ["pretrain", "--workdir", "w", "--config", "f"]
    assert overrides == ["a.b=1", "c=2"]


def test_tokenizer_and_prepare(text, tmp_path, capsys):
    tokenizer, store = str(tmp_path / "tokenizer"), str(tmp_path / "store")
    flags = ["--input", text, "--vocab-size", "120", "--output", tokenizer]
    assert cli.main(["tokenizer", *flags]) == 0
    assert load_tokenizer(tokenizer).lower_case
    flags = ["--input", text, "--tokenizer", tokenizer, "--output", store, "--workers", "1"]
    assert cli.main(["prepare", *flags, "--validation-share", "0.3"]) == 0
    assert "token store" in capsys.readouterr().out
    error = fails(capsys, "prepare", *flags, "--validation-share", "0.4")
    assert "validation_share" in error and "0.3" in error


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "COMMAND"),
        (["pretrian"], "did you mean pretrain?"),
        (["pretrain", "--confg", "x"], "no such flag; did you mean --config?"),
        (["embed", "--modle=x"], "no such flag; did you mean --model?"),
        (["config", "pretrain/tyni"], "did you mean pretrain/tiny?"),
        (["config", "pretrain/small:modren"], "did you mean modern?"),
        (["pretrain", "--workdir", "w"], "--config"),
        (["pretrain", "--config", "nowhere", "--workdir", "{tmp}/w"], "no config file nowhere"),
        (["pretrain", "--config", "pretrain/tiny", "--workdir", "{tmp}/w"], "data.store is empty"),
        (
            ["pretrain", "--config", "pretrain/tiny", "--workdir", "{tmp}/w",
             "--config.data.store={tmp}/none"],
            "not a token store",
        ),
        (
            ["pretrain", "--config", "pretrain/tiny", "--workdir", "{tmp}/w",
             "--config.train.stepz=1"],
            "did you mean --config.train.steps",
        ),
        (["pretrain", "--config", "pretrain/tiny", "--workdir", "{tmp}/w",
          "--config.data.length=0"], "data.length must be at least 8, not 0"),
        (["plan", "--config", "pretrain/small", "--config.data.length=0"],
         "data.length must be at least 8, not 0"),
        (["plan", "--config", "pretrain/small", "--config.data.layout=foo"],
         "data.layout='foo' is unknown"),
        (["plan", "--config", "pretrain/small", "--config.model.vocab_size=-1"],
         "model.vocab_size must be at least 0, not -1"),
        (["finetune", "--config", "finetune/classification", "--workdir", "{tmp}/w",
          "--config.mesh.data=0"], "mesh.data must be at least 1"),
        (["finetune", "--config", "finetune/classification", "--workdir", "{tmp}/w",
          "--config.task.metric=f2"], "task.metric='f2' is unknown"),
        (["evaluate", "--workdir", "{tmp}"], "not a run directory"),
        (["evaluate", "--workdir", "{tmp}", "--minimal-pairs", "{tmp}/none"], "matches no file"),
        (["evaluate", "--workdir", "{tmp}", "--minimal-pairs", "p", "--data", "d"],
         "--minimal-pairs and --data are two"),
        (["evaluate", "--workdir", "{tmp}", "--pairs-per-paradigm", "2"], "--minimal-pairs"),
        (["predict", "--model", "{tmp}/none", "--input", "-"], "not a run directory"),
        (["inspect", "--model", "{tmp}", "text"], "not a run directory"),
        (["report", "--workdir", "{tmp}/none"], "not a run directory|nothing to report"),
        (["report", "--workdir", "w", "--config.a=1"], "takes no --config.a"),
        (["tokenizer", "--input", "text:{tmp}/none*", "--vocab-size", "99", "--output", "o"],
         "no file"),
        (["tokenizer", "--input", "txt:a", "--vocab-size", "99", "--output", "o"], "text:a"),
        (["tokenizer", "--input", "docs:", "--vocab-size", "many", "--output", "o"], "many"),
        (["prepare", "--input", "docs:", "--tokenizer", "{tmp}/none", "--output", "o"],
         "no tokenizer"),
        (["prepare", "--input", "text:{tmp}/empty", "--tokenizer", "{tmp}/none",
          "--output", "o", "--workers", "0"], "empty|tokenizer|workers"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_line(argv, message, tmp_path, capsys):
    import re

    (tmp_path / "empty").write_text("")
    error = fails(capsys, *[a.replace("{tmp}", str(tmp_path)) for a in argv])
    assert re.search(message, error), error
    assert not (tmp_path / "w").exists() and not Path("o").exists()


@pytest.mark.parametrize(
    ("kind", "status"),
    [(UsageError, 2), (NonFiniteLoss, 2), (SaveFailed, 1), (ProcessMissing, 75)],
)
def test_every_declared_error_has_its_line_and_status(kind, status, monkeypatch, capsys):
    assert kind.__bases__ == (ElectraError,)

    def fail(args):
        raise kind("what is wrong")

    monkeypatch.setitem(cli.COMMANDS, "report", fail)
    assert cli.main(["report", "--workdir", "w"]) == status
    assert capsys.readouterr().err == "electra-jax: what is wrong\n"


def commands():
    parser = build_parser()
    [action] = [x for x in parser._actions if isinstance(x, argparse._SubParsersAction)]
    return action.choices


@pytest.mark.parametrize("name", commands())
def test_help_explains_every_flag_and_gives_an_example_that_parses(name):
    sub = commands()[name]
    for action in sub._actions:
        assert action.help, f"{name} {action.option_strings or action.dest}: help is missing"
    assert set(cli.COMMANDS) == set(commands())
    example = sub.format_help().partition("example:\n")[2].strip()
    program, *argv = shlex.split(example)
    assert program == "electra-jax"
    assert build_parser().parse_args(split_overrides(argv)[0]).command == name


PATHS = [
    ["tokenizer", "--input", "text:{bad}", "--vocab-size", "120", "--output", "{tmp}/out"],
    ["tokenizer", "--input", "{text}", "--vocab-size", "120", "--output", "{bad}"],
    ["prepare", "--input", "text:{bad}", "--tokenizer", "{tok}", "--output", "{tmp}/out"],
    ["prepare", "--input", "{text}", "--tokenizer", "{bad}", "--output", "{tmp}/out"],
    ["prepare", "--input", "{text}", "--tokenizer", "{tok}", "--output", "{bad}"],
    ["pretrain", "--config", "{bad}.py", "--workdir", "{tmp}/out"],
    ["pretrain", "--config", "pretrain/tiny", "--config.data.store={bad}", "--workdir", "{tmp}/o"],
    ["finetune", "--config", "finetune/classification", "--config.init.from={bad}",
     "--workdir", "{tmp}/out"],
    ["glue", "--model", "{bad}", "--data", "{bad}", "--workdir", "{tmp}/out"],
    ["predict", "--model", "{bad}", "--input", "-"],
    ["embed", "--model", "{bad}", "--input", "-", "--output", "{tmp}/out"],
    ["evaluate", "--workdir", "{bad}"],
    ["inspect", "--model", "{bad}", "text"],
    ["export", "--model", "{bad}", "--to", "{tmp}/out"],
    ["import", "--from", "{bad}", "--to", "{tmp}/out"],
    ["plan", "--config", "{bad}.py"],
    ["report", "--workdir", "{bad}"],
]  # fmt: skip
BAD = {
    "a loop": "{tmp}/loop", "below a loop": "{tmp}/loop/x", "below a file": "{tmp}/file/x",
    "a long name": "{tmp}/" + "n" * 300, "a line end": "{tmp}/file/\n\x1b[1m\u2028x",
    "bytes": "{tmp}/file/\udcff", "a format": "{tmp}/file/%s{}$x",
}  # fmt: skip


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("argv", PATHS, ids=lambda argv: " ".join(argv[:3:2]))
def test_a_path_that_leads_nowhere_is_told_in_one_line(argv, bad, text, tmp_path, capsys):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "file").touch()
    (tmp_path / "tok.txt").write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a"])
    )
    values = {"bad": BAD[bad], "tok": "{tmp}/tok.txt", "text": text}
    for name, value in [*values.items(), ("tmp", str(tmp_path))]:
        argv = [argument.replace(f"{{{name}}}", value) for argument in argv]
    assert cli.main(argv) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.startswith("electra-jax: ") for line in lines[-1:]] == [True]
    assert (tmp_path / "loop").is_symlink() and not (tmp_path / "out").exists()
    assert (tmp_path / "file").read_bytes() == b""


@pytest.fixture
def told(monkeypatch):
    """What a command logs, at each of the levels."""
    log = logging.getLogger("electra_jax.somewhere")

    def run(args):
        log.debug("a part")
        log.info("a step")
        log.warning("a danger")

    monkeypatch.setitem(cli.COMMANDS, "configs", run)
    yield
    logging.getLogger("electra_jax").setLevel(logging.NOTSET)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["configs"], ["a step", "a danger"]),
        (["configs", "-q"], ["a danger"]),
        (["--quiet", "configs"], ["a danger"]),
        (["configs", "--verbose"], ["a part", "a step", "a danger"]),
    ],
)
def test_how_much_is_told(flags, expected, told, caplog):
    assert cli.main(flags) == 0
    assert [m for m in caplog.messages if m.startswith("a ")] == expected


def test_what_is_told_may_be_kept_in_a_file(told, tmp_path, capsys):
    """Each run appends; a file that cannot be written is told before anything is done."""
    file = tmp_path / "log"
    for _ in range(2):
        assert cli.main(["configs", "--log-file", str(file)]) == 0
    lines = file.read_text().splitlines()
    assert [line.partition(" a ")[2] for line in lines] == ["step", "danger"] * 2
    assert lines[0][:2] == "20"
    assert "cannot be written" in fails(capsys, "configs", "--log-file", f"{tmp_path}/none/log")


def test_processes_may_log_to_files_of_their_own():
    """What is only shown is none of what processes must have in common."""
    argv = ["-v", "pretrain", "--log-file", "log.1", "--config", "f", "--log-file=b", "--quiet"]
    assert without_display_flags(argv) == ["pretrain", "--config", "f"]


def test_a_long_command_says_at_once_that_it_starts(monkeypatch, caplog):
    caplog.set_level("INFO")
    begun = []
    monkeypatch.setitem(cli.COMMANDS, "report", lambda args: begun.extend(caplog.messages))
    assert cli.main(["report", "--workdir", "w"]) == 0
    assert any("report, starting" in message for message in begun)


@pytest.mark.parametrize(
    ("variables", "colours"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_colours_are_for_terminals_whose_users_want_them(variables, colours, monkeypatch):
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert wants_colour() == colours
