"""The life of a run on a Cloud TPU slice, with a stand-in for gcloud."""

import re
import shlex
import subprocess

import pytest

WHERE = ("--name=base", "--project=mine", "--zone=here", "--poll=0")
TYPE = "--accelerator-type=v5litepod-16"
WORDS = ("--", "pretrain", "--config", "pretrain/base", "--note=a 'quoted' $word")
REQUEST = "queued-resources describe"
NODE = "tpu-vm describe"
STATUS = "tpu_worker.sh status"
MISSING = "ERROR: (gcloud.compute.tpus) NOT_FOUND: Resource was not found"
RUNNING = "electra-jax: running"


def ended(status: int) -> str:
    return f"electra-jax: ended {status}"


@pytest.fixture
def tpu(commands, launch):
    commands.stand_in("gcloud", "python3")

    def run(command, *words, **more):
        return launch("cloud_tpu.sh", command, *WHERE, *words, **more)

    return run


def verbs(commands) -> list[str]:
    """What was done that changes something, in order."""
    done = []
    for call in commands.calls("gcloud"):
        if "describe" in call:
            continue
        remote = next((word for word in call if word.startswith("--command=")), "")
        verb = re.search(r"tpu_worker.sh (\w+)", remote)
        done.append(verb[1] if verb else call[4])
    return [verb for verb in done if verb != "status"]


def test_create_waits_until_the_slice_is_there(tpu, commands):
    commands.answer(REQUEST, error=MISSING, status=1)
    commands.answer(REQUEST, "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE")
    result = tpu("create", TYPE, "--spot", "--service-account=me@mine")
    assert result.returncode == 0, result.stderr
    (call,) = commands.calls("create")
    assert call[:6] == ["gcloud", "compute", "tpus", "queued-resources", "create", "base"]
    assert {TYPE, "--runtime-version=v2-alpha-tpuv5-lite", "--spot", "--node-id=base"} <= set(call)
    assert {"--project=mine", "--zone=here", "--service-account=me@mine"} <= set(call)
    assert [line.split()[-1] for line in result.stderr.splitlines()] == [
        "MISSING", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"
    ]  # fmt: skip


def test_create_asks_once(tpu, commands):
    commands.answer(REQUEST, "PROVISIONING", "ACTIVE")
    assert tpu("create", TYPE).returncode == 0
    assert not verbs(commands)


def test_create_replaces_what_was_preempted(tpu, commands):
    commands.answer(REQUEST, "SUSPENDING", "SUSPENDED")
    commands.answer(REQUEST, error=MISSING, status=1)
    commands.answer(REQUEST, "ACTIVE")
    assert tpu("create", TYPE).returncode == 0
    assert verbs(commands) == ["delete", "create"]


@pytest.mark.parametrize("answer", [{"error": "PERMISSION_DENIED", "status": 1}, "FAILED"])
def test_create_gives_up(tpu, commands, answer):
    """Not every error of a look-up means that there is no slice yet."""
    if answer == "FAILED":
        commands.answer(REQUEST, answer)
    else:
        commands.answer(REQUEST, **answer)
    result = tpu("create", TYPE)
    assert result.returncode == 1
    assert not verbs(commands)
    assert "FAILED" in result.stderr or "PERMISSION_DENIED" in result.stderr


@pytest.mark.parametrize("command", ["create", "run"])
def test_a_refused_request_is_not_made_again(tpu, commands, command):
    commands.answer(REQUEST, error=MISSING, status=1, times=9)
    commands.answer("resources create", error="QUOTA_EXCEEDED", status=1, times=9)
    assert tpu(command, TYPE, "--max-restarts=0", *WORDS).returncode == 1
    assert verbs(commands) == ["create"]


@pytest.mark.parametrize(
    ("accelerator", "version"),
    [
        ("v6e-16", "v2-alpha-tpuv6e"),
        ("v5p-32", "v2-alpha-tpuv5"),
        ("v5litepod-8", "v2-alpha-tpuv5-lite"),
        ("v4-8", "tpu-ubuntu2204-base"),
    ],
)
def test_each_generation_has_its_runtime(tpu, accelerator, version):
    shown = tpu("create", f"--accelerator-type={accelerator}", "--dry-run").stdout
    assert f"--runtime-version={version} " in shown


def test_an_unknown_generation_wants_a_runtime(tpu, commands):
    result = tpu("create", "--accelerator-type=v99-8")
    assert result.returncode == 2
    assert "--runtime-version" in result.stderr
    assert not commands.calls()
    assert tpu("create", "--accelerator-type=v99-8", "--runtime-version=x", "--dry-run").stdout


