"""Fixtures for all tests."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from functools import cache, wraps
from pathlib import Path

import numpy as np
import pytest
from monai_sr_bundle.datasets import phantom


def draw_once(draw: Callable[[int, int], np.ndarray]) -> Callable[..., np.ndarray]:
    """Return a function that draws each image once and gives copies; test_phantom.py tests `draw` itself."""
    draw_cached = cache(draw)

    @wraps(draw)
    def copy(size: int = 512, seed: int = 0) -> np.ndarray:
        return draw_cached(size, seed).copy()

    return copy


# Before other modules import it: drawing takes a third of a second, and most tests draw the same few chests.
phantom.draw_phantom = draw_once(phantom.draw_phantom)


@pytest.fixture(scope="session")
def dciodvfy() -> Callable[[Path], list[str]]:
    """The errors that the DICOM validator of dicom3tools finds in a file, one line each."""
    program = shutil.which("dciodvfy")
    if program is None:
        pytest.skip("DICOM conformance: dciodvfy (Debian package dicom3tools) is not installed")

    def errors(path: Path) -> list[str]:
        result = subprocess.run([program, str(path)], capture_output=True, text=True, errors="replace", check=False)
        lines = (result.stdout + result.stderr).splitlines()
        # A file it cannot read at all gives no "Error" line, only a lack of the IOD's name.
        return [line for line in lines if line.startswith("Error")] or ([] if result.returncode == 0 else lines)

    return errors


@pytest.fixture(scope="session")
def dsrdump() -> Callable[[Path], str]:
    """The content of a DICOM report as DCMTK reads it, in full."""
    program = shutil.which("dsrdump")
    if program is None:
        pytest.skip("DICOM reports read by another library: dsrdump (Debian package dcmtk) is not installed")

    def content(path: Path) -> str:
        command = [program, "+U8", "+Pl", "+Pu", "+Pt", str(path)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    return content


@pytest.fixture(scope="session")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A shipped bundle, packed once for all tests; a test that changes anything in it copies it first."""
    from monai_sr_bundle.packing.pack import pack

    out = tmp_path_factory.mktemp("packed")

    def folder(name: str) -> Path:
        return out / name if (out / name).is_dir() else pack(name, out)

    return folder
