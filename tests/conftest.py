"""What every test may ask for, and the list of what could not be tested on this machine."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported: two spinning threads halve the speed
os.environ.setdefault("MONAI_FAIL_ON_DUPLICATE_CONFIG", "1")  # a key that stands twice in a config is an error


@pytest.fixture(scope="session")
def dciodvfy() -> Callable[[Path], list[str]]:
    """The errors that the DICOM validator of dicom3tools finds in a file, one line each."""
    program = shutil.which("dciodvfy")
    if program is None:
        pytest.skip("DICOM conformance: dciodvfy (Debian package dicom3tools) is not installed")

    def errors(path: Path) -> list[str]:
        told = subprocess.run([program, str(path)], capture_output=True, text=True, errors="replace", check=False)
        lines = (told.stdout + told.stderr).splitlines()
        # A file it cannot read at all gives no "Error" line, only a lack of the IOD's name.
        return [line for line in lines if line.startswith("Error")] or ([] if told.returncode == 0 else lines)

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
    from monai_sr_bundle.pack import pack

    out = tmp_path_factory.mktemp("packed")

    def folder(name: str) -> Path:
        return out / name if (out / name).is_dir() else pack(name, out)

    return folder


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """End the run with what was not tested here, so that green is never read as more than it is."""
    missing = {report.longrepr[2].removeprefix("Skipped: ") for report in terminalreporter.stats.get("skipped", [])}
    if not _has_gpu():
        missing.add("GPU: torch sees no CUDA device, so everything ran on the CPU")
    if importlib.util.find_spec("tensorrt") is None:
        missing.add("TensorRT engines: tensorrt is not installed (extra [trt])")
    if importlib.util.find_spec("openvino") is None:
        missing.add("OpenVINO: openvino is not installed (extra [openvino])")
    if missing:
        terminalreporter.section("NOT TESTED HERE", sep="!", bold=True, yellow=True)
        for line in sorted(missing):
            terminalreporter.line(f"  - {line}")


def _has_gpu() -> bool:
    if importlib.util.find_spec("torch") is None:
        return False
    import torch

    return torch.cuda.is_available()
