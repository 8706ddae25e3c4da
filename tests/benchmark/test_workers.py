import os
import signal

import pytest
import torch
from monai_sr_bundle.benchmark.workers import Workers
from monai_sr_bundle.errors import InputError, OutOfMemoryError


class Adder:
    """Adds what it was made with; remembers how often it was asked, and in which process."""

    def __init__(self, first):
        self.first, self.calls = first, 0

    def __call__(self, number):
        self.calls += 1
        return self.first + number, self.calls, os.getpid()


class Unmakeable:
    def __init__(self, file):
        raise InputError(f"{file}: cannot be read.")


class Killed:
    def __call__(self, number):
        os.kill(os.getpid(), signal.SIGKILL)


class Threads:
    def __call__(self, number):
        return torch.get_num_threads(), os.environ["OMP_NUM_THREADS"]


@pytest.fixture(scope="module")
def workers():
    with Workers(2, threads=1) as processes:
        yield processes


def test_results_keep_their_order_and_each_process_makes_its_own_once(workers):
    results = list(workers.map(Adder, (10,), range(8)))
    assert [total for total, _, _ in results] == list(range(10, 18))
    processes = {process for _, _, process in results}
    assert os.getpid() not in processes
    # Each process counts on: nothing was made again between its calls.
    assert sorted(calls for _, calls, process in results) == sorted(
        call for each in processes for call in range(1, 1 + sum(process == each for *_, process in results))
    )


def test_another_run_makes_its_own(workers):
    assert [total for total, _, _ in workers.map(Adder, (100,), range(3))] == [100, 101, 102]


def test_every_process_has_its_share_of_the_threads(workers):
    assert list(workers.map(Threads, (), range(2))) == [(1, "1")] * 2


def test_an_error_is_that_of_the_work(workers):
    with pytest.raises(InputError, match=r"^bad.npz: cannot be read\.$"):
        list(workers.map(Unmakeable, ("bad.npz",), range(2)))


def test_a_process_that_is_killed_is_told():
    with Workers(2, threads=1) as workers, pytest.raises(OutOfMemoryError, match="one of 2 processes ended without"):
        list(workers.map(Killed, (), range(2)))
