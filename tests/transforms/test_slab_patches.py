import nibabel
import numpy as np
import pytest
import torch
from monai_sr_bundle.errors import InputError
from monai_sr_bundle.transforms import slabs
from monai_sr_bundle.transforms.slabs import (
    RandomSlabThickness,
    SlabPairs,
    SlabPatches,
    average_slab,
    make_slabs,
)

from tests.drawn_data import write_volumes

WINDOW = (-1000, 400)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Volumes of 13 slices with a curve along them, which no order of slices hides."""
    root = write_volumes(tmp_path_factory.mktemp("slabs"), size=64, slices=13, splits=("train", "val"))
    for path in (root / "ct").glob("*.nii.gz"):
        volume = nibabel.load(path)
        z = np.arange(13)
        nibabel.save(nibabel.Nifti1Image(np.asarray(volume.dataobj) + (4 * z**2).astype(np.int16), volume.affine), path)
    return root


def patches(data, **options):
    return SlabPatches(
        data, **{"sets": ["ct"], "window": WINDOW, "patch_size": 16, "batch_size": 3, "seed": 0, **options}
    )


def touching(dataset):
    dataset.degrade.overlapping_share = 0.0
    return dataset


def ramp(*values):
    return np.array(values, dtype=np.int16)[:, None, None]


def test_a_slab_is_the_mean_over_its_thickness_with_parts_of_slices():
    thin = ramp(0, 10, 20, 30, 40, 50, 60, 70)
    assert average_slab(thin, 4, 4) == 35  # slices 2 to 5
    assert average_slab(thin, 4, 5) == 35  # and half of 1 and of 6
    assert average_slab(thin, 2, 3) == round((0.5 * 0 + 10 + 20 + 0.5 * 30) / 3)
    assert average_slab(thin, 1, 4) == 10  # what lies beyond the end is left out: slices 0 to 2


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (0, [5, 5, 5, 25, 45]),  # 0 and 1, repeated before the first; 2 and 3; 4 and 5
        (4, [5, 25, 45, 65, 65]),
        (3, [15, 15, 35, 55, 55]),  # 1 and 2; 3 and 4; 5 and 6: the others make no whole slab
    ],
)
def test_slabs_beyond_the_ends_are_those_at_the_ends(start, expected):
    thin = ramp(0, 10, 20, 30, 40, 50, 60, 70)
    assert make_slabs(thin, start, 2, 5, 1.0).ravel().tolist() == expected


def test_overlapping_slabs_are_smoother():
    thin = ramp(*np.random.default_rng(0).integers(-500, 500, 24))
    touching_slabs, overlapping = (make_slabs(thin, 8, 4, 5, thickness) for thickness in (1.0, 2.0))
    assert overlapping.std() < 0.8 * touching_slabs.std()
    assert overlapping[2] == pytest.approx(thin[6:14].mean(), abs=0.5)


def test_thicknesses_are_the_distance_or_up_to_twice_as_much():
    draw = RandomSlabThickness()
    draw.set_random_state(0)
    draws = np.array([draw() for _ in range(2000)])
    assert (draws == 1).mean() == pytest.approx(0.75, abs=0.03)
    assert draws.min() == 1
    assert 1.9 < draws.max() <= 2


def test_every_batch_has_one_scale_and_both_come(data):
    batches = iter(patches(data))
    scales = set()
    for _ in range(12):
        image, label = next(batches).values()
        scales.add(label.shape[1])
        assert image.shape == (3, 5, 16, 16)
        assert label.shape[2:] == (16, 16)
        assert image.dtype == label.dtype == torch.float32
    assert scales == {2, 4}


def test_the_mean_of_the_target_is_the_middle_slab_unless_they_overlap(data):
    batch = next(iter(touching(patches(data, scales=(4,), batch_size=20))))
    off = 1400 * (batch["label"].mean(dim=1) - batch["image"][:, 2]).abs()
    assert off.max() <= 0.51  # stored as whole HU
    dataset = patches(data, scales=(4,), batch_size=20)
    dataset.degrade.overlapping_share = 1.0
    batch = next(iter(dataset))
    assert 1400 * (batch["label"].mean(dim=1) - batch["image"][:, 2]).abs().max() > 1


def test_slices_come_in_either_order(data):
    label = next(iter(touching(patches(data, batch_size=40))))["label"]
    rises = (label[:, -1] > label[:, 0]).flatten(1).float().mean(dim=1)
    assert set(rises.round().tolist()) == {0.0, 1.0}


def test_every_slab_of_a_validation_volume_is_a_pair(data, monkeypatch):
    monkeypatch.setattr(slabs, "PAIR_SIDE", 32)
    pairs = SlabPairs(data, sets=["ct"], window=WINDOW)
    assert [pair["name"] for pair in pairs] == [f"0_{start:03d}" for start in range(10)]
    assert pairs[3]["image"].shape == (5, 32, 32)
    stored = np.asarray(nibabel.load(data / "ct" / "val.nii.gz").dataobj).transpose(2, 1, 0)
    expected = (stored[3:7, 16:48, 16:48] + np.float32(1000)) / np.float32(1400)
    np.testing.assert_array_equal(pairs[3]["label"], expected)
    assert [pair["name"] for pair in SlabPairs(data, sets=["ct"], window=WINDOW, limit=2)] == ["0_000", "0_009"]


def test_volumes_without_the_slices_of_one_slab_are_refused(tmp_path):
    write_volumes(tmp_path, size=64, slices=3)
    with pytest.raises(InputError, match="ct: none of 1 scans of the train split has 4 slices, which one thick slice"):
        patches(tmp_path)
