"""The rendezvous of a run's processes: they find each other, and agree before anything starts.

JAX's own start-up kills a process without a word on which other one is missing, and
knows nothing of what a run is about. So process 0 first holds a rendezvous, at the
address that JAX will use next: all processes report to it who they are and what they are about
to do, and all get the same outcome.
"""

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import socket
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax

from electra_jax.errors import ProcessMissing, UsageError, at_least, check_fields, checked
from electra_jax.parallel.jax_internals import detect_cluster

log = logging.getLogger(__name__)

VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
RETRY_SECONDS = 0.2
STRANGER_SECONDS = 5.0  # after which who has not said its name is none of us
ERROR = "error"  # in place of a fingerprint, of a process that cannot start


@dataclasses.dataclass(frozen=True)
class ProcessesConfig:
    """Seconds that processes wait for each other."""

    join_seconds: int = checked(300, at_least(1))  # for all to be there
    # After which one that is not heard of is taken for dead.
    heartbeat_seconds: int = checked(100, at_least(1))
    # Without a step, after which the one that stalls is named.
    stall_seconds: int = checked(900, at_least(1))

    def __post_init__(self) -> None:
        check_fields("processes", self)


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The processes of a run, as one of them sees them."""

    address: str  # host:port of process 0
    count: int
    index: int
    local_devices: Sequence[int] | None = None  # of this process; None: all of its host


def find_cluster(seconds: int = 300) -> Cluster | None:
    """From the three JAX_* variables, or from Cloud TPU, GKE, Slurm or Open MPI.

    Args:
      seconds: to wait for a Cloud TPU's first host to be found.

    Returns:
      None where this process is alone.

    Raises:
      UsageError: only some of the variables are set, or they make no sense; or what there is
        cannot be asked.
      ProcessMissing: the first host is not found.
    """
    values = [os.environ.get(name) for name in VARIABLES]
    address, count, index = values
    if count or index:
        if not all(values):
            given, missing = (
                ", ".join(n for n, v in zip(VARIABLES, values, strict=True) if bool(v) == there)
                for there in (True, False)
            )
            raise UsageError(f"{given} is set: set {missing}, too")
        host, colon, port = str(address).rpartition(":")
        numbers = (port, str(count), str(index))
        if not (host and colon and all(number.isdecimal() for number in numbers)):
            raise UsageError(
                f"{', '.join(VARIABLES)}: host:port and two numbers, not "
                f"{address}, {count}, {index}"
            )
        cluster = Cluster(str(address), int(str(count)), int(str(index)))
        if cluster.index >= cluster.count:
            raise UsageError(f"JAX_PROCESS_ID={index}: from 0 to below JAX_NUM_PROCESSES={count}")
        return cluster if cluster.count > 1 else None
    try:
        with warnings.catch_warnings(action="ignore"):  # on Kubernetes, of a package not needed
            found: Any = detect_cluster(address, seconds)
    except (RuntimeError, OSError) as error:
        raise ProcessMissing(f"this run's other processes cannot be found: {error}") from error
    except ValueError as error:
        raise UsageError(f"this run's other processes cannot be found: {error}") from error
    cluster = Cluster(*found)
    if address and not cluster.count:
        raise UsageError(
            f"JAX_COORDINATOR_ADDRESS={address} is set, and no cluster found: set "
            "JAX_NUM_PROCESSES and JAX_PROCESS_ID, too"
        )
    return cluster if (cluster.count or 1) > 1 else None


def join(fingerprint: Callable[[], Mapping[str, Any]], config: ProcessesConfig) -> None:
    """Joins the run's other processes, if it has any; must come before any use of devices.

    Args:
      fingerprint: gives what all must have in common, by name; a UsageError of it stops all.
      config: how long to wait.

    Raises:
      UsageError: in every process, naming the one that differs.
      ProcessMissing: in every process, naming the one that is missing.
    """
    cluster = find_cluster(config.join_seconds)
    if cluster is None:
        return
    try:
        mine = {name: str(value) for name, value in fingerprint().items()}
    except Exception as error:  # all are told, whatever it is
        mine = {ERROR: str(error) or repr(error)}
    rendezvous(cluster, mine, config.join_seconds)
    if cluster.index:
        logging.getLogger("electra_jax").setLevel(logging.WARNING)  # process 0 speaks for all
    jax.distributed.initialize(
        cluster.address,
        cluster.count,
        cluster.index,
        cluster.local_devices,
        cluster_detection_method="deactivate",
        initialization_timeout=config.join_seconds,
        heartbeat_timeout_seconds=config.heartbeat_seconds,
    )


def code_fingerprint() -> dict[str, str]:
    """The versions of JAX and of this program's code."""
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        digest.update(str(file.relative_to(package)).encode() + file.read_bytes())
    return {
        "the version of JAX": jax.__version__,
        "the version of jaxlib": version("jaxlib"),
        "the code": digest.hexdigest()[:16],
    }


