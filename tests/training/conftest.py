"""Fixtures that several tests of training use."""

import pytest

from tests.random_backbone import write_squeezenet
from tests.with_error_bars import write_windows


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """A folder with the image set `drawn`: radiographs of 64x64 pixels. A test that changes it copies it first."""
    return write_windows(tmp_path_factory.mktemp("drawn"), "drawn", {"train": 3, "val": 2, "test": 1})


@pytest.fixture(scope="session")
def backbone(tmp_path_factory):
    return write_squeezenet(tmp_path_factory.mktemp("backbone") / "squeezenet.npz")


@pytest.fixture
def clock(monkeypatch):
    """A clock of a budget that stands still until it is moved."""
    now = [100.0]
    monkeypatch.setattr("monai_sr_bundle.training.budget.time.monotonic", lambda: now[0])
    return now
