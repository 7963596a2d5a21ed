"""Several processes of one run: what each is told, and what their ends mean together."""

import os
import re
import signal
import subprocess

import pytest

# Ends as its last word says of it (`status,status,…` by process; `-`: waits for a signal).
PROGRAM = """#!/usr/bin/env bash
IFS=, read -ra ends <<<"${@: -1}"
end=${ends[$JAX_PROCESS_ID]}
trap 'echo "got TERM"; [[ $end == [0-9]* ]] || end=${TERM_STATUS:-75}' TERM
trap 'echo "got INT"; end=130' INT
[[ $end != deaf ]] || trap '' TERM
echo "$JAX_PROCESS_ID of $JAX_NUM_PROCESSES at $JAX_COORDINATOR_ADDRESS" \
  "on ${JAX_PLATFORMS:-any} ${XLA_FLAGS:-} GPUs ${CUDA_VISIBLE_DEVICES:-all} words $*"
# None ends before all have their traps.
: >"$HOME/ready.$JAX_PROCESS_ID"
for ((other = 0; other < JAX_NUM_PROCESSES; other++)); do
  until [[ -e $HOME/ready.$other || -n ${ALONE:-} ]]; do sleep 0.01; done
done
# In the background: while it waits for one in the foreground, bash can lose a SIGINT.
until [[ $end == [0-9]* ]]; do sleep 0.02 & wait $!; done
sleep "0.$((3 * JAX_PROCESS_ID))" # they do not end together
exit "$end"
"""


@pytest.fixture
def local(commands, launch):
    commands.stand_in("electra-jax", script=PROGRAM)

    def run(ends, *words, **more):
        return launch("local.sh", "--processes", ends.count(",") + 1, *words, "--", ends, **more)

    return run


def test_each_process_knows_its_place(local):
    result = local("0,0,0")
    assert result.returncode == 0, result.stderr
    lines = sorted(result.stdout.splitlines())
    assert [line[:9] for line in lines] == ["0: 0 of 3", "1: 1 of 3", "2: 2 of 3"]
    addresses = set(re.findall(r"at (localhost:\d+) on any", result.stdout))
    assert len(addresses) == 1


def test_devices_of_the_cpu(local):
    result = local("0,0", "--devices-per-process=4", "--port=123", XLA_FLAGS="--xla_other")
    flags = "on cpu --xla_other --xla_force_host_platform_device_count=4 GPUs all"
    assert result.stdout.count(f"at localhost:123 {flags}") == 2


def test_gpus_are_shared_out(local):
    result = local("0,0", "--gpus-per-process=2")
    assert result.returncode == 0, result.stderr
    assert sorted(re.findall(r"^(\d):.* GPUs (\S+)", result.stdout, re.MULTILINE)) == [
        ("0", "0,1"),
        ("1", "2,3"),
    ]


def test_devices_are_of_the_cpu_or_of_gpus(local):
    result = local("0", "--gpus-per-process=1", "--devices-per-process=1")
    assert result.returncode == 2
    assert "--devices-per-process is of the CPU" in result.stderr


@pytest.mark.parametrize(
    ("ends", "status"),
    [("0,0", 0), ("1,-,2", 2), ("-,75", 75), ("-,3,-", 3), ("0,9", 9), ("75,75", 75)],
)
def test_the_status_that_tells_most(local, ends, status):
    assert local(ends).returncode == status


def test_heeding_the_end_of_another_is_no_preemption(local):
    """The others end with 75 since they were asked to; the crash is what must be counted."""
    result = local("-,1,-")
    assert result.returncode == 1
    assert result.stdout.count("got TERM") == 2


def test_an_error_to_mend_is_told_whenever_it_comes(local):
    assert local("1,-", TERM_STATUS="2").returncode == 2


@pytest.mark.slow
def test_processes_that_heed_nothing_are_killed(local):
    result = local("1,deaf", "--grace=1")
    assert result.returncode == 1
    assert "process 1 ended with status 137" in result.stderr


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_signals_reach_all(commands, checkout, environment, number, status):
    commands.stand_in("electra-jax", script=PROGRAM)
    process = subprocess.Popen(
        [checkout / "launch" / "local.sh", "--processes=2", "--", "-,-"],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    lines = [process.stdout.readline(), process.stdout.readline()]
    assert sorted(line[0] for line in lines) == ["0", "1"]
    # As Ctrl-C does: to the whole group of the launcher. Each process gets it once.
    os.killpg(process.pid, number)
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == status
    name = signal.Signals(number).name.removeprefix("SIG")
    assert sorted(rest.splitlines()) == [f"0: got {name}", f"1: got {name}"]


def test_a_dry_run_can_be_pasted(local, environment):
    result = local("0,0", "--dry-run", "--devices-per-process=2", "--port=9")
    commands = result.stdout.splitlines()
    assert len(commands) == 2
    pasted = subprocess.run(
        ["bash", "-c", commands[1]],
        env={**environment, "ALONE": "yes"},
        capture_output=True,
        text=True,
    )
    assert pasted.stdout.startswith("1 of 2 at localhost:9 on cpu")


def test_a_program_that_is_not_there(launch, environment):
    result = launch("local.sh", "--processes=2", "--", "x", ELECTRA_JAX="not-there")
    assert result.returncode == 2
    assert "not-there is not on the PATH" in result.stderr
