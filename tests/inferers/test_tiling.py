"""Tiles are invisible: whatever their size, the result is that of the whole image, bit for bit."""

from functools import partial

import numpy as np
import onnxruntime
import pytest
from monai_sr_bundle.backends.opening import open_backend
from monai_sr_bundle.backends.openvino_backend import open_core
from monai_sr_bundle.backends.torch_networks import run_network
from monai_sr_bundle.errors import BundleError, OutOfMemoryError
from monai_sr_bundle.inferers.tiling import (
    LARGEST_TILE,
    LEAST_PIXELS,
    SMALLEST_TILE,
    fitting_tile,
    infer_tiled,
    tiles,
)
from monai_sr_bundle.networks.edsr import EDSR
from monai_sr_bundle.networks.esrgan import RRDBNet
from monai_sr_bundle.networks.runet import RUNet
from monai_sr_bundle.networks.srcnn import SRCNN
from monai_sr_bundle.networks.srgan import SRResNet
from monai_sr_bundle.networks.srgan_vdsr import SRGANVDSR
from monai_sr_bundle.networks.vdsr import VDSR
from monai_sr_bundle.packing.onnx_export import export_onnx
from monai_sr_bundle.shipped_bundles import find_bundle

from tests.networks.measured import trained_like


def noise(*shape):
    return np.random.default_rng(0).random(shape, dtype=np.float32)


def doubled(window):
    """A network that sees two pixels far, in any backend that needs no weights."""
    middle = np.pad(window[0, 0], 2, mode="edge")
    rows, columns = window.shape[2:]
    blurred = sum(middle[y : y + rows, x : x + columns] for y in (0, 2, 4) for x in (0, 2, 4))
    return np.kron(blurred, np.ones((2, 2), np.float32))[None, None]


@pytest.fixture(scope="module", params=["torch", "onnx", "openvino"])
def backend_name(request):
    return request.param


@pytest.mark.parametrize("tile", [16, 33, 64, 256])
@pytest.mark.parametrize(
    ("shape", "region"),
    [
        ((8, 8), (0, 8, 0, 8)),
        ((97, 131), (0, 97, 0, 131)),
        ((301, 257), (0, 301, 0, 257)),
        ((301, 257), (17, 300, 5, 6)),
        ((9, 3000), (0, 9, 0, 3000)),
    ],
)
def test_tiles_cover_a_region_once_and_see_beyond_it(shape, region, tile):
    covered = np.zeros(shape, int)
    pieces = list(tiles(shape, region, tile, halo=24))
    for piece in pieces:
        covered[piece.inner.as_slices] += 1
        for inner, window, size in zip(piece.inner.as_slices, piece.window.as_slices, shape, strict=True):
            assert 0 <= window.start <= max(0, inner.start - 24)
            assert min(size, inner.stop + 24) <= window.stop <= size
    top, bottom, left, right = region
    assert (covered[top:bottom, left:right] == 1).all()
    assert covered.sum() == (bottom - top) * (right - left)
    assert len(pieces) == -(-(bottom - top) // tile) * -(-(right - left) // tile)


@pytest.mark.parametrize("shape", [(40, 40), (143, 143), (150, 150), (8, 4000), (4000, 7), (700, 30), (512, 512)])
@pytest.mark.parametrize("tile", [16, 64, 128])
def test_no_window_is_so_small_that_another_convolution_would_take_it(shape, tile):
    least = min(LEAST_PIXELS, shape[0] * shape[1])
    for piece in tiles(shape, (0, shape[0], 0, shape[1]), tile, halo=24):
        assert piece.window.rows * piece.window.columns >= least


# Measured on one CPU with its instructions limited to AVX-512, AVX2 and SSE4.1 in turn (ONEDNN_MAX_CPU_ISA): no bit
# differs. Before windows had a least size, PyTorch's results differed by up to 6e-7 in two thirds of the pixels.
# Their widths are those of the bundles, which decide how a backend convolves; their depth is that of a test.
SHALLOW = {
    "EDSR": lambda: EDSR(4, blocks=1),
    "SRCNN": lambda: SRCNN(4),
    "VDSR": lambda: VDSR(4, depth=4),
    "SRResNet": lambda: SRResNet(4, blocks=1),
    "RRDBNet": lambda: RRDBNet(4, channels=48, growth=24, blocks=1),
    "SRGANVDSR": lambda: SRGANVDSR(blocks=1, depth=2),
}


def predictor(network, backend_name, folder):
    """A network without a bundle, as the backend of that name would call it."""
    if backend_name == "openvino":
        export_onnx(network, folder / "model.onnx")
        settings = {"INFERENCE_PRECISION_HINT": "f32"}
        compiled = open_core().compile_model(folder / "model.onnx", "CPU", settings)
        return lambda window: compiled({"image": window})[0]
    if backend_name == "onnx":
        export_onnx(network, folder / "model.onnx")
        session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
        return lambda window: session.run(["pred"], {"image": window})[0]
    import torch

    network = network.to(memory_format=torch.channels_last)
    return lambda window: run_network(network, (window,), "cpu")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "EDSR" else pytest.mark.slow) for name in SHALLOW]
)
def test_tiles_of_every_network_are_exactly_the_whole(backend_name, name, tmp_path):
    network = trained_like(SHALLOW[name]())
    predict = predictor(network, backend_name, tmp_path)
    image = noise(157, 163)
    whole = predict(image[None, None])[0, 0]
    for region in ((0, 30, 0, 30), (60, 80, 65, 90), (150, 157, 3, 163)):
        (part,), _ = infer_tiled(image, predict, scale=4, halo=network.receptive_radius, tile=64, region=region)
        top, bottom, left, right = (4 * edge for edge in region)
        np.testing.assert_array_equal(part, whole[top:bottom, left:right])


