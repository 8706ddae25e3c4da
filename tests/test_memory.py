"""The memory that a real run takes."""

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
from monai_sr_bundle.bundles import Bundle, open_bundle
from monai_sr_bundle.datasets.phantom import draw_phantom
from monai_sr_bundle.families.family import SampledFamily
from monai_sr_bundle.packing.onnx_export import export_parts
from monai_sr_bundle.shipped_bundles import all_bundles, all_variants, find_bundle

pytestmark = pytest.mark.slow
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
import ctypes, re, sys
from pathlib import Path
import numpy as np
ctypes.CDLL(None).mallopt(-3, 1024**2)  # every buffer is counted, none of them is one that was freed before

def opened_in_torch(name):
    import torch
    from monai_sr_bundle.backends.torch_backend import build_network
    from monai_sr_bundle.shipped_bundles import find_bundle
    from monai_sr_bundle.backends.torch_networks import TorchNetworks
    bundle = find_bundle(name)
    network = build_network(bundle).to(memory_format=torch.channels_last)
    networks = TorchNetworks(network, bundle.family.parts, "cpu")
    return [
        lambda side, part=part: networks.run(part.name, *(zeros(channels, side) for channels in part.channels(network)))
        for part in bundle.family.parts
    ]

def opened_in_onnx(folder):
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.enable_cpu_mem_arena = False
    sessions = [
        onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        for file in Path(folder).iterdir()
    ]
    def run(session, side):
        ends = session.get_inputs()
        feeds = {end.name: zeros(end.shape[1] if len(end.shape) > 1 else None, side) for end in ends}
        session.run(None, feeds)
    return [lambda side, session=session: run(session, side) for session in sessions]

def zeros(channels, side):
    return np.zeros((1,) if channels is None else (1, channels, side, side), np.float32)

def memory(kind):
    return 1024 * int(re.search(kind + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

def peak(predict, side):
    predict(side)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins again
    before = memory("VmRSS")
    predict(side)
    return memory("VmHWM") - before

small, large = map(int, sys.argv[2:4])
for name in sys.argv[4:]:
    if sys.argv[1] == "torch":  # which also copies weights, whatever the size
        parts = opened_in_torch(name)
        print(name, max((peak(part, large) - peak(part, small)) / (large**2 - small**2) for part in parts))
    else:  # which takes more from the second window of one size on
        print(name, max(peak(part, large) / large**2 for part in opened_in_onnx(name)))
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


def needed(backend: str, *names: object, sides: tuple[int, int] = (64, 112)) -> dict[str, float]:
    ended = run(NEEDED, backend, *sides, *names)
    assert ended.returncode == 0, ended.stderr
    return {name: float(number) for name, number in map(str.split, ended.stdout.splitlines())}


def test_every_bundle_states_the_memory_that_a_pixel_of_a_tile_takes(tmp_path):
    """Untrained networks take as much as trained ones."""
    variants = [variant for bundle in all_bundles() for variant in all_variants(bundle)]
    # A diffusion variant without weights cannot be run, and takes minutes to measure at the papers' size.
    runnable = [
        *all_bundles(),
        *(
            variant
            for variant in variants
            if (variant.has_file("model.pt") or not is_sampled(variant)) and is_a_network(variant)
        ),
    ]
    memory_per_pixel = {bundle.name: bundle.family.memory_per_pixel for bundle in runnable}
    sampled = [bundle.name for bundle in runnable if is_sampled(bundle)]
    in_torch = needed("torch", *(name for name in memory_per_pixel if name not in sampled))
    # Buffers of half and quarter resolution go back to the system, as in windows of usual size, from these sides on;
    # below, what others have left on the heap decides the figure.
    large = (128, 192)
    in_torch |= needed("torch", *sampled, sides=large)
    files = {bundle.name: tmp_path / bundle.name for bundle in all_bundles()}
    for name, file in files.items():
        bundle = find_bundle(name)
        network = build_network(bundle)
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=1e-3)
        file.mkdir()
        export_parts(network, bundle.family, file)
    in_onnx = needed("onnx", *(file for name, file in files.items() if name not in sampled))
    in_onnx |= needed("onnx", *(file for name, file in files.items() if name in sampled), sides=large)
    takes = {name: max(number, in_onnx.get(str(files.get(name)), 0)) for name, number in in_torch.items()}
    assert takes.keys() == memory_per_pixel.keys()
    assert {name: number for name, number in takes.items() if number > memory_per_pixel[name]} == {}
    # Where a window takes little, the number may be generous: it is never the one that does not fit.
    assert {name: number for name, number in takes.items() if memory_per_pixel[name] > max(1.5 * number, 1600)} == {}


def is_sampled(bundle: Bundle) -> bool:
    """Return whether the results of a bundle are drawn by a sampler, step by step."""
    return isinstance(bundle.family, SampledFamily)


def is_a_network(bundle: Bundle) -> bool:
    """Return whether a bundle is no variant with the network of its bundle."""
    if not bundle.is_variant:
        return True
    other = open_bundle(bundle.folder.parents[1])
    return (bundle.facts["network_def"], bundle.scale) != (other.facts["network_def"], other.scale)


def test_the_explained_result_of_2048_stays_below_a_gigabyte_in_pytorch_too(tmp_path):
    assert peak(tmp_path, 512, "torch", "--preview", "--report") < GIGABYTE
