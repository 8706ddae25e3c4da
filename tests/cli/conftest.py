"""Fixtures of the command line's tests."""

from pathlib import Path

import pytest
from monai_sr_bundle.datasets.phantom import write_phantom_png


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """A drawn radiograph of 48 x 48 pixels, as PNG."""
    write_phantom_png(tmp_path / "film.png", size=48)
    return tmp_path / "film.png"
