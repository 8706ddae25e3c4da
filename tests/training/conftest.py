"""Drawn data that all tests of training share."""

import pytest

from tests.with_error_bars import write_windows


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """A folder with the image set `drawn`: radiographs of 64x64 pixels. A test that changes it copies it first."""
    return write_windows(tmp_path_factory.mktemp("drawn"), "drawn", {"train": 3, "val": 2, "test": 1})
