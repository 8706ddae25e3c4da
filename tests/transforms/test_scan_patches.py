import nibabel
import numpy as np
import pytest
import torch
from monai_sr_bundle.degradation import Degradation
from monai_sr_bundle.transforms import native_patches
from monai_sr_bundle.transforms.native_patches import Scan, ScanPairs, ScanPatches, read_scans

from tests.drawn_data import write_volumes

SOURCES = (("ct", 1, 0.7), ("ct", 2, 0.3))
WINDOW = (-1000, 400)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_volumes(tmp_path_factory.mktemp("scans"), size=160, slices=5, splits=("train", "val"))


def patches(data, **options):
    return ScanPatches(data, **{"sources": SOURCES, "window": WINDOW, "patch_size": 16, "batch_size": 3, **options})


def stored(data, name):
    return np.asarray(nibabel.load(data / "ct" / f"{name}.nii.gz").dataobj).transpose(2, 1, 0)


def without_losses(dataset):
    dataset.degrade.ideal, dataset.degrade.noise, dataset.degrade.sharpening = 1.0, 0.0, 0.0
    return dataset


def test_scans_are_read_as_stored_and_reduced_to_whole_hu(data):
    (scan,) = read_scans(data, "ct", "train").values()
    np.testing.assert_array_equal(scan.hu, stored(data, "train"))
    expected = np.rint(Degradation("bicubic_antialias", 2).reduce(stored(data, "train")))
    (reduced,) = read_scans(data, "ct", "train", reduce=2).values()
    np.testing.assert_array_equal(reduced.hu, expected)


def test_padding_is_read_as_air(tmp_path):
    write_volumes(tmp_path, size=64, slices=2)
    file = tmp_path / "ct" / "train.nii.gz"
    hu = np.full((64, 64, 2), 40, dtype=np.int16)
    hu[:11] = -1024
    nibabel.save(nibabel.Nifti1Image(hu, np.eye(4)), file)
    (scan,) = read_scans(tmp_path, "ct", "train").values()
    assert (scan.hu[..., :11] == -1000).all()
    assert (scan.hu[..., 11:] == 40).all()
    np.testing.assert_array_equal(scan.padding, np.arange(64) < np.full((2, 64, 1), 11))
    # A pixel that is padding in part is measured.
    (reduced,) = read_scans(tmp_path, "ct", "train", reduce=2).values()
    np.testing.assert_array_equal(reduced.padding, np.arange(32) < np.full((2, 32, 1), 5))


def test_the_target_is_the_middle_slice_at_the_same_place(data):
    batches = iter(without_losses(patches(data, scales=(4,), scale_shares=(1.0,), seed=0)))
    for _ in range(5):
        low_res, high_res = next(batches).values()
        expected = torch.nn.functional.avg_pool2d(high_res, 4)
        # A kernel wider than the pixel and what lies around the patch: close, not equal.
        assert (low_res[:, 1:2] - expected).abs().mean() < 0.25 * (expected - expected.mean()).abs().mean() + 1e-3


def test_neighbours_are_the_slices_beside_it_in_either_order(data):
    """The drawn slices differ by 5 HU each."""
    batches = iter(without_losses(patches(data, seed=0, batch_size=40)))
    image = 1400 * next(batches)["image"]
    steps = {tuple(np.rint(each).astype(int)) for each in image.diff(dim=1).mean(dim=(2, 3)).numpy()}
    assert steps == {(5, 5), (-5, -5), (0, -5), (-5, 0), (5, 0), (0, 5)}  # the end slices are their own neighbours


def test_a_single_slice_is_its_own_neighbour_with_its_noise(tmp_path):
    write_volumes(tmp_path, size=64, slices=1)
    dataset = patches(tmp_path, sources=[("ct", 1, 1.0)], seed=0)
    dataset.degrade.noise = 1.0
    image = next(iter(dataset))["image"]
    torch.testing.assert_close(image, image[:, 1:2].expand_as(image), rtol=0, atol=0)


def test_input_and_target_of_a_softened_patch_are_equally_smooth(data, monkeypatch):
    scan = Scan(
        np.random.default_rng(0).integers(-900, 300, (1, 128, 128)).astype(np.int16), np.zeros((1, 128, 128)) > 0
    )
    whole = slice(0, 128)
    for softened in (0.0, 1.0):
        monkeypatch.setattr(native_patches, "SOFTENED", softened)
        dataset = patches(data, seed=0)
        dataset.degrade.ideal, dataset.degrade.noise, dataset.degrade.sharpening = 1.0, 1.0, 0.0
        dataset.degrade.max_noise = 1e-3
        low_res, high_res = dataset.make_pair(scan, whole, whole, 4)
        expected = high_res.reshape(32, 4, 32, 4).mean(axis=(1, 3))
        assert np.corrcoef(low_res[1].ravel(), expected.ravel())[0, 1] > 0.85
        # White noise after a Gaussian of 1.6 to 3.2 pixels has 0.18 to 0.09 of its standard deviation.
        assert (high_res.std() < 0.19 * scan.hu.std() / 1400) == bool(softened)


def test_without_noise_nothing_is_softened(data, monkeypatch):
    batches = []
    for softened in (0.0, 1.0):
        monkeypatch.setattr(native_patches, "SOFTENED", softened)
        batches.append(next(iter(without_losses(patches(data, seed=0)))))
    torch.testing.assert_close(*batches, rtol=0, atol=0)


def test_one_slice_is_enough(data):
    assert next(iter(patches(data, slices=1, seed=0)))["image"].shape == (3, 1, 16, 16)


def test_the_middle_of_a_slice_is_degraded_the_same_way_every_time(data, monkeypatch):
    monkeypatch.setattr(native_patches, "PAIR_SIDE", 128)
    first, second = (ScanPairs(data, sources=[("ct", 1)], window=WINDOW, limit=2) for _ in range(2))
    assert [pair["name"] for pair in first] == ["val_000", "val_004"]
    for pair, same in zip(first, second, strict=True):
        torch.testing.assert_close(pair["image"], same["image"], rtol=0, atol=0)
    expected = (stored(data, "val")[4, 16:144, 16:144] + np.float32(1000)) / np.float32(1400)
    np.testing.assert_array_equal(first[1]["label"][0], expected)
    assert first[1]["image"].shape == (3, 32, 32)
