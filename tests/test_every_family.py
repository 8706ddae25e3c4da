"""Properties of every family of models: regions, tiles, backends and interfaces change no pixel; releases are whole.

A new family joins by a tiny bundle in `FAMILIES` and the options to run it with in `CASES`.
"""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai_sr_bundle import enhance
from monai_sr_bundle.__main__ import main
from monai_sr_bundle.backends.onnx_files import onnx_files
from monai_sr_bundle.backends.torch_backend import build_network, load_network
from monai_sr_bundle.benchmark.measure import measure
from monai_sr_bundle.benchmark.protocol import Row
from monai_sr_bundle.bundles import combined_sha256, open_bundle
from monai_sr_bundle.datasets.phantom import draw_phantom
from monai_sr_bundle.errors import BundleError, InputError
from monai_sr_bundle.images import files
from monai_sr_bundle.images.from_array import image_from_array
from monai_sr_bundle.images.image import Image
from monai_sr_bundle.images.input_checks import measure_sharpness_and_noise
from monai_sr_bundle.images.unit import NEAR_PADDING, fill_padding, largest_around, restore_padding
from monai_sr_bundle.packing.pack import pack
from monai_sr_bundle.packing.release import release
from monai_sr_bundle.packing.verify import verify
from monai_sr_bundle.shipped_bundles import find_bundle
from PIL import Image as Picture

from tests.benchmark.drawn_protocol import drawn_protocol
from tests.changed_bundles import copied, damaged, with_facts, with_metadata
from tests.drawn_data import write_radiographs, write_volumes
from tests.images.dicom_files import TILTED, ct_series, radiograph
from tests.monai_workflow import run_workflow
from tests.networks.measured import trained_like
from tests.tiny_diffusion import LATENT_BUNDLE, SR3_BUNDLE, released_diffusion
from tests.tiny_flow import CT_FLOW_BUNDLE, FLOW_BUNDLE, released_film_flow, released_flow
from tests.tiny_mask import released_mask
from tests.worker.test_worker import Started

ONE_PASS, THROUGH_PLANE = "chest_xray_edsr_x4", "chest_ct_throughplane"
NOISE_REDUCTION = "chest_ct_blind"
HU = 1400
"""Width of a CT bundle's window."""
AFFINE = np.array([[0.05, -0.7, 0, 10], [0.7, 0.02, 0.1, -20], [0, 0.05, 5, 30], [0, 0, 0, 1.0]])


def released_network(parent: Path, name: str, **arguments: Any) -> tuple[Path, list[str]]:
    """Release random weights in a copy of a shipped bundle with another size of network."""
    # Drawn images are unlike those that a released bundle knows.
    bundle_dir = with_metadata(copied(parent, name), weights_sha256={}, input_range=None, input_limits=None)
    definition = find_bundle(name).facts["network_def"]
    with_facts(bundle_dir, network_def={**definition, **arguments}, diffusion={})
    network = trained_like(build_network(open_bundle(bundle_dir)))
    torch.save(network.state_dict(), parent / "trained.pt")
    return bundle_dir, release(str(bundle_dir), parent / "trained.pt")