class Outcome(NamedTuple):
    """The result of a rendezvous: what is wrong, in one line; empty if nothing is."""

    wrong: str = ""
    late: bool = False  # and might be right in a while


def rendezvous(cluster: Cluster, fingerprint: Mapping[str, str], seconds: float) -> None:
    """Waits until all processes are there, and compares their fingerprints.

    Raises:
      UsageError: the same in every process.
      ProcessMissing: the same in every process; or process 0 did not answer.
    """
    mine = {
        "index": cluster.index,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "fingerprint": {"the number of processes": str(cluster.count), **fingerprint},
    }
    outcome = (report_in if cluster.index else serve)(cluster, mine, seconds)
    if outcome.wrong:
        raise (ProcessMissing if outcome.late else UsageError)(outcome.wrong)


def serve(cluster: Cluster, mine: dict[str, Any], seconds: float) -> Outcome:
    """Process 0's part: hears all, and tells all what is wrong, if anything."""
    deadline = time.monotonic() + seconds
    present, lines, twice = {0: mine}, [], ""
    port = int(cluster.address.rpartition(":")[2])
    dual = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual else socket.AF_INET
    try:
        server = socket.create_server(
            ("", port), family=family, dualstack_ipv6=dual, backlog=cluster.count
        )
    except OSError as error:
        return Outcome(f"process 0 cannot listen at {cluster.address}: {error.strerror}")
    with server:
        while len(present) < cluster.count and (left := deadline - time.monotonic()) > 0:
            server.settimeout(left)
            try:
                line, _ = server.accept()
                line.settimeout(min(left, STRANGER_SECONDS))
                theirs = json.loads(line.makefile().readline())
                index, speaker = theirs["index"], (theirs["host"], theirs["pid"])
            except (OSError, ValueError, KeyError, TypeError):
                continue  # not one of us
            before = present.setdefault(index, theirs)
            if (before["host"], before["pid"]) != speaker:
                twice = f"{before['host']} and {theirs['host']} both say they are process {index}"
            lines.append(line)
        outcome = Outcome(twice) if twice else compare(cluster.count, present)
        for line in lines:
            with line, contextlib.suppress(OSError):
                line.sendall((json.dumps(outcome) + "\n").encode())
    if not outcome.wrong:
        hosts = ", ".join(f"{index} {one['host']}" for index, one in sorted(present.items()))
        log.info("%-11s %s", "processes", hosts)
    return outcome


def report_in(cluster: Cluster, mine: dict[str, Any], seconds: float) -> Outcome:
    """Every other process's part."""
    deadline = time.monotonic() + seconds
    host, _, port = cluster.address.rpartition(":")
    while (left := deadline - time.monotonic()) > 0:
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=left) as line:
                if line.getsockname() == line.getpeername():
                    raise ConnectionRefusedError  # where nobody listens, a port can meet itself
                line.sendall((json.dumps(mine) + "\n").encode())
                # Process 0 may have begun to wait only now.
                line.settimeout(seconds + STRANGER_SECONDS)
                return Outcome(*json.loads(line.makefile().readline()))
        except (OSError, ValueError):
            time.sleep(RETRY_SECONDS)
    return Outcome(f"process 0 did not answer at {cluster.address}: is it running?", late=True)


def compare(count: int, present: Mapping[int, dict[str, Any]]) -> Outcome:
    """Compares the processes that have reported in."""
    if missing := sorted(set(range(count)) - set(present)):
        there = ", ".join(f"{index} ({one['host']})" for index, one in sorted(present.items()))
        absent = ", ".join(map(str, missing))
        return Outcome(f"process {absent} of {count} did not come; there are {there}", late=True)
    for index, one in sorted(present.items()):
        if ERROR in one["fingerprint"]:
            return Outcome(
                f"process {index} ({one['host']}) cannot start: {one['fingerprint'][ERROR]}"
            )
    first = present[0]
    for index, one in sorted(present.items()):
        for name in sorted(first["fingerprint"].keys() | one["fingerprint"].keys()):
            here, there = (process["fingerprint"].get(name) for process in (first, one))
            if here != there:
                return Outcome(
                    f"process {index} ({one['host']}) differs from process 0 ({first['host']}): "
                    f"{name} is {there!r} there, {here!r} here"
                )
    return Outcome()
