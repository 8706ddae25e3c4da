"""What holds for every family of models: regions, tiles, backends and interfaces do not change a pixel.

A new family joins by a tiny bundle in `FAMILIES` and the options to run it with in `CASES`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow
from PIL import Image as Picture

from monai_sr_bundle import enhance
from monai_sr_bundle.__main__ import main
from monai_sr_bundle.bundles import configs_dir, find_bundle
from monai_sr_bundle.datasets.phantom import draw_phantom
from monai_sr_bundle.images import files
from monai_sr_bundle.images.image import image_from_array
from monai_sr_bundle.networks.edsr import EDSR
from monai_sr_bundle.networks.through_plane import ThroughPlane
from monai_sr_bundle.packing.pack import pack
from monai_sr_bundle.packing.release import release
from tests.changed_bundles import copied, with_facts, with_metadata
from tests.networks.measured import trained_like
from tests.tiny_diffusion import LATENT_BUNDLE, SR3_BUNDLE, made
from tests.tiny_flow import CT_FLOW_BUNDLE, FLOW_BUNDLE, released_flow
from tests.tiny_mask import released_mask
from tests.worker.test_worker import Started

ONE_PASS, THROUGH_PLANE = "chest_xray_edsr_x4", "chest_ct_throughplane_x4"
HU = 1400
"""Between 0 and 1 of a CT bundle's window."""


def tiny_one_pass(folder: Path) -> Path:
    return released_network(folder, ONE_PASS, EDSR, channels=8, blocks=1)


def tiny_through_plane(folder: Path) -> Path:
    return released_network(folder, THROUGH_PLANE, ThroughPlane, channels=8, blocks=1)


def released_network(folder: Path, name: str, network_class: type[torch.nn.Module], **arguments: int) -> Path:
    """A copy of a shipped bundle with another size of network, and made-up weights."""
    bundle_dir = with_metadata(copied(folder, name), weights_sha256={})
    definition = find_bundle(name).facts["network_def"]
    with_facts(bundle_dir, network_def={**definition, **arguments}, diffusion={})
    network = trained_like(network_class(4, **arguments))
    torch.save(network.state_dict(), folder / "trained.pt")
    release(str(bundle_dir), folder / "trained.pt")
    return bundle_dir


FAMILIES: dict[str, Callable[[Path], Path]] = {
    "one pass": tiny_one_pass,
    "diffusion": lambda folder: made(folder, SR3_BUNDLE)[0],
    "latent diffusion": lambda folder: made(folder, LATENT_BUNDLE)[0],
    "flow": lambda folder: released_flow(folder, FLOW_BUNDLE)[0],
    "flow of three slices": lambda folder: released_flow(folder, CT_FLOW_BUNDLE)[0],
    "artifact removal": released_mask,
    "through-plane": tiny_through_plane,
}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "one pass": ("one pass", {}),
    "diffusion": ("diffusion", {"steps": 2, "seed": 3}),
    "latent diffusion": ("latent diffusion", {"steps": 2, "seed": 3}),
    "flow": ("flow", {}),
    "flow with texture": ("flow", {"texture": 0.7, "steps": 2, "seed": 3}),
    "flow of three slices": ("flow of three slices", {}),
    "flow of three slices with texture": ("flow of three slices", {"texture": 0.7, "steps": 2, "seed": 3}),
    "artifact removal": ("artifact removal", {}),
    "through-plane": ("through-plane", {}),
}