def test_delete(tpu, commands):
    commands.answer(REQUEST, "ACTIVE")
    commands.answer(REQUEST, error=MISSING, status=1)
    assert tpu("delete").returncode == 0
    (call,) = commands.calls("delete")
    assert {"queued-resources", "base", "--force", "--quiet"} <= set(call)
    commands.forget()
    assert tpu("delete").returncode == 0
    assert not verbs(commands)


def test_setup_installs_this_checkout(tpu, commands, checkout):
    result = tpu("setup", "--bucket=texts", "--store=gs://texts/store")
    assert result.returncode == 0, result.stderr
    assert verbs(commands) == ["scp", "install", "mount", "fetch"]
    files = checkout / "dist" / "electra-jax"
    assert {"tpu_worker.sh", "requirements.txt"} == {file.name for file in files.iterdir()}
    (wheel,) = commands.calls("python3")
    assert str(files) in wheel and str(checkout) in wheel
    (scp,) = commands.calls("scp")
    assert {str(files), "base:", "--worker=all", "--recurse"} <= set(scp)
    remote = [shlex.split(word)[3:] for call in commands.calls("ssh") for word in call
              if word.startswith("--command=")]  # fmt: skip
    assert remote[0][0].startswith("electra_jax-") and remote[0][0].endswith(".whl")
    assert remote[1:] == [["texts"], ["gs://texts/store"]]


def test_setup_installs_from_git(tpu, commands, checkout):
    assert tpu("setup", "--git=https://host/it@v1").returncode == 0
    assert not commands.calls("python3")
    assert "install git+https://host/it@v1" in " ".join(commands.calls("ssh")[0])


@pytest.mark.parametrize("step", ["build", "gather"])
def test_setup_stops_where_a_step_fails(tpu, commands, checkout, step):
    if step == "build":
        commands.answer("python3", status=1)
    else:
        (checkout / "launch" / "tpu_worker.sh").unlink()
    assert tpu("setup").returncode != 0
    assert not verbs(commands)


def test_start_keeps_words_whole(tpu, commands):
    assert tpu("start", *WORDS).returncode == 0
    (call,) = commands.calls("ssh")
    assert {"--worker=all", "--quiet"} <= set(call)
    (remote,) = (word for word in call if word.startswith("--command="))
    remote = shlex.split(remote.removeprefix("--command="))
    assert remote == ["bash", "electra-jax/tpu_worker.sh", "start", *WORDS[1:]]


def test_start_twice_is_refused(tpu, commands):
    commands.answer("tpu_worker.sh start", status=3, error="electra-jax: running already")
    result = tpu("start", *WORDS)
    assert result.returncode == 3
    assert "running already" in result.stderr


def test_logs_and_stop(tpu, commands):
    tpu("logs")
    tpu("logs", "--worker", "all")
    tpu("stop", "--grace=7")
    first, all_of_them, stop = commands.calls("ssh")
    assert "--worker=0" in first and "--worker=all" in all_of_them
    assert "--worker=all" in stop and stop[-3].endswith("stop 7")


def test_status_says_where_it_stands(tpu, commands):
    commands.answer(REQUEST, "ACTIVE")
    commands.answer(STATUS, RUNNING)
    result = tpu("status")
    assert "ACTIVE" in result.stderr and RUNNING in result.stdout
    commands.answer(REQUEST, "PROVISIONING")
    commands.forget()
    assert tpu("status").returncode == 0
    assert not commands.calls("ssh")


BEGIN = ["scp", "install", "start"]


def test_run_goes_on_after_a_preemption(tpu, commands):
    commands.answer(REQUEST, error=MISSING, status=1, times=2)
    commands.answer(REQUEST, "ACTIVE")
    commands.answer(STATUS, RUNNING)
    commands.answer(STATUS, status=255)
    commands.answer(REQUEST, "SUSPENDED", times=3)
    commands.answer(REQUEST, error=MISSING, status=1)
    commands.answer(REQUEST, "ACTIVE", times=9)
    commands.answer(STATUS, f"{RUNNING}\n{RUNNING}", f"{ended(0)}\n{ended(0)}")
    result = tpu("run", TYPE, "--max-restarts=0", *WORDS)
    assert result.returncode == 0, result.stderr
    assert verbs(commands) == ["create", *BEGIN, "delete", "create", *BEGIN]
    assert "preempted" in result.stderr


def test_run_sees_a_lost_node_behind_a_live_request(tpu, commands):
    commands.answer(REQUEST, "ACTIVE", times=4)
    commands.answer(STATUS, status=255, times=2)
    commands.answer(NODE, "PREEMPTED")
    commands.answer(REQUEST, error=MISSING, status=1)
    commands.answer(REQUEST, "ACTIVE", times=9)
    commands.answer(STATUS, ended(0))
    assert tpu("run", TYPE, *WORDS).returncode == 0
    assert verbs(commands).count("delete") == verbs(commands).count("create") == 1


