"""For every test of the repository: one thread each, and at the end the list of what was not tested here."""

from __future__ import annotations

import importlib.util
import os

import pytest

# Before torch is imported. The processes of pytest-xdist share the cores among them; two threads each would fight.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
os.environ.setdefault("MONAI_FAIL_ON_DUPLICATE_CONFIG", "1")  # a key that stands twice in a config is an error

deselected_tests = {"slow": 0, "fast": 0}


def pytest_deselected(items: list[pytest.Item]) -> None:
    for item in items:
        deselected_tests["slow" if item.get_closest_marker("slow") else "fast"] += 1


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand the numbers of a process of pytest-xdist to the one that prints."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["deselected_tests"] = deselected_tests


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object) -> None:
    deselected_tests.update(getattr(node, "workeroutput", {}).get("deselected_tests", {}))  # each has collected all


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """End the run with what was not tested here, so that green is never read as more than it is."""
    missing = {report.longrepr[2].removeprefix("Skipped: ") for report in terminalreporter.stats.get("skipped", [])}
    if importlib.util.find_spec("torch") is not None:
        import torch

        if not torch.cuda.is_available():
            missing.add("GPU: torch sees no CUDA device, so everything ran on the CPU")
    if importlib.util.find_spec("tensorrt") is None:
        missing.add("TensorRT engines: tensorrt is not installed (extra [trt])")
    other_half = {
        "not slow": f"THE SLOW PART: {deselected_tests['slow']} tests, which `make test-all` runs",
        "slow": f"THE FAST PART: {deselected_tests['fast']} tests, which `make test` runs",
    }
    if config.option.markexpr in other_half:
        missing.add(other_half[config.option.markexpr])
    terminalreporter.section("NOT TESTED HERE", sep="!", bold=True, yellow=True)
    for line in sorted(missing):
        terminalreporter.line(f"  - {line}")
