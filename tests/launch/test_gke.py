"""The JobSet that is applied, and what its parts mean together."""

import re
import shlex
import subprocess

import pytest
import yaml

SLICE = ("--name=base", "--image=images/it:1", "--accelerator=tpu-v5-lite-podslice",
         "--topology=4x4")  # fmt: skip
WORDS = ("--", "pretrain", "--config", "pretrain/base", "--note=a \"quoted\" \\ 'word': {x}")


@pytest.fixture
def gke(commands, launch):
    commands.stand_in("kubectl", "xpk")
    return lambda *words: launch("gke.sh", *words)


@pytest.fixture
def applied(gke, commands):
    """The manifest as kubectl gets it."""

    def apply(*flags):
        result = gke("apply", *SLICE, *flags, *WORDS)
        assert result.returncode == 0, result.stderr
        (call, given), *_ = commands.records()
        assert call[:2] == ["kubectl", "apply"] and "--filename=-" in call
        assert "{{" not in given.split("kind:")[1] and "# if" not in given.split("kind:")[1]
        return yaml.safe_load(given)

    return apply


def job(manifest):
    (slices,) = manifest["spec"]["replicatedJobs"]
    return slices["template"]["spec"]


def pod(manifest):
    return job(manifest)["template"]["spec"]


def test_a_pod_for_each_node_of_each_slice(applied):
    manifest = applied("--slices=2", "--service-account=writer", "--spot", "--queue=mine")
    assert (manifest["apiVersion"], manifest["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert manifest["metadata"]["name"] == "base"
    assert manifest["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "mine"}
    assert manifest["spec"]["replicatedJobs"][0]["replicas"] == 2
    assert job(manifest)["parallelism"] == job(manifest)["completions"] == 4
    assert pod(manifest)["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        "cloud.google.com/gke-tpu-topology": "4x4",
        "cloud.google.com/gke-spot": "true",
    }
    assert pod(manifest)["serviceAccountName"] == "writer"
    (container,) = pod(manifest)["containers"]
    assert container["image"] == "images/it:1"
    assert container["args"] == list(WORDS[1:])
    assert container["resources"]["limits"] == {"google.com/tpu": 4}


@pytest.mark.parametrize(
    ("topology", "chips_per_node", "workers", "chips"),
    [("2x4", 8, 1, 8), ("2x4", 4, 2, 4), ("2x2", 4, 1, 4), ("1x1", 4, 1, 1), ("4x4x8", 4, 32, 4)],
)
def test_workers_follow_from_the_topology(applied, topology, chips_per_node, workers, chips):
    manifest = applied(f"--topology={topology}", f"--chips-per-node={chips_per_node}")
    assert job(manifest)["completions"] == workers
    assert pod(manifest)["containers"][0]["resources"]["limits"]["google.com/tpu"] == chips


def decided(manifest, reason: str, message: str) -> str:
    """What JobSet does about a failed job: the action of the first rule that matches."""
    for rule in manifest["spec"]["failurePolicy"]["rules"]:
        patterns = rule["onJobFailureMessagePatterns"]
        if reason in rule["onJobFailureReasons"] and any(re.search(p, message) for p in patterns):
            return rule["action"]
    return "RestartJobSet"


def test_what_an_end_means(applied):
    manifest = applied("--max-restarts=5")
    # Kubernetes' words, which JobSet matches.
    exit_code = (
        "Container main for pod default/base-0 failed with exit code {} matching FailJob rule"
    )
    lost = "Pod default/base-0 has condition DisruptionTarget matching FailJob rule at index 1"
    policy = "PodFailurePolicy"
    uncounted = "RestartJobSetAndIgnoreMaxRestarts"
    assert decided(manifest, policy, exit_code.format(75)) == uncounted
    assert decided(manifest, policy, lost) == uncounted
    assert decided(manifest, policy, exit_code.format(2)) == "FailJobSet"
    assert decided(manifest, "BackoffLimitExceeded", "…") == "RestartJobSet"
    assert manifest["spec"]["failurePolicy"]["maxRestarts"] == 5
    codes, condition = job(manifest)["podFailurePolicy"]["rules"]
    assert codes["onExitCodes"] == {
        "containerName": pod(manifest)["containers"][0]["name"], "operator": "In", "values": [2, 75]
    }  # fmt: skip
    assert condition["onPodConditions"] == [{"type": "DisruptionTarget"}]
    assert codes["action"] == condition["action"] == "FailJob"
    # Else pods would be started again one by one.
    assert job(manifest)["backoffLimit"] == 0
    assert pod(manifest)["restartPolicy"] == "Never"


def test_there_is_time_to_save(applied):
    assert pod(applied())["terminationGracePeriodSeconds"] == 120


def test_a_bucket_is_mounted(applied, commands):
    manifest = applied("--bucket=texts")
    annotations = job(manifest)["template"]["metadata"]["annotations"]
    assert annotations["gke-gcsfuse/volumes"] == "true"
    (volume,) = pod(manifest)["volumes"]
    assert volume["csi"]["driver"] == "gcsfuse.csi.storage.gke.io"
    assert volume["csi"]["volumeAttributes"]["bucketName"] == "texts"
    (mount,) = pod(manifest)["containers"][0]["volumeMounts"]
    assert mount == {"name": volume["name"], "mountPath": "/work/bucket"}
    commands.forget()
    assert "volumes" not in pod(applied())


@pytest.mark.parametrize("flag", ["--topology=3x3", "--topology=big", "--slices=0"])
def test_a_slice_that_cannot_be(gke, commands, flag):
    result = gke("apply", *SLICE, flag, *WORDS)
    assert result.returncode == 2
    assert flag.split("=")[0] in result.stderr or "3x3" in result.stderr
    assert not commands.calls()


def test_logs_status_delete(gke, commands):
    where = ("--name=base", "--namespace=mine", "--context=there")
    gke("logs", *where)
    gke("logs", *where, "--worker=all")
    gke("status", *where)
    gke("delete", *where)
    one, every, jobset, pods, deleted = commands.calls("--namespace=mine", "--context=there")
    base = "--selector=jobset.sigs.k8s.io/jobset-name=base"
    assert base in every and base in pods
    assert any(word.endswith("job-completion-index=0") for word in one)
    assert {"get", "jobset/base", "--ignore-not-found"} <= set(jobset)
    assert {"delete", "jobset/base", "--ignore-not-found"} <= set(deleted)


def test_a_dry_run_can_be_pasted(gke, commands, environment):
    shown = gke("apply", *SLICE, "--dry-run", *WORDS).stdout
    for command in ("logs", "status", "delete"):
        assert gke(command, "--name=base", "--dry-run").stdout.startswith("kubectl ")
    assert not commands.calls()
    gke("apply", *SLICE, *WORDS)
    meant = commands.records()
    commands.forget()
    subprocess.run(["bash", "-c", shown], env=environment, check=True)
    assert commands.records() == meant


def test_xpk(gke, commands):
    flags = ("--xpk", "--name=base", "--cluster=big", "--tpu-type=v5litepod-16",
             "--image=it:1", "--zone=here")  # fmt: skip
    assert gke("apply", *flags, *WORDS).returncode == 0
    (call,) = commands.calls("create")
    assert call[:3] == ["xpk", "workload", "create"]
    assert {"--workload=base", "--cluster=big", "--zone=here", "--restart-on-exit-codes=75"} <= set(
        call
    )
    (command,) = (word for word in call if word.startswith("--command="))
    assert shlex.split(command.removeprefix("--command=")) == ["electra-jax", *WORDS[1:]]
    commands.forget()
    commands.answer("workload list", "Jobset Name  Created\nbase  2026-01-01T00:00:00Z")
    assert gke("apply", *flags, *WORDS).returncode == 0
    assert not commands.calls("create")
    gke("delete", *flags)
    (deleted,) = commands.calls("delete")
    assert {"--workload=base", "--force"} <= set(deleted)
    assert gke("apply", "--xpk", "--name=base", *WORDS).returncode == 2