def test_run_survives_a_broken_connection(tpu, commands):
    commands.answer(REQUEST, "ACTIVE", times=99)
    commands.answer(NODE, "READY", times=99)
    commands.answer(STATUS, RUNNING)
    commands.answer(STATUS, status=255, times=3)
    commands.answer(STATUS, ended(0))
    assert tpu("run", TYPE, *WORDS).returncode == 0
    assert not verbs(commands)


def test_run_tries_again_what_could_not_be_started(tpu, commands):
    """One worker was out of reach; the others run already, and would refuse to start twice."""
    commands.answer(REQUEST, "ACTIVE", times=99)
    commands.answer(NODE, "READY", times=99)
    commands.answer(STATUS, status=127)
    commands.answer("tpu_worker.sh start", status=255)
    commands.answer(STATUS, ended(0))
    assert tpu("run", TYPE, "--max-restarts=1", *WORDS).returncode == 0
    assert verbs(commands) == [*BEGIN, "stop", *BEGIN]


def test_what_has_finished_is_not_started_again(tpu, commands):
    commands.answer(REQUEST, "ACTIVE", times=99)
    commands.answer(STATUS, RUNNING, ended(0))
    commands.answer("resources delete", status=1)
    assert tpu("run", TYPE, "--delete-at-end", *WORDS).returncode == 1
    assert verbs(commands) == ["delete"]


def test_run_starts_again_what_has_saved(tpu, commands):
    commands.answer(REQUEST, "ACTIVE", times=99)
    commands.answer(STATUS, status=127)
    commands.answer(STATUS, *[f"{ended(75)}\n{ended(75)}"] * 5, ended(0))
    result = tpu("run", TYPE, "--max-restarts=0", *WORDS)
    assert result.returncode == 0, result.stderr
    assert verbs(commands) == BEGIN * 6


def test_run_ends_on_an_error_to_mend(tpu, commands):
    commands.answer(REQUEST, "ACTIVE", times=99)
    commands.answer(STATUS, status=127)
    commands.answer(STATUS, f"{ended(134)}\n{ended(2)}")
    assert tpu("run", TYPE, *WORDS).returncode == 2
    assert verbs(commands) == BEGIN


def test_run_counts_crashes(tpu, commands):
    commands.answer(REQUEST, "ACTIVE", times=99)
    commands.answer(STATUS, status=127)
    commands.answer(STATUS, ended(1), ended(139), ended(6), ended(0))
    result = tpu("run", TYPE, "--max-restarts=2", *WORDS)
    assert result.returncode == 6
    assert verbs(commands) == BEGIN * 3


def test_run_ends_the_workers_that_wait_for_a_crashed_one(tpu, commands):
    commands.answer(REQUEST, "ACTIVE", times=99)
    commands.answer(STATUS, status=127)
    commands.answer(STATUS, f"{RUNNING}\n{ended(1)}\n{RUNNING}", f"{ended(0)}\n{ended(0)}")
    assert tpu("run", TYPE, *WORDS).returncode == 0
    assert verbs(commands) == [*BEGIN, "stop", *BEGIN]


def test_a_worker_that_knows_of_nothing_has_not_finished(tpu, commands):
    commands.answer(REQUEST, "ACTIVE", times=99)
    commands.answer(STATUS, status=127)
    commands.answer(STATUS, "electra-jax: not started")
    assert tpu("run", TYPE, "--max-restarts=0", *WORDS).returncode == 1


def test_run_again_only_watches(tpu, commands):
    commands.answer(REQUEST, "ACTIVE", times=99)
    commands.answer(STATUS, RUNNING, RUNNING, ended(0))
    assert tpu("run", TYPE, "--delete-at-end", *WORDS).returncode == 0
    assert verbs(commands) == ["delete"]


@pytest.mark.parametrize(
    "command", ["create", "setup", "start", "logs", "status", "stop", "run", "delete"]
)
def test_a_dry_run_runs_nothing(tpu, commands, command):
    result = tpu(command, TYPE, "--dry-run", *WORDS)
    assert result.returncode == 0, result.stderr
    assert "gcloud compute tpus" in result.stdout
    assert not commands.calls()


def test_a_dry_run_can_be_pasted(tpu, commands, environment):
    shown = tpu("start", "--dry-run", *WORDS).stdout
    tpu("start", *WORDS)
    meant = commands.calls()
    commands.forget()
    subprocess.run(["bash", "-c", shown], env=environment, check=True)
    assert commands.calls() == meant


def test_project_and_zone_are_those_of_gcloud(commands, launch):
    result = launch("cloud_tpu.sh", "delete", "--name=base", "--dry-run",
                    CLOUDSDK_CORE_PROJECT="mine", CLOUDSDK_COMPUTE_ZONE="here")  # fmt: skip
    assert "--project=mine --zone=here" in result.stdout