def test_tiles_on_the_grid_of_a_network_that_pools_are_exactly_the_whole(backend_name, tmp_path):
    network = trained_like(RUNet(2, channels=8))
    predict = predictor(network, backend_name, tmp_path)
    image = noise(349, 342)
    whole = predict(image[None, None])[0, 0]
    halo = network.receptive_radius

    def tiled(region, grid):
        return infer_tiled(image, predict, scale=2, halo=halo, tile=64, grid=grid, region=region)[0][0]

    for region in ((165, 172, 166, 171), (0, 9, 0, 20), (340, 349, 3, 7)):
        top, bottom, left, right = (2 * edge for edge in region)
        np.testing.assert_array_equal(tiled(region, network.grid), whole[top:bottom, left:right])
    # Elsewhere on the grid the same pixels meet other partners in the pools.
    assert np.abs(tiled((165, 172, 166, 171), 1) - whole[330:344, 332:342]).max() > 1e-3


@pytest.mark.parametrize("shape", [(8, 8), (301, 257), (9, 3000)])
@pytest.mark.parametrize("grid", [8, 16])
def test_windows_on_a_grid_begin_and_end_on_it(shape, grid):
    rows, columns = shape
    for piece in tiles(shape, (3, rows, 5, columns), 64, halo=24, grid=grid):
        for inner, window, size in zip(piece.inner.as_slices, piece.window.as_slices, shape, strict=True):
            assert window.start % grid == 0
            assert window.stop % grid == 0 or window.stop == size
            assert 0 <= window.start <= max(0, inner.start - 24)
            assert min(size, inner.stop + 24) <= window.stop <= size


def test_a_narrow_image_in_tiles_is_exactly_the_whole(backend_name):
    network = partial(open_backend(find_bundle("chest_xray_edsr_x4"), backend_name, "cpu").run, "model")
    narrow = noise(9, 2400)
    (part,), _ = infer_tiled(narrow, network, scale=4, halo=24, tile=256, region=(0, 9, 200, 700))
    np.testing.assert_array_equal(part, network(narrow[None, None])[0, 0, :, 800:2800])


def test_a_tile_that_does_not_fit_is_halved_and_the_result_is_the_same(caplog):
    image = noise(300, 310)
    shapes = []

    def small_memory(window):
        shapes.append(window.shape[2:])
        if window.shape[2] > 180:
            raise MemoryError
        return doubled(window)

    (result,), tile = infer_tiled(image, small_memory, scale=2, halo=24, tile=256)
    np.testing.assert_array_equal(result, doubled(image[None, None])[0, 0])
    assert tile == 128
    assert max(shapes) == (280, 280)
    assert [record.getMessage() for record in caplog.records] == ["memory ran out; going on with tiles of 128 pixels"]


def test_the_smallest_tile_that_does_not_fit_ends_with_what_to_do():
    def no_memory(window):
        raise MemoryError

    with pytest.raises(OutOfMemoryError, match=r"a tile of 64x64 pixels does not fit into memory\. Close .*--roi"):
        infer_tiled(noise(300, 300), no_memory, scale=2, halo=24, tile=256)


def test_a_result_that_does_not_fit_is_not_taken_for_a_tile_that_does_not(monkeypatch):
    def refuse(*_arguments, **_options):
        raise MemoryError

    monkeypatch.setattr(np, "empty", refuse)
    with pytest.raises(MemoryError) as raised:
        infer_tiled(noise(30, 30), doubled, scale=2, halo=24, tile=256)
    assert not isinstance(raised.value, OutOfMemoryError)


def test_a_network_of_another_scale_is_refused():
    with pytest.raises(BundleError, match=r"made 60x40 pixels of 30x20, expected 4 times as many"):
        infer_tiled(noise(20, 30), doubled, scale=4, halo=24, tile=256)
    with pytest.raises(BundleError, match=r"in 1 channels, expected 4"):
        infer_tiled(noise(1, 20, 30), doubled, scale=2, halo=24, tile=256, channels=4)


def test_progress_rises_to_one():
    shares = []
    infer_tiled(noise(300, 310), doubled, scale=2, halo=24, tile=128, progress=shares.append)
    assert shares == sorted(shares)
    assert (len(shares), shares[-1]) == (9, 1.0)


def test_the_tile_follows_the_free_memory():
    sides = [fitting_tile(free, memory_per_pixel=1600, halo=24) for free in (0, 10**8, 3 * 10**8, 10**9, 10**12)]
    assert sides == sorted(sides)
    assert (sides[0], sides[-1]) == (SMALLEST_TILE, LARGEST_TILE)
    assert (fitting_tile(10**9, 1600, 24) + 48) ** 2 * 1600 <= 10**9 / 4
