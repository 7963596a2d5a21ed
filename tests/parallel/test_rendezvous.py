"""Processes find each other, or say in one line who is missing or differs."""

import json
import socket
import threading
import time

import pytest

from electra_jax.errors import ElectraError, ProcessMissing, UsageError
from electra_jax.parallel import rendezvous as rendezvous_module
from electra_jax.parallel.rendezvous import ERROR, VARIABLES, Cluster, find_cluster, rendezvous


@pytest.fixture
def address():
    with socket.create_server(("localhost", 0)) as server:
        port = server.getsockname()[1]
    return f"localhost:{port}"


def call(address, count, fingerprint, seconds=10.0):
    """What each of the processes that are there is told; empty where all is well."""
    told = {}

    def run(index):
        try:
            rendezvous(Cluster(address, count, index), fingerprint[index], seconds)
            told[index] = ""
        except ElectraError as error:
            told[index] = str(error)

    threads = [threading.Thread(target=run, args=(index,)) for index in fingerprint]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return told


def test_processes_that_agree_may_start(address, caplog):
    caplog.set_level("INFO", "electra_jax")
    fingerprint = {index: {"the code": "a", "--config.train.steps": "10"} for index in range(3)}
    assert call(address, 3, fingerprint) == dict.fromkeys(range(3), "")
    assert f"0 {socket.gethostname()}, 1 {socket.gethostname()}, 2" in caplog.text


def test_one_that_differs_is_named_with_what_differs(address):
    fingerprint = {index: {"--config.train.steps": "10"} for index in range(3)}
    fingerprint[2] = {"--config.train.steps": "20"}
    told = call(address, 3, fingerprint)
    assert len(set(told.values())) == 1
    assert told[1].startswith("process 2 (")
    assert "--config.train.steps is '20' there, '10' here" in told[1]


def test_one_that_is_missing_is_named_after_a_while(address):
    told = call(address, 4, {0: {}, 1: {}, 3: {}}, seconds=1.0)
    assert len(set(told.values())) == 1
    assert told[0].startswith("process 2 of 4 did not come; there are 0 (")
    # It may be on its way: launchers rerun the command.
    with pytest.raises(ProcessMissing):
        rendezvous(Cluster(address, 2, 0), {}, 0.1)


def test_one_that_cannot_start_tells_all_why(address):
    told = call(address, 2, {0: {"a": "1"}, 1: {ERROR: "store is not a token store"}})
    assert set(told) == {0, 1}
    assert all(line.endswith("cannot start: store is not a token store") for line in told.values())


def test_without_process_0_nobody_waits_for_ever(address):
    told = call(address, 2, {1: {}}, seconds=1.0)
    assert told[1] == f"process 0 did not answer at {address}: is it running?"


def knock(address):
    """A connection to process 0, as soon as it listens."""
    deadline = time.monotonic() + 10
    while True:
        try:
            return socket.create_connection(("localhost", int(address.rpartition(":")[2])))
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_strangers_at_the_door_are_passed_over(address):
    told = {}
    first = threading.Thread(target=lambda: told.update(call(address, 2, {0: {}})))
    first.start()
    with knock(address) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
    told.update(call(address, 2, {1: {}}))
    first.join()
    assert told == {0: "", 1: ""}


def test_a_silent_or_senseless_caller_holds_nobody_up(address, monkeypatch):
    monkeypatch.setattr(rendezvous_module, "STRANGER_SECONDS", 0.2)
    told = {}
    first = threading.Thread(target=lambda: told.update(call(address, 2, {0: {}})))
    first.start()
    with knock(address), knock(address) as senseless:
        senseless.sendall(b"{}\n")
        told.update(call(address, 2, {1: {}}))
    first.join()
    assert told == {0: "", 1: ""}


@pytest.mark.slow
def test_an_early_process_waits_as_long_as_process_0_does(address):
    told = {}

    def run(index):
        try:
            rendezvous(Cluster(address, 3, index), {}, 1.0)
        except ElectraError as error:
            told[index] = str(error)

    early = threading.Thread(target=run, args=(1,))
    early.start()
    time.sleep(0.6)
    run(0)
    early.join()
    assert "process 2 of 3 did not come" in told[0]
    assert told[1] == told[0]


