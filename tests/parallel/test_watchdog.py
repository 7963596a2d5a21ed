"""Who stalls is told from what the processes are at."""

import time

import pytest

from electra_jax.parallel import watchdog


@pytest.fixture
def who(monkeypatch):
    """What process 0, at step 100 and stepping, says of processes that are where they say."""

    def ask(*places, silent=()):
        pulses = {
            index: {"at": at, "host": f"host-{index}", "time": time.time() - 60 * (index in silent)}
            for index, at in enumerate(places)
        }
        monkeypatch.setattr(watchdog.jax, "process_count", lambda: len(places))
        monkeypatch.setattr(watchdog, "read", lambda folder: pulses)
        dog = watchdog.Watchdog(stall_seconds=10)
        dog.note(100, "stepping")
        return dog._who()

    return ask


@pytest.mark.parametrize(
    "place", [(99, "stepping"), (100, "reading a batch"), (100, "saving"), (100, "evaluating")]
)
def test_the_one_that_is_behind_is_named(who, place):
    told = who((100, "stepping"), place, (100, "stepping"))
    assert told == (
        f"process 1 (host-1) is at step {place[0]}, {place[1]}; this one at step 100, stepping"
    )


def test_where_all_are_at_the_same_it_is_none_of_them(who):
    told = who((100, "stepping"), (100, "stepping"))
    assert (
        told == "all processes are at step 100, stepping: the devices, or the network between them"
    )


def test_one_that_is_silent_is_named_first(who):
    told = who((100, "stepping"), (100, "stepping"), (99, "stepping"), silent=[1])
    assert told == "process 1 (host-1) has not been heard of for 60 s"
