"""How much memory a real run takes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from monai_sr_bundle.backends.torch_backend import build_network
from monai_sr_bundle.bundles import Bundle, all_bundles, all_variants, find_bundle, open_bundle
from monai_sr_bundle.export.onnx import export_onnx
from monai_sr_bundle.phantom import draw_phantom

GIGABYTE = 10**9
PER_PIXEL = 12
"""Bytes of a result's pixel: as float32 and as stored, what the writer copies, and its share of the input."""
PER_PIXEL_EXPLAINED = 48
"""The same with --preview and --report, which hold the result, bicubic, their difference and the detail in float."""
WATCHED = """
import re, sys
from pathlib import Path
from monai_sr_bundle.__main__ import main
code = main(sys.argv[1:])
# Not ru_maxrss, which a process takes over from the one that started it.
print(1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]))
sys.exit(code)
"""
NEEDED = """
import re, sys
from pathlib import Path
import numpy as np
from monai_sr_bundle import _compat
_compat.return_large_buffers()

def opened_in_torch(name):
    import torch
    from monai_sr_bundle.backends.torch_backend import build_network
    from monai_sr_bundle.bundles import find_bundle
    from monai_sr_bundle.inferers.sliding import predict_array
    network = build_network(find_bundle(name)).to(memory_format=torch.channels_last)
    return lambda window: predict_array(network, window, "cpu")

def opened_in_onnx(path):
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.enable_cpu_mem_arena = False
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda window: session.run(["pred"], {"image": window})[0]

def memory(kind):
    return 1024 * int(re.search(kind + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

def peak(predict, side):
    window = np.zeros((1, 1, side, side), np.float32)
    predict(window)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins again
    before = memory("VmRSS")
    predict(window)
    return memory("VmHWM") - before

for name in sys.argv[2:]:
    if sys.argv[1] == "torch":  # which also copies weights, whatever the size
        predict = opened_in_torch(name)
        print(name, (peak(predict, 112) - peak(predict, 64)) / (112**2 - 64**2))
    else:  # which takes more from the second window of one size on
        print(name, peak(opened_in_onnx(name), 112) / 112**2)
"""
"""Bytes that one more pixel of a window takes; what a run needs besides is not counted."""


def run(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"},
    )


def chest(path: Path, size: int) -> Path:
    PIL.Image.fromarray(np.rint(draw_phantom(size) * 255).astype(np.uint8)).save(path)
    return path


def peak(tmp_path: Path, size: int, backend: str, *options: str) -> int:
    image = chest(tmp_path / f"{size}.png", size)
    ended = run(WATCHED, "enhance", image, tmp_path / f"{size}_sr.png", "--backend", backend, "--quiet", *options)
    assert ended.returncode == 0, ended.stderr
    return int(ended.stdout)


@pytest.mark.parametrize(
    ("backend", "options", "per_pixel"),
    [("torch", (), PER_PIXEL), ("onnx", (), PER_PIXEL), ("onnx", ("--preview", "--report"), PER_PIXEL_EXPLAINED)],
)
def test_a_result_above_2048_stays_below_a_gigabyte_and_a_larger_one_adds_its_own_arrays(
    tmp_path, backend, options, per_pixel
):
    # Both have a tile with others all around, the largest window there is.
    small, large = (peak(tmp_path, size, backend, *options) for size in (544, 736))
    assert small < GIGABYTE
    assert large - small < per_pixel * (2944**2 - 2176**2)


def needed(backend: str, *names: object) -> dict[str, float]:
    ended = run(NEEDED, backend, *names)
    assert ended.returncode == 0, ended.stderr
    return {name: float(number) for name, number in map(str.split, ended.stdout.splitlines())}


def test_every_bundle_states_the_memory_that_a_pixel_of_a_tile_takes(tmp_path):
    """Untrained networks take as much as trained ones."""
    variants = [variant for bundle in all_bundles() for variant in all_variants(bundle)]
    stated = {bundle.name: bundle.memory_per_pixel for bundle in (*all_bundles(), *variants) if is_a_network(bundle)}
    in_torch = needed("torch", *stated)
    files = {bundle.name: tmp_path / f"{bundle.name}.onnx" for bundle in all_bundles()}
    for name, file in files.items():
        network = build_network(find_bundle(name))
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=1e-3)
        export_onnx(network, file)
    in_onnx = needed("onnx", *files.values())
    takes = {name: max(number, in_onnx.get(str(files.get(name)), 0)) for name, number in in_torch.items()}
    assert takes.keys() == stated.keys()
    assert {name: number for name, number in takes.items() if number > stated[name]} == {}
    # Where a window takes little, the number may be generous: it is never the one that does not fit.
    assert {name: number for name, number in takes.items() if stated[name] > max(1.5 * number, 1600)} == {}


def is_a_network(bundle: Bundle) -> bool:
    """Whether it is no variant with the network of its bundle."""
    if not bundle.is_variant:
        return True
    other = open_bundle(bundle.folder.parents[1])
    return (bundle.facts["network_def"], bundle.scale) != (other.facts["network_def"], other.scale)


def test_the_explained_result_of_2048_stays_below_a_gigabyte_in_pytorch_too(tmp_path):
    assert peak(tmp_path, 512, "torch", "--preview", "--report") < GIGABYTE
