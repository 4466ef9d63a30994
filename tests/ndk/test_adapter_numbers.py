"""Adapters of one process are told apart in messages: each has the lowest number that no other open one has."""

import gc
import os
import signal
import threading
import warnings

import pytest

from softndk import InsufficientResources, InvalidParameter, IwarpConfig, open_adapter
from softndk.ndk.adapter_numbers import ADAPTER_NUMBERS, NumberTable
from softndk.testing import fail_adapter, pair
from tests.ndk.ends import PATIENCE_S, ended


class Holder:
    """Something that can have a number."""


def test_the_lowest_free_number_is_taken() -> None:
    table = NumberTable()
    holders = [Holder() for _ in range(5)]
    assert [table.take(holder) for holder in holders] == [1, 2, 3, 4, 5]
    for number in (4, 2):
        table.release(number)
    late = [Holder() for _ in range(3)]
    assert [table.take(holder) for holder in late] == [2, 4, 6]


def test_who_is_collected_gives_its_number_back() -> None:
    table = NumberTable()
    first, second = Holder(), Holder()
    assert [table.take(first), table.take(second)] == [1, 2]
    del first
    gc.collect()
    third = Holder()
    assert table.take(third) == 1


def test_threads_get_different_numbers() -> None:
    table = NumberTable()
    holders = [Holder() for _ in range(400)]
    numbers: list[int] = []
    begin = threading.Barrier(4)

    def take(some: list[Holder]) -> None:
        begin.wait(PATIENCE_S)
        numbers.extend([table.take(holder) for holder in some])

    threads = [threading.Thread(target=take, args=(holders[part::4],)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert sorted(numbers) == list(range(1, 401))


def test_adapters_that_are_open_together_have_different_names_and_objects_count_per_adapter() -> None:
    gc.collect()  # what earlier tests have left: it would give numbers back in the midst
    with open_adapter() as first, open_adapter() as second:
        assert first.name != second.name
        with first.create_pd() as pd, second.create_pd() as other:
            assert (pd.name, other.name) == ("pd1", "pd1")
        name = first.name
        first.close().result(PATIENCE_S)
        with open_adapter() as third:
            assert third.name == name


def test_an_adapter_that_was_never_closed_gives_its_number_back() -> None:
    gc.collect()
    adapter = open_adapter()
    name = adapter.name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        del adapter
        gc.collect()
    with open_adapter() as another:
        assert another.name == name


def test_messages_name_the_adapter() -> None:
    config = IwarpConfig(max_pd_count=1)
    with open_adapter(config=config) as first, open_adapter(config=config) as second:
        second.name = "storage"
        for adapter, label in ((first, first.name), (second, f"{repr(second).split()[1]} 'storage'")):
            with pytest.raises(InvalidParameter) as refused:
                adapter.create_cq(0)
            assert str(refused.value).startswith(f"{label} create_cq: depth=0")
            adapter.create_pd()
            with pytest.raises(InsufficientResources) as full:
                adapter.create_pd()
            assert str(full.value).startswith(f"{label} on 127.0.0.1: no further pd: 1 are open, limit max_pd_count=1")


def test_the_failure_of_an_adapter_names_that_one() -> None:
    with pair() as (a, b):
        fail_adapter(b.adapter, "a test")
        assert f"{b.adapter.name} on 127.0.0.1 has failed: a test" in str(ended(b).error)
        assert b.adapter.name != a.adapter.name


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_can_open_adapters_although_a_thread_held_the_lock() -> None:
    """The thread is not there any more in the child."""
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with ADAPTER_NUMBERS._lock:
            held.set()
            done.wait(PATIENCE_S)

    with open_adapter() as parents:
        thread = threading.Thread(target=hold)
        thread.start()
        assert held.wait(PATIENCE_S)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of forks of threaded processes
            child = os.fork()
        if not child:
            signal.alarm(int(PATIENCE_S))  # a child that waits for ever is ended, and fails the test
            status = 1
            try:
                with open_adapter() as own:
                    status = 0 if own.name != parents.name else 2
            finally:
                os._exit(status)
        done.set()
        thread.join(PATIENCE_S)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