FAMILIES: dict[str, Callable[[Path], tuple[Path, list[str]]]] = {
    "one pass": lambda folder: released_network(folder, ONE_PASS, channels=8, blocks=1),
    "several scales": released_film_flow,
    "noise reduction": lambda folder: released_network(folder, NOISE_REDUCTION, channels=8, dilations=[1, 2]),
    "diffusion": lambda folder: released_diffusion(folder, SR3_BUNDLE),
    "latent diffusion": lambda folder: released_diffusion(folder, LATENT_BUNDLE),
    "flow": lambda folder: released_flow(folder, FLOW_BUNDLE),
    "flow of three slices": lambda folder: released_flow(folder, CT_FLOW_BUNDLE),
    "artifact removal": released_mask,
    "through-plane": lambda folder: released_network(folder, THROUGH_PLANE, channels=8, blocks=1),
}
BACKENDS = ("torch", "onnx", "openvino")
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "one pass": ("one pass", {}),
    "several scales": ("several scales", {"scale": 3}),
    "several scales, even": ("several scales", {"scale": 2}),
    "several scales with texture": ("several scales", {"scale": 3, "texture": 0.7, "steps": 2, "seed": 3}),
    "several scales, even, with texture": ("several scales", {"scale": 2, "texture": 0.7, "steps": 2, "seed": 3}),
    "noise reduction": ("noise reduction", {"scale": 2, "strength": 0.4}),
    "diffusion": ("diffusion", {"steps": 2, "seed": 3}),
    "latent diffusion": ("latent diffusion", {"steps": 2, "seed": 3}),
    "flow": ("flow", {}),
    "flow with texture": ("flow", {"texture": 0.7, "steps": 2, "seed": 3}),
    "flow of three slices": ("flow of three slices", {}),
    "flow of three slices with texture": ("flow of three slices", {"texture": 0.7, "steps": 2, "seed": 3}),
    "artifact removal": ("artifact removal", {}),
    "through-plane": ("through-plane", {"scale": 4}),
    "through-plane by two": ("through-plane", {"scale": 2}),
}
ONNX_FILES = {
    "one pass": ["model.onnx"],
    "several scales": ["model_x3.onnx", "velocity_x3.onnx"],
    "noise reduction": ["model_x2.onnx"],
    "diffusion": ["encoder.onnx", "denoiser.onnx", "decoder.onnx"],
    "latent diffusion": ["encoder.onnx", "denoiser.onnx", "decoder.onnx"],
    "flow": ["model.onnx", "velocity.onnx"],
    "flow of three slices": ["model.onnx", "velocity.onnx"],
    "artifact removal": ["model.onnx", "artifacts.onnx"],
    "through-plane": ["model_x4.onnx"],
}
"""The files that the case of the family's name loads."""
RELEASED_FILES = ONNX_FILES | {
    "several scales": [f"{part}_x{scale}.onnx" for scale in (2, 3, 4) for part in ("model", "velocity")],
    "noise reduction": [f"model_x{scale}.onnx" for scale in (2, 3, 4)],
    "through-plane": ["model_x2.onnx", "model_x4.onnx"],
}


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, list[str]]]:
    """The tiny bundle of a family and the lines of its release, made once."""
    return cache(lambda family: FAMILIES[family](tmp_path_factory.mktemp(family.replace(" ", "_"))))


@pytest.fixture(scope="module")
def bundle_of(released: Callable[[str], tuple[Path, list[str]]]) -> Callable[[str], Path]:
    return lambda family: released(family)[0]


