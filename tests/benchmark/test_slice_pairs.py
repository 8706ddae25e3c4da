"""Figures of thin slices: a volume is averaged to thick slices, and made thin again by every method."""

import nibabel
import numpy as np
import pytest
from monai_sr_bundle.benchmark.film_measurement import measure_films
from monai_sr_bundle.benchmark.film_protocol import FilmLoss, FilmProtocol, FilmSet
from monai_sr_bundle.benchmark.film_tables import film_markdown
from monai_sr_bundle.benchmark.protocol import BICUBIC_MEANS, Row
from monai_sr_bundle.benchmark.quality import evaluate
from monai_sr_bundle.benchmark.slice_pairs import interpolate_slices, keep_whole_groups
from monai_sr_bundle.engine.session import enhance
from monai_sr_bundle.errors import InputError
from monai_sr_bundle.images.from_array import image_from_array
from monai_sr_bundle.images.nifti import read_nifti
from monai_sr_bundle.transforms.pairs import pair_items
from monai_sr_bundle.transforms.slabs import ThickVolumes

from tests.drawn_data import write_volumes

NAME = "chest_ct_throughplane"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Volumes of 18 slices: four whole groups of four, and two slices that make none."""
    root = write_volumes(tmp_path_factory.mktemp("data"), size=48, slices=18)
    for path in (root / "ct").glob("*.nii.gz"):
        volume = nibabel.load(path)
        z = np.arange(18)
        # The means of four are whole numbers: which way a half is rounded would show at 50 dB.
        changed = np.asarray(volume.dataobj) + (3 * z + 2 * z**2).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(changed, volume.affine), path)
    return root


def psnr(pixels, thin):
    unit = [(np.clip(volume, -1000, 400).astype(float) + 1000) / 1400 for volume in (pixels, thin)]
    return [10 * np.log10(1 / np.mean((one - other) ** 2)) for one, other in zip(*unit, strict=True)]


def test_the_figures_are_those_of_the_slices_that_the_engine_makes(data):
    evaluation = evaluate(NAME, data, sets=["ct"], backend="torch")
    thin = read_nifti(data / "ct" / "test.nii.gz").pixels[:16].astype(float)
    thick = np.rint(thin.reshape(4, 4, 48, 48).mean(axis=1)).astype(np.int16)
    pixels = enhance(image_from_array(thick, modality="CT"), NAME, backend="torch", scale=4).image.pixels
    assert evaluation.comparison.images == [f"test_{index:03d}" for index in range(16)]
    np.testing.assert_allclose(evaluation.method["psnr"], psnr(pixels, thin), atol=0.02)
    cubic = interpolate_slices("bicubic", thick.astype(np.float32), 4)
    np.testing.assert_allclose(evaluation.bicubic["psnr"], psnr(np.rint(cubic), thin), atol=0.02)
    assert np.abs(np.subtract(evaluation.method["psnr"], evaluation.bicubic["psnr"])).min() > 0.1
    assert "thin slices; bicubic is cubic along the slices" in evaluation.table()
    assert "One patient only" in evaluation.table()


def test_turned_volumes_are_measured_turned(data):
    volumes = [ThickVolumes("slab_area_x4", (-1000, 400), 1400, turns) for turns in (0, 1)]
    item = {"path": str(data / "ct" / "test.nii.gz")}
    (thin, thick), (rotated, rotated_thick) = (volume(item) for volume in volumes)
    np.testing.assert_array_equal(np.rot90(thin, 1, (1, 2)), rotated)
    np.testing.assert_array_equal(np.rot90(thick, 1, (1, 2)), rotated_thick)


def test_slices_that_make_no_whole_group_are_left_out():
    items = [{"path": path, "slice_index": index} for path, count in (("a", 5), ("b", 3)) for index in range(count)]
    assert [(item["path"], item["slice_index"]) for item in keep_whole_groups(items, 4)] == [("a", z) for z in range(4)]


def test_thick_slices_that_lie_in_the_split_in_part_are_left_out(tmp_path):
    # The top fifth of 24 slices are 19 to 23: the fifth thick slice lies in both splits.
    write_volumes(tmp_path, size=48, slices=24)
    items = pair_items(str(tmp_path), "CT", "val", validation_share=0.2)
    assert [item["slice_index"] for item in keep_whole_groups(items, 4)] == [20, 21, 22, 23]


def test_a_volume_without_a_whole_thick_slice_is_refused(tmp_path):
    write_volumes(tmp_path, size=48, slices=3)
    message = "test.nii.gz: of the 3 slices in this split, no 4 make a whole thick slice .* another split"
    with pytest.raises(InputError, match=message):
        evaluate(NAME, tmp_path, sets=["ct"])


def test_volumes_of_a_split_without_a_slice_are_refused():
    with pytest.raises(InputError, match="no volume: of the 0 slices in this split"):
        keep_whole_groups([], 4)


def test_interpolations_are_along_the_slices_alone():
    thick = np.random.default_rng(0).random((4, 3, 5), dtype=np.float32)
    np.testing.assert_array_equal(interpolate_slices("nearest", thick, 4)[5], thick[1])
    # The first thin slice of a thick one lies 3/8 of a step before its middle.
    np.testing.assert_allclose(
        interpolate_slices("bilinear", thick, 4)[4], 0.375 * thick[0] + 0.625 * thick[1], atol=1e-6
    )
    assert interpolate_slices("bicubic", thick, 4).shape == (16, 3, 5)


def test_with_its_means_set_cubic_interpolation_averages_to_the_thick_slices():
    thick = np.random.default_rng(0).random((4, 3, 5), dtype=np.float32)
    cubic, with_means = (interpolate_slices(name, thick, 2) for name in ("bicubic", BICUBIC_MEANS))
    np.testing.assert_allclose(with_means.reshape(4, 2, 3, 5).mean(axis=1), thick, atol=1e-6)
    steps = [np.diff(thin.reshape(4, 2, 3, 5), axis=1) for thin in (cubic, with_means)]
    np.testing.assert_allclose(*steps, atol=1e-6)


ROWS = tuple(Row(method, method) for method in ("bicubic", BICUBIC_MEANS, NAME))


def test_every_factor_is_measured_on_every_slice_of_whole_thick_ones(data):
    protocol = FilmProtocol(
        "slabs", "Slabs", "For tests.", (FilmSet("drawn", "ct"),), (FilmLoss("means", {}, "CT"),), (4, 2), ROWS,
        modality="CT", along_slices=True,
    )  # fmt: skip
    comparison = measure_films(protocol, data)
    assert comparison.psnr.shape == (16, 2, 1, 3)
    assert np.isnan(comparison.coverage).all()
    for index, scale in enumerate((4, 2)):
        evaluation = evaluate(NAME, data, sets=["ct"], scale=scale)
        np.testing.assert_allclose(comparison.psnr[:, index, 0, 2], evaluation.method["psnr"][:16], atol=1e-4)
        np.testing.assert_allclose(comparison.psnr[:, index, 0, 0], evaluation.bicubic["psnr"][:16], atol=1e-4)
    assert (comparison.psnr[:, :, 0, 1] != comparison.psnr[:, :, 0, 0]).any()
    assert "the figures are those of the thin slices" in film_markdown(comparison)


def test_bundles_of_the_plane_and_along_the_slices_are_not_mixed(data):
    with pytest.raises(InputError, match=f"bundle {NAME} enlarges along the slices, where that one loses nothing"):
        evaluate(NAME, data, operator="area_x4")
