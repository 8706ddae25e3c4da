"""`monai-sr benchmark memory`, with small numbers."""

import json

import pytest
from monai_sr_bundle.__main__ import main
from monai_sr_bundle.benchmark.memory import measure_memory
from monai_sr_bundle.errors import InputError


@pytest.mark.slow
def test_every_run_is_measured_and_written(tmp_path, capsys):
    words = ["--images", "12", "--slices", "13", "--side", "64", "--backend", "onnx", "--progress", "none"]
    status = main(["benchmark", "memory", "--out", str(tmp_path), *words])
    assert capsys.readouterr().out == (tmp_path / "memory" / "table.md").read_text()
    films, scan, film = json.loads((tmp_path / "memory" / "memory.json").read_text())["rows"]
    # One slice more than the fewest is less than what the memory of two equal runs differs by.
    assert status == (0 if films["passed"] and scan["passed"] and film["passed"] else 1)
    assert films["figures"]["peak_bytes"] > films["figures"]["last_bytes"] > 50e6
    assert scan["figures"]["peak_bytes"] > 13 * 2 * (512**2 + 1024**2)
    assert 50e6 < film["figures"]["peak_bytes"] < 1e9


@pytest.mark.parametrize(("name", "number"), [("images", 11), ("slices", 12), ("side", 63), ("side", 4097)])
def test_a_number_out_of_range_is_refused(name, number):
    with pytest.raises(InputError, match=f"--{name} is {number}, expected"):
        measure_memory(**{"images": 0, "slices": 0, "side": 0, name: number})
