"""What is asked of Slurm, and what the batch script makes of a status."""

import subprocess

import pytest

JOB = ("--name=base", "--nodes=2", "--gpus-per-node=8", "--time=24:00:00")
WORDS = ("--", "pretrain", "--config", "pretrain/base", "--note=a 'b'")


@pytest.fixture
def slurm(commands, launch):
    commands.stand_in("sbatch", "squeue", "scancel", "srun", "scontrol")
    return lambda *words: launch("slurm.sh", *words)


@pytest.fixture
def batch(slurm, commands, environment, checkout, tmp_path):
    """Runs the batch script as sbatch was told to, in a copy elsewhere as Slurm does."""
    copy = tmp_path / "spool" / "slurm_script"
    copy.parent.mkdir()
    copy.write_bytes((checkout / "launch" / "slurm.sbatch").read_bytes())

    def turn(*flags, status=0, state="RUNNING"):
        commands.forget()
        slurm("submit", *JOB, *flags, *WORDS)
        (call,) = commands.calls("sbatch")
        script = call.index(str(checkout / "launch" / "slurm.sbatch"))
        commands.answer("^srun", status=status)
        commands.answer("squeue --noheader --jobs", state)
        return run(call[script + 1 :])

    def run(words):
        return subprocess.run(
            ["bash", copy, *words],
            env={**environment, "SLURM_JOB_ID": "7"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )

    turn.again = run
    return turn


def test_one_task_for_each_gpu(slurm, commands, batch):
    assert slurm("submit", *JOB, "--partition=gpu", *WORDS).returncode == 0
    (call,) = commands.calls("sbatch")
    assert {"--nodes=2", "--ntasks-per-node=8", "--gpus-per-node=8", "--time=24:00:00",
            "--partition=gpu", "--requeue", "--open-mode=append"} <= set(call)  # fmt: skip
    batch()
    (tasks,) = commands.calls("srun")
    # JAX takes the n-th GPU in the n-th task: all must see all.
    assert "--gpu-bind=none" in tasks
    assert not any("gpus-per-task" in word for word in call + tasks)
    assert tasks[-4:] == list(WORDS[1:])


def test_tasks_get_the_cores_that_the_job_asks_for(slurm, batch, commands, environment):
    slurm("submit", *JOB, "--cpus-per-task=12", *WORDS)
    assert "--cpus-per-task=12" in commands.calls("sbatch")[0]
    environment["SLURM_CPUS_PER_TASK"] = "12"  # as sbatch sets it
    batch("--cpus-per-task=12")
    assert "--cpus-per-task=12" in commands.calls("srun")[0]
    assert slurm("submit", *JOB, "--cpus-per-task=0", *WORDS).returncode == 2


def test_the_tasks_hear_of_the_time_limit(slurm, commands):
    slurm("submit", *JOB, "--grace=300", *WORDS)
    assert "--signal=TERM@300" in commands.calls("sbatch")[0]


def test_a_job_is_queued_once(slurm, commands):
    commands.answer("squeue", "41")
    result = slurm("submit", *JOB, *WORDS)
    assert result.returncode == 0
    assert "41" in result.stderr
    assert not commands.calls("sbatch")


@pytest.mark.parametrize(
    ("flags", "program"),
    [
        ((), ["electra-jax"]),
        (["--venv=/envs/it"], ["/envs/it/bin/electra-jax"]),
        (["--container=it.sif"], ["apptainer", "exec", "--nv", "it.sif", "electra-jax"]),
        (["--container=images/it"], ["--container-image=images/it", "--container-mount-home",
                                     "--container-mounts={here}:{here}",
                                     "--container-workdir={here}", "electra-jax"]),
    ],
)  # fmt: skip
def test_where_the_program_is(batch, commands, flags, program, tmp_path):
    program = [word.replace("{here}", str(tmp_path)) for word in program]
    assert batch(*flags).returncode == 0
    (tasks,) = commands.calls("srun")
    assert tasks[-4 - len(program) : -4] == program


def requeued(commands) -> bool:
    return bool(commands.calls("scontrol", "requeue", "7"))


@pytest.mark.parametrize(("status", "again"), [(0, False), (2, False), (75, True), (1, True)])
def test_what_a_status_means(batch, commands, status, again):
    assert batch(status=status).returncode == status
    assert requeued(commands) == again


@pytest.mark.parametrize("status", [75, 1])
def test_a_cancelled_job_stays_so(batch, commands, status):
    batch(status=status, state="COMPLETING")
    assert not requeued(commands)


def test_crashes_are_counted_and_preemptions_are_not(batch, slurm, commands):
    batch("--max-restarts=2", status=1)
    (call,) = commands.calls("sbatch")
    words = call[call.index("--max-restarts") :]
    turns = []
    for status in (75, 75, 75, 139, 139):
        commands.forget()
        commands.answer("^srun", status=status)
        commands.answer("--jobs", "RUNNING")
        batch.again(words)
        turns.append(requeued(commands))
    assert turns == [True, True, True, True, False]
    # A job that is submitted anew counts from 0.
    batch("--max-restarts=2", status=1)
    assert requeued(commands)


def test_delete(slurm, commands):
    assert slurm("delete", "--name=base").returncode == 0
    assert not commands.calls("scancel")
    commands.answer("squeue", "41")
    slurm("delete", "--name=base")
    assert commands.calls("scancel", "--name=base")


def test_a_dry_run_can_be_pasted(slurm, commands, environment, tmp_path):
    shown = slurm("submit", *JOB, "--dry-run", *WORDS).stdout
    for command in ("logs", "status", "delete"):
        assert slurm(command, "--name=base", "--dry-run").stdout
    assert not commands.calls()
    assert not (tmp_path / "slurm-logs").exists()
    slurm("submit", *JOB, *WORDS)
    meant = commands.calls("sbatch")
    commands.forget()
    subprocess.run(["bash", "-c", shown], env=environment, check=True, cwd=tmp_path)
    assert commands.calls() == meant