@pytest.fixture(scope="module")
def bundle_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The tiny bundle of a family, made once."""
    return cache(lambda family: FAMILIES[family](tmp_path_factory.mktemp(family.replace(" ", "_"))))


@cache
def wide_image(family: str) -> np.ndarray:
    """Floats, which nothing rounds or clips; so wide that a window of the network does not see it all."""
    if family == "through-plane":  # whose planes hold the slices
        volume = np.tile(draw_phantom(64)[:24, 8:58], (6, 3))
        rows = [np.roll(volume, 3 * row, axis=0) for row in range(9)]
        return (np.stack(rows, axis=1) * HU - 1000).astype(np.float32)
    film = np.tile(draw_phantom(64)[12:52].astype(np.float32), 10)
    return np.stack([film, film[::-1], film[:, ::-1]]) * HU - 1000 if is_ct(family) else film[None]


def is_ct(family: str) -> bool:
    return family in ("through-plane", "flow of three slices")


@pytest.fixture(scope="module")
def enhanced(bundle_of: Callable[[str], Path]) -> Callable[..., Any]:
    """The whole wide image, enlarged once for each backend."""

    @cache
    def run(case: str, backend: str) -> Any:
        return enhance_wide(bundle_of(CASES[case][0]), case, backend)

    return run


def enhance_wide(bundle_dir: Path, case: str, backend: str, **more: Any) -> Any:
    family, options = CASES[case]
    image = image_from_array(wide_image(family), modality="CT" if is_ct(family) else "CXR")
    return enhance(image, str(bundle_dir), backend=backend, **options, **more)


@pytest.mark.parametrize("backend", ["torch", "onnx"])
@pytest.mark.parametrize("case", CASES)
def test_a_region_is_the_crop_of_the_whole(bundle_of, enhanced, case, backend):
    family = CASES[case][0]
    low, whole = wide_image(family), enhanced(case, backend).image.pixels
    _, rows, columns = low.shape
    _, down, across = (large // small for large, small in zip(whole.shape, low.shape, strict=True))
    for x0, y0, x1, y1 in (
        (0, 0, columns // 20, rows // 3),
        (columns // 2 - 19, rows // 3, columns // 2 + 20, rows // 2 + 1),
        (columns - columns // 16, rows - rows // 3, columns, rows),
    ):
        part = enhance_wide(bundle_of(family), case, backend, roi=(x0, y0, x1, y1))
        crop = whole[:, down * y0 : down * y1, across * x0 : across * x1]
        # The last bits of a float32 may differ where a window of another size is convolved in another order.
        np.testing.assert_allclose(part.image.pixels, crop, rtol=0, atol=1e-5 * (HU if is_ct(family) else 1))
        assert part.source.pixels.shape == (len(low), y1 - y0, x1 - x0)


@pytest.mark.parametrize("backend", ["torch", "onnx"])
@pytest.mark.parametrize("case", CASES)
def test_tiles_change_no_pixel(bundle_of, enhanced, case, backend):
    family = CASES[case][0]
    tiled = enhance_wide(bundle_of(family), case, backend, tile=64).image.pixels
    whole = enhanced(case, backend).image.pixels
    np.testing.assert_allclose(tiled, whole, rtol=0, atol=1e-5 * (HU if is_ct(family) else 1))


@pytest.mark.parametrize("case", CASES)
def test_both_backends_agree(enhanced, case):
    ours, theirs = (enhanced(case, backend) for backend in ("torch", "onnx"))
    assert (ours.provenance.backend, theirs.provenance.backend) == ("torch", "onnx")
    assert ours.image.pixels.std() > 0.01
    family, options = CASES[case]
    # The velocity of weights that were made up is steep: it multiplies rounding errors.
    tolerance = (5e-4 if "texture" in options else 1e-4) * (HU if is_ct(family) else 1)
    np.testing.assert_allclose(ours.image.pixels, theirs.image.pixels, rtol=0, atol=tolerance)


def write_image(family: str, folder: Path) -> Path:
    """A picture of a radiograph, or a NIfTI of a CT volume."""
    film = draw_phantom(64)[20:50, 10:50]
    if not is_ct(family):
        Picture.fromarray(np.rint(film * 255).astype(np.uint8)).save(folder / "chest.png")
        return folder / "chest.png"
    volume = np.stack([np.roll(film, index, axis=0) for index in range(4)]) * HU - 1000
    hounsfield = nibabel.Nifti1Image(np.rint(volume).astype(np.int16).T, np.diag([-0.8, -0.8, 5.0, 1.0]))
    hounsfield.header.set_xyzt_units("mm")
    nibabel.save(hounsfield, folder / "chest.nii.gz")
    return folder / "chest.nii.gz"


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    """The process behind a viewer, with PyTorch."""
    started = Started(tmp_path_factory.mktemp("viewer"), "--backend", "torch")
    yield started
    assert started.end() == 0


def read_only_image(folder: Path) -> np.ndarray:
    with files.discover([folder]) as [source]:
        return files.read(source).pixels


def run_command_line(source: Path, bundle_dir: Path, out: Path, options: dict[str, Any]) -> np.ndarray:
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    quiet = ["--backend", "torch", "--quiet", "--progress", "none"]
    assert main(["enhance", str(source), f"{out}/", "--bundle", str(bundle_dir), *words, *quiet]) == 0
    return read_only_image(out)


def run_monai(source: Path, bundle_root: Path, out: Path, options: dict[str, Any]) -> np.ndarray:
    """As `python -m monai.bundle run` does, in this process, from the checkout or of a packed bundle."""
    packed_config = bundle_root / "configs" / "inference.yaml"
    checkout = [str(bundle_root / "model.yaml"), str(configs_dir() / "workflows" / "inference.yaml")]
    workflow = ConfigWorkflow(
        str(packed_config) if packed_config.is_file() else checkout,
        logging_file=False,
        bundle_root=str(bundle_root),
        dataset_dir=str(source),
        output_dir=str(out),
        **{key if key == "seed" else f"diffusion#{key}": value for key, value in options.items()},
    )
    workflow.initialize()
    workflow.run()
    workflow.finalize()
    return read_only_image(out)


@pytest.mark.parametrize("case", CASES)
def test_every_interface_gives_the_same_pixels(bundle_of, worker, tmp_path, case):
    family, options = CASES[case]
    bundle_dir, source = bundle_of(family), write_image(family, tmp_path)
    pack(str(bundle_dir), tmp_path / "packed")
    packed_dir = tmp_path / "packed" / bundle_dir.name
    expected = enhance(source, str(bundle_dir), backend="torch", **options).image.pixels
    low = read_only_image(source)
    region = [each for size in low.shape for each in (0, size)]
    asked = {"modality": "CT" if is_ct(family) else "CXR", "bundle": str(bundle_dir), **options}
    answer = worker.enhance(low, region, **asked)
    assert answer["event"] == "done", answer
    found = {
        "a packed bundle in Python": enhance(source, str(packed_dir), backend="torch", **options).image.pixels,
        "the command line": run_command_line(source, bundle_dir, tmp_path / "command_line", options),
        "the worker of a viewer": answer["pixels"],
        "MONAI's workflow": run_monai(source, bundle_dir, tmp_path / "workflow", options),
        "MONAI's workflow of a packed bundle": run_monai(source, packed_dir, tmp_path / "of_packed", options),
    }
    for interface, pixels in found.items():
        assert pixels.dtype == expected.dtype, interface
        np.testing.assert_array_equal(pixels, expected, err_msg=interface)