@pytest.fixture(scope="module")
def packed_of(bundle_of: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    return cache(lambda family: pack(str(bundle_of(family)), tmp_path_factory.mktemp("packed")))


@cache
def wide_image(family: str) -> np.ndarray:
    """Floats, which nothing rounds or clips; so wide that a window of the network does not see it all."""
    film = np.tile(draw_phantom(64)[12:52].astype(np.float32), 10)
    if family == "artifact removal":  # a clean film with a mark, and one of which the network is not sure
        film *= 0.8
        film[14:18, 305:315], film[30:33, 20:24] = 1.0, 0.894
    return np.stack([film, film[::-1], film[:, ::-1]]) * HU - 1000 if is_ct(family) else film[None]


def is_ct(family: str) -> bool:
    return family in ("through-plane", "flow of three slices", "noise reduction")


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


def assert_same_marks(part: Any, whole: Any, crop: tuple[slice, ...] = ()) -> None:
    """The masks of removed artifacts are equal; without a family that removes them there are none."""
    assert (part.removed is None) == (whole.removed is None)
    if whole.removed is not None:
        for mask in ("artifact_mask", "agreement_mask"):
            np.testing.assert_array_equal(getattr(part.removed, mask), getattr(whole.removed, mask)[crop])


@pytest.mark.parametrize("backend", [*BACKENDS[:2], pytest.param("openvino", marks=pytest.mark.slow)])
@pytest.mark.parametrize("case", CASES)
def test_a_region_is_the_crop_of_the_whole(bundle_of, enhanced, case, backend):
    family = CASES[case][0]
    low, whole = wide_image(family), enhanced(case, backend)
    _, rows, columns = low.shape
    _, down, across = (large // small for large, small in zip(whole.image.pixels.shape, low.shape, strict=True))
    for x0, y0, x1, y1 in (
        (0, 0, columns // 20, rows // 3),
        (columns // 2 - 19, rows // 3, columns // 2 + 20, rows // 2 + 1),
        (columns - columns // 16, rows - rows // 3, columns, rows),
    ):
        part = enhance_wide(bundle_of(family), case, backend, roi=(x0, y0, x1, y1))
        crop = whole.image.pixels[:, down * y0 : down * y1, across * x0 : across * x1]
        # The last bits of a float32 may differ where a window of another size is convolved in another order.
        np.testing.assert_allclose(part.image.pixels, crop, rtol=0, atol=1e-5 * (HU if is_ct(family) else 1))
        assert part.source.pixels.shape == (len(low), y1 - y0, x1 - x0)
        corner = whole.image.grid.affine @ [across * x0, down * y0, 0, 1]
        np.testing.assert_allclose(part.image.grid.affine[:, 3], corner, atol=1e-9)
        assert_same_marks(part, whole, np.s_[:, y0:y1, x0:x1])


@pytest.mark.parametrize("backend", [*BACKENDS[:2], pytest.param("openvino", marks=pytest.mark.slow)])
@pytest.mark.parametrize("case", CASES)
def test_tiles_change_no_pixel_and_progress_rises_to_one(bundle_of, enhanced, case, backend):
    family, shares = CASES[case][0], []
    tiled = enhance_wide(bundle_of(family), case, backend, tile=64, progress=shares.append)
    whole = enhanced(case, backend)
    tolerance = 1e-5 * (HU if is_ct(family) else 1)
    np.testing.assert_allclose(tiled.image.pixels, whole.image.pixels, rtol=0, atol=tolerance)
    assert_same_marks(tiled, whole)
    assert len(shares) >= 2
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0)


@pytest.mark.parametrize("backend", BACKENDS[1:])
@pytest.mark.parametrize("case", CASES)
def test_all_backends_agree(enhanced, case, backend):
    ours, theirs = enhanced(case, "torch"), enhanced(case, backend)
    assert (ours.provenance.backend, theirs.provenance.backend) == ("torch", backend)
    assert ours.image.pixels.std() > 0.01
    family, options = CASES[case]
    # The velocity of random weights is steep: it multiplies rounding errors.
    tolerance = (5e-4 if "texture" in options else 1e-4) * (HU if is_ct(family) else 1)
    np.testing.assert_allclose(ours.image.pixels, theirs.image.pixels, rtol=0, atol=tolerance)
    assert_same_marks(ours, theirs)
    assert ours.removed is None or ours.removed.count == 2


def small_image(family: str) -> np.ndarray:
    """``[slices, 30, 40]``: grey levels of a film, or HU of four slices that differ, with padding in a corner."""
    film = draw_phantom(64)[20:50, 10:50]
    if not is_ct(family):
        return np.rint(film * 255).astype(np.uint8)[None]
    volume = np.stack([np.roll(film, index, axis=0) for index in range(4)]) * HU - 1000
    volume[:, np.add.outer(np.arange(30), np.arange(40)) < 6] = -1024
    return np.rint(volume).astype(np.int16)


@pytest.mark.parametrize("backend", ["torch", "onnx"])
@pytest.mark.parametrize("case", CASES)
def test_the_seed_alone_decides_on_what_is_sampled(bundle_of, case, backend):
    family, options = CASES[case]
    image = image_from_array(small_image(family), modality="CT" if is_ct(family) else "CXR")
    first, second, other = (
        enhance(image, str(bundle_of(family)), backend=backend, **options | {"seed": seed}) for seed in (7, 7, 8)
    )
    np.testing.assert_array_equal(first.image.pixels, second.image.pixels)
    is_sampled = "steps" in options
    assert np.array_equal(first.image.pixels, other.image.pixels) != is_sampled
    assert (first.provenance.seed, other.provenance.seed) == (7, 8)
    assert (first.provenance.sampling is not None) == is_sampled
    assert first.provenance.generative == is_sampled
    sampling = f", {first.provenance.sampling.words}" if is_sampled else ""
    assert f"{sampling}, seed 7." in first.provenance.sentence
    assert (" in 2 steps" in first.provenance.sentence) == is_sampled


@pytest.mark.parametrize("case", [case for case, (family, _) in CASES.items() if is_ct(family)])
def test_padding_is_air_to_the_network_and_padding_again_in_the_result(bundle_of, case):
    family, options = CASES[case]
    image = image_from_array(small_image(family), modality="CT")
    filled, padding = fill_padding(image, "CT")
    assert padding.any()
    result, of_air = (enhance(each, str(bundle_of(family)), **options) for each in (image, filled))
    scale = [large // small for large, small in zip(result.image.pixels.shape, padding.shape, strict=True)]
    enlarged = np.kron(padding, np.ones(scale)).astype(bool)
    assert (result.image.pixels[enlarged] == -1024).all()
    expected, consistent = of_air.image.pixels.copy(), result.bundle.family.consistency
    restore_padding(expected, image.pixels, padding, bounded=not consistent)
    np.testing.assert_array_equal(result.image.pixels, expected)
    # What is made consistent with the input stays so; else nothing near padding is brighter than the source there.
    near_padding = np.kron(largest_around(padding, NEAR_PADDING), np.ones(scale)).astype(bool) & ~enlarged
    assert (result.image.pixels[near_padding] == of_air.image.pixels[near_padding]).all() == consistent
    # The agreement with the input is not that of padding, which was never enlarged.
    if consistent:
        assert result.consistency.maximum <= of_air.consistency.maximum


@pytest.mark.parametrize("case", [case for case in CASES if case != "noise reduction"])
def test_a_strength_is_refused_where_no_noise_is_reduced(bundle_of, case):
    family, options = CASES[case]
    image = image_from_array(small_image(family), modality="CT" if is_ct(family) else "CXR")
    with pytest.raises(InputError, match=r"--strength 0.5: bundle .* is not made to reduce noise"):
        enhance(image, str(bundle_of(family)), strength=0.5, **options)


def test_strength_goes_from_the_noise_of_bicubic_interpolation_to_that_of_the_network(bundle_of):
    bundle_dir, low = str(bundle_of("noise reduction")), np.maximum(small_image("noise reduction"), -1000)
    image = image_from_array(low.astype(np.float32), modality="CT")  # without padding
    results = {strength: enhance(image, bundle_dir, scale=2, strength=strength) for strength in (None, 0, 0.25, 1)}
    noisy, blended, denoised = (results[strength].image.pixels for strength in (0, 0.25, 1))
    np.testing.assert_allclose(blended, 0.75 * noisy + 0.25 * denoised, atol=1e-3)
    distance = {strength: result.consistency.rms for strength, result in results.items()}
    assert distance[0] < distance[0.25] < distance[None] < distance[1]  # the bundle's own is 0.7
    assert results[None].provenance.strength == 0.7
    assert "noise reduced with strength 0.25 of 1" in results[0.25].provenance.sentence
    with pytest.raises(InputError, match=r"--strength 1.5: expected a number from 0"):
        enhance(image, bundle_dir, strength=1.5)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_texture_of_films_changes_the_reduced_image_by_no_more_than_the_noise_of_the_input(bundle_of, scale):
    bundle_dir, film = str(bundle_of("several scales")), wide_image("several scales")
    noise = measure_sharpness_and_noise(film[0])["noise_percent"] / 100
    faithful, textured = (enhance(film, bundle_dir, scale=scale, texture=texture).image.pixels for texture in (0, 1))
    reduction = find_bundle(bundle_dir).at_scale(scale).degradation
    change = np.abs(reduction.reduce((textured - faithful)[0].astype(np.float64)))
    assert textured.std() > 0
    assert np.quantile(change, 0.95) < 1.2 * noise < 5 * (textured - faithful).std()


def write_picture(family: str, folder: Path) -> Path:
    Picture.fromarray(small_image(family)[0]).save(folder / "chest.png")
    return folder / "chest.png"


def write_radiograph(family: str, folder: Path) -> Path:
    """12 bits, whose storage reaches beyond the window."""
    return radiograph(folder / "chest.dcm", 200 + 12 * small_image(family)[0].astype(np.uint16))


def write_nifti(family: str, folder: Path, slices: int = 4) -> Path:
    volume = nibabel.Nifti1Image(small_image(family)[:slices].T, AFFINE)
    volume.header.set_xyzt_units("mm")
    nibabel.save(volume, folder / "chest.nii.gz")
    return folder / "chest.nii.gz"


def write_slice(family: str, folder: Path) -> Path:
    return write_nifti(family, folder, slices=1)


def write_series(family: str, folder: Path) -> Path:
    ct_series(folder / "ct", (small_image(family) + 1024).astype(np.uint16), TILTED)
    return folder / "ct"


SOURCES: list[tuple[str, Callable[[str, Path], Path]]] = [
    *((case, write_nifti if is_ct(family) else write_picture) for case, (family, _) in CASES.items()),
    *((case, write_radiograph) for case in ("one pass", "several scales", "flow", "artifact removal")),
    *((case, write_series) for case in ("flow of three slices", "through-plane")),
    ("flow of three slices with texture", write_slice),
]


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    """The process behind a viewer, with PyTorch."""
    started = Started(tmp_path_factory.mktemp("viewer"), "--backend", "torch")
    yield started
    assert started.end() == 0


def read_only_image(folder: Path) -> Image:
    with files.discover([folder]) as [source]:
        return files.read(source)


def run_command_line(source: Path, bundle_dir: Path, out: Path, options: dict[str, Any]) -> Path:
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    quiet = ["--backend", "torch", "--quiet", "--progress", "none"]
    assert main(["enhance", str(source), f"{out}/", "--bundle", str(bundle_dir), *words, *quiet]) == 0
    return out


def workflow_keys(options: dict[str, Any]) -> dict[str, Any]:
    """Return the keys of a MONAI workflow that do what the options of `enhance` do."""
    return {
        key if key in ("seed", "scale", "strength") else f"diffusion#{key}": value for key, value in options.items()
    }


def run_monai(source: Path, bundle_dir: Path, out: Path, options: dict[str, Any]) -> Path:
    run_workflow(bundle_dir, "inference", dataset_dir=source, output_dir=out, **workflow_keys(options))
    return out


@pytest.mark.parametrize(
    ("case", "write"), SOURCES, ids=[f"{case}-{write.__name__.removeprefix('write_')}" for case, write in SOURCES]
)
def test_every_interface_gives_the_same_pixels_on_the_same_grid(bundle_of, packed_of, worker, tmp_path, case, write):
    family, options = CASES[case]
    bundle_dir, packed_dir, source = bundle_of(family), packed_of(family), write(family, tmp_path)
    result = enhance(source, str(bundle_dir), backend="torch", **options)
    written = {
        "the command line": run_command_line(source, bundle_dir, tmp_path / "command_line", options),
        "MONAI's workflow": run_monai(source, bundle_dir, tmp_path / "workflow", options),
        "MONAI's workflow of a packed bundle": run_monai(source, packed_dir, tmp_path / "of_packed", options),
    }
    images = {interface: read_only_image(folder) for interface, folder in written.items()}
    images["a packed bundle in Python"] = enhance(source, str(packed_dir), backend="torch", **options).image
    expected = result.image
    for interface, image in images.items():
        assert image.pixels.dtype == expected.pixels.dtype, interface
        np.testing.assert_array_equal(image.pixels, expected.pixels, err_msg=interface)
        if expected.grid.in_millimetres:
            np.testing.assert_allclose(image.grid.spacing_xyz, expected.grid.spacing_xyz, rtol=1e-6, err_msg=interface)
        if is_ct(family):  # a radiograph's file does not say where the detector was
            np.testing.assert_allclose(image.grid.affine, expected.grid.affine, atol=1e-3, err_msg=interface)
    if write is write_picture and result.provenance.sampling is not None:
        for interface, folder in written.items():
            assert result.provenance.sampling.words in str(Picture.open(next(folder.iterdir())).text), interface
    if write in (write_picture, write_nifti):
        low = read_only_image(source).pixels
        region = [edge for size in low.shape for edge in (0, size)]
        modality = "CT" if is_ct(family) else "CXR"
        answer = worker.enhance(low, region, modality=modality, bundle=str(bundle_dir), **options)
        assert answer["event"] == "done", answer
        np.testing.assert_array_equal(answer["pixels"], expected.pixels)


@pytest.mark.parametrize(
    "case",
    [
        "one pass",
        "several scales",
        "several scales with texture",
        "diffusion",
        "flow with texture",
        "artifact removal",
        "through-plane",
    ],
)
def test_the_command_in_a_report_makes_the_result_again(bundle_of, tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    family, options = CASES[case]
    source = (write_nifti if is_ct(family) else write_picture)(family, tmp_path).name
    suffix = source.removeprefix("chest")
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    quiet = ["--report", "--quiet", "--progress", "none"]
    assert main(["enhance", source, f"out{suffix}", "--bundle", str(bundle_of(family)), *words, *quiet]) == 0
    report = json.loads((tmp_path / "out.report.json").read_text())
    result = enhance(tmp_path / source, str(bundle_of(family)), **options)
    sampling = result.provenance.sampling
    assert report["run"]["sampling"] == (sampling and sampling.words)
    page = (tmp_path / "out.report.html").read_text()
    assert (sampling.words in page) if sampling else ("Drawn by" not in page)
    for command in (report["run"]["command"], result.report(output=tmp_path / f"out{suffix}")["run"]["command"]):
        # The command names the bundle, as it is shipped.
        words = shlex.split(command.replace(bundle_of(family).name, str(bundle_of(family))))
        assert main([*words[1:], "--overwrite"]) == 0
        np.testing.assert_array_equal(read_only_image(tmp_path / f"out{suffix}").pixels, result.image.pixels)


@pytest.mark.parametrize(
    ("family", "options", "message"),
    [
        ("one pass", {"steps": 5, "samples": 2}, "--steps, --samples: bundle chest_xray_edsr_x4 is no diffusion model"),
        ("one pass", {"texture": 0.5}, "--texture: bundle chest_xray_edsr_x4 is no diffusion model"),
        ("through-plane", {"steps": 5}, "--steps: bundle chest_ct_throughplane is no diffusion model"),
        ("diffusion", {"steps": 1001}, "--steps 1001: this method was trained with 1000 steps, expected 1 to 1000"),
        ("diffusion", {"texture": 0.5}, "--texture 0.5: bundle chest_xray_sr3_x4 is a diffusion model, which draws"),
        ("flow", {"steps": 65, "texture": 1.0}, "--steps 65: a flow takes 1 to 64 steps; 1, 2, 4 and 8 are usual"),
        ("flow", {"sampler": "ddim"}, "--sampler ddim: bundle chest_xray_residual_flow_x4 is a flow, which has one"),
    ],
)
def test_options_of_another_family_are_refused_before_anything_is_loaded(
    bundle_of, monkeypatch, family, options, message
):
    monkeypatch.setattr("monai_sr_bundle.engine.session.open_backend", lambda *_: pytest.fail("the network was loaded"))
    image = image_from_array(small_image(family), modality="CT" if is_ct(family) else "CXR")
    with pytest.raises(InputError, match=message):
        enhance(image, str(bundle_of(family)), **options)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_release_has_pytorchs_weights_and_a_file_of_onnx_for_each_part(released, family):
    bundle_dir, lines = released(family)
    bundle = open_bundle(bundle_dir)
    names = ["model.pt", *RELEASED_FILES[family]]
    assert list(bundle.metadata["weights_sha256"]) == names
    assert [name for scale in bundle.scales for name in onnx_files(bundle.at_scale(scale))] == RELEASED_FILES[family]
    for name, line in zip(names, lines, strict=False):
        assert line.startswith(f"{name}  ")
        assert bundle.weights(name)[1] in line
    assert lines[-1].startswith("largest difference between PyTorch and ONNX Runtime:")
    assert bundle.parameters == sum(value.numel() for value in load_network(bundle)[0].parameters())
    assert [path.name for path in bundle_dir.iterdir() if path.name.startswith(".")] == []
    assert {path.name for path in bundle_dir.glob("*.onnx")} == set(RELEASED_FILES[family])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_result_states_the_hash_of_every_file_that_was_loaded(bundle_of, enhanced, family):
    hashes = open_bundle(bundle_of(family)).metadata["weights_sha256"]
    parts = {name: hashes[name] for name in ONNX_FILES[family]}
    of_onnx = combined_sha256(parts) if len(parts) > 1 else next(iter(parts.values()))
    assert enhanced(family, "torch").provenance.weights_sha256 == hashes["model.pt"]
    assert enhanced(family, "onnx").provenance.weights_sha256 == of_onnx


@pytest.mark.parametrize(("family", "name"), [(family, name) for family, names in ONNX_FILES.items() for name in names])
def test_every_file_of_onnx_is_there_and_undamaged_before_it_is_loaded(bundle_of, tmp_path, family, name):
    bundle_dir = shutil.copytree(bundle_of(family), tmp_path / "bundle")
    with pytest.raises(BundleError, match=f"{name} has SHA-256 .* damaged or was replaced; it was not loaded"):
        enhance_wide(damaged(bundle_dir, name), family, "onnx")
    hashes = open_bundle(bundle_dir).metadata["weights_sha256"]
    with_metadata(bundle_dir, weights_sha256={each: hashes[each] for each in hashes if each != name})
    with pytest.raises(BundleError, match=rf"has no {name}. Run `monai-sr export"):
        enhance_wide(bundle_dir, family, "onnx")


@pytest.mark.parametrize(
    ("family", "name", "other", "message"),
    [
        ("diffusion", "denoiser", "decoder", "from cells and condition to pred, expected .* noisy and condition"),
        ("flow", "velocity", "model", "from image to pred, expected a network from state and condition and time"),
        ("artifact removal", "artifacts", "model", "from image to pred, expected a network from image to artifacts"),
    ],
)
def test_a_file_of_onnx_in_the_place_of_another_is_recognised_by_its_ends(
    bundle_of, tmp_path, family, name, other, message
):
    bundle_dir = shutil.copytree(bundle_of(family), tmp_path / "bundle")
    (bundle_dir / f"{name}.onnx").write_bytes((bundle_dir / f"{other}.onnx").read_bytes())
    hashes = open_bundle(bundle_dir).metadata["weights_sha256"]
    with_metadata(bundle_dir, weights_sha256=hashes | {f"{name}.onnx": hashes[f"{other}.onnx"]})
    with pytest.raises(BundleError, match=f"{name}.onnx goes {message}"):
        enhance_wide(bundle_dir, family, "onnx")


@pytest.mark.parametrize("family", ["several scales", "diffusion", "flow", "flow of three slices", "artifact removal"])
def test_a_packed_bundle_passes_the_checks_of_its_networks(packed_of, family):
    names = ["shapes in and out", "TorchScript", "ONNX equals PyTorch", "code and packages", "no key twice"]
    checks = list(verify(packed_of(family), only=[*names, "properties for training"]))
    assert len(checks) == len(names) + 1
    assert [check for check in checks if not check.passed] == []


@pytest.mark.parametrize("case", ["one pass", "several scales", "flow", "flow of three slices", "diffusion"])
def test_a_workflow_of_monai_measures_what_the_benchmark_does(bundle_of, tmp_path, capsys, case):
    family, options = CASES[case]
    if is_ct(family):
        data = write_volumes(tmp_path / "data", slices=6)
        source = {"modality": "CT", "sets": ("ct",), "window": (-1000, 400), "levels": HU}
    else:
        data = write_radiographs(tmp_path / "data", size=96, counts=(("test", 2),))
        source = {"modality": "CXR", "sets": ("drawn",), "window": (0, 255), "levels": 255}
    # The benchmark draws by the seed 0, as the workflow does.
    bundle_dir, keys = bundle_of(family), workflow_keys({key: options[key] for key in options if key != "seed"})
    run_workflow(
        bundle_dir, "evaluate", dataset_dir=data, output_dir=tmp_path, sets=[*source["sets"]], reduce=1, **keys
    )
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("psnr ")]
    row = Row(str(bundle_dir), "", steps=options.get("steps"))
    operator = open_bundle(bundle_dir).at_scale(options.get("scale")).operator
    protocol = drawn_protocol(Row("bicubic", ""), row, operator=operator, **source)
    figures = measure(protocol, data, samples=0).results[1].figures["psnr"]
    assert float(line.split("psnr ")[1].split()[0]) == pytest.approx(np.mean(figures), abs=1e-3)
