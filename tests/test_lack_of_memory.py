"""Less memory than the work needs, for real: the kernel refuses what goes beyond a limit."""

import os
import subprocess
import sys

import numpy as np
import pytest
from monai_sr_bundle import enhance
from monai_sr_bundle.datasets.phantom import write_phantom_png
from PIL import Image

# How much memory a library keeps to use again differs between machines. So that the outcome does not, windows with a
# side above a given number of pixels have 8 MB, too little for any; the others have no limit.
LIMITED = """
import resource, sys
import numpy as np
from pathlib import Path
from monai_sr_bundle.engine import session
from monai_sr_bundle.__main__ import main
really, largest = session.open_backend, int(sys.argv[1])

def limited(*arguments):
    backend = really(*arguments)
    backend.run("model", np.zeros((1, 1, 32, 32), np.float32))  # whatever it loads late,
    np.eye(4) @ np.eye(4)  # and OpenBLAS, which tries for ever where there is no memory for its buffer

    unlimited = type(backend).run

    def within_limit(self, part, window):
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        soft = resource.RLIM_INFINITY if max(window.shape) <= largest else size + 8 * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (soft, resource.RLIM_INFINITY))
        try:
            return unlimited(self, part, window)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    type(backend).run = within_limit
    return backend

session.open_backend = limited
sys.exit(main(sys.argv[2:]))
"""


BUNDLE = "chest_xray_edsr_x4"  # the smallest network that runs out of 8 MB


def with_room_for(largest, *words):
    returned_when_freed = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0", "MALLOC_TOP_PAD_": "0"}
    returned_when_freed["MALLOC_ARENA_MAX"] = "1"  # a thread's own arena would already have the room
    environment = {**os.environ, **returned_when_freed, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    command = [sys.executable, "-c", LIMITED, str(largest), "enhance", *map(str, words), "--bundle", BUNDLE]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=900, env=environment)


@pytest.fixture
def film(tmp_path):
    write_phantom_png(tmp_path / "film.png", size=216)
    return tmp_path / "film.png"


@pytest.mark.parametrize("backend", ["torch", "onnx", "openvino"])
@pytest.mark.parametrize(("largest", "sizes"), [pytest.param(200, [128], marks=pytest.mark.slow), (150, [128, 64])])
def test_smaller_tiles_give_the_same_pixels(film, tmp_path, backend, largest, sizes):
    ended = with_room_for(largest, film, tmp_path / "out.png", "--backend", backend)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.splitlines() == [f"monai-sr: memory ran out; going on with tiles of {s} pixels" for s in sizes]
    pixels = np.asarray(Image.open(tmp_path / "out.png"))
    np.testing.assert_array_equal(pixels, enhance(film, BUNDLE, backend=backend).image.pixels[0])


@pytest.mark.parametrize("backend", ["torch", "onnx", "openvino"])
def test_too_little_for_the_smallest_tile_is_told_in_one_line(film, tmp_path, backend):
    ended = with_room_for(32, film, tmp_path / "out" / "film.png", "--backend", backend, "--quiet")
    assert ended.returncode == 6
    assert ended.stderr == (
        "monai-sr: error: film.png: a tile of 64x64 pixels does not fit into memory. Close other programs, choose a "
        "smaller region with --roi, or use another machine.\n"
    )
    assert os.listdir(tmp_path) == ["film.png"]