def test_two_that_say_they_are_the_same_are_named(address):
    lines = []

    def speak(pid):
        deadline = time.monotonic() + 10
        mine = {"index": 1, "host": f"host-{pid}", "pid": pid, "fingerprint": {}}
        while time.monotonic() < deadline:
            try:
                port = int(address.rpartition(":")[2])
                with socket.create_connection(("localhost", port), timeout=5) as line:
                    line.sendall((json.dumps(mine) + "\n").encode())
                    lines.append(json.loads(line.makefile().readline()))
                return
            except (OSError, ValueError):
                time.sleep(0.05)

    speakers = [threading.Thread(target=speak, args=(pid,)) for pid in (7, 8)]
    for speaker in speakers:
        speaker.start()
    told = call(address, 3, {0: {}}, seconds=2.0)
    for speaker in speakers:
        speaker.join()
    assert "both say they are process 1" in told[0]
    assert lines == [[told[0], False]] * 2


@pytest.fixture
def environment(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return lambda **values: [monkeypatch.setenv(name, value) for name, value in values.items()]


def test_a_process_alone_has_no_cluster(environment):
    assert find_cluster() is None
    environment(JAX_COORDINATOR_ADDRESS="localhost:1", JAX_NUM_PROCESSES="1", JAX_PROCESS_ID="0")
    assert find_cluster() is None


def test_explicit_addresses_are_found(environment):
    environment(JAX_COORDINATOR_ADDRESS="host:1234", JAX_NUM_PROCESSES="4", JAX_PROCESS_ID="2")
    assert find_cluster() == Cluster("host:1234", 4, 2)


def test_slurm_and_open_mpi_are_found(environment, monkeypatch):
    environment(
        SLURM_JOB_ID="77", SLURM_STEP_NODELIST="node[3-4]", SLURM_NTASKS="4", SLURM_PROCID="3",
        SLURM_LOCALID="1",
    )  # fmt: skip
    cluster = find_cluster()
    assert (cluster.count, cluster.index) == (4, 3)
    assert cluster.address.startswith("node3:")
    monkeypatch.delenv("SLURM_JOB_ID")
    environment(
        OMPI_MCA_orte_hnp_uri="1531576320.0;tcp://10.96.0.1,10.148.0.1:34911",
        OMPI_COMM_WORLD_SIZE="8", OMPI_COMM_WORLD_RANK="5", OMPI_COMM_WORLD_LOCAL_RANK="1",
    )  # fmt: skip
    cluster = find_cluster()
    assert (cluster.count, cluster.index) == (8, 5)
    assert cluster.address.startswith("10.96.0.1:")


def test_cloud_tpus_are_found(environment, monkeypatch):
    """As on GKE: the workers' names are in the environment; their first is waited for."""
    waited = []
    module = "jax._src.clusters.cloud_tpu_cluster"
    monkeypatch.setattr(f"{module}.running_in_cloud_tpu_vm", True)
    monkeypatch.setattr("jax._src.clusters.cluster.running_in_cloud_tpu_vm", True)
    monkeypatch.setattr(f"{module}.get_metadata", lambda key: ("", 404))
    monkeypatch.setattr(
        f"{module}.BaseTpuCluster.wait_for_coordinator",
        lambda address, seconds: waited.append(seconds),
    )
    environment(TPU_WORKER_HOSTNAMES="host-a,host-b", TPU_WORKER_ID="1", TPU_SKIP_MDS_QUERY="1")
    cluster = find_cluster(17)
    assert (cluster.count, cluster.index, cluster.local_devices) == (2, 1, None)
    assert cluster.address.startswith("host-a:")
    assert waited == [17]


def test_an_address_alone_is_no_cluster(environment):
    environment(JAX_COORDINATOR_ADDRESS="host:1234")
    with pytest.raises(UsageError, match="set JAX_NUM_PROCESSES and JAX_PROCESS_ID, too"):
        find_cluster()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"JAX_NUM_PROCESSES": "2"}, "set JAX_COORDINATOR_ADDRESS, JAX_PROCESS_ID, too"),
        (dict(zip(VARIABLES, ("host", "2", "0"), strict=True)), "host:port and two numbers"),
        (dict(zip(VARIABLES, ("host:1", "2", "2"), strict=True)), "below JAX_NUM_PROCESSES=2"),
    ],
)
def test_variables_that_make_no_sense_are_refused(environment, values, message):
    environment(**values)
    with pytest.raises(UsageError, match=message):
        find_cluster()
