import json

import nibabel
import numpy as np
import pytest
from monai_sr_bundle.__main__ import main
from monai_sr_bundle.bundles import open_bundle
from monai_sr_bundle.calibrate.calibration_cases import open_pairs
from monai_sr_bundle.calibrate.training_inputs import known_range, measure_training_range
from monai_sr_bundle.calibrate.whole_images import draw_image
from monai_sr_bundle.datasets.make_manifest import write_manifest
from monai_sr_bundle.datasets.manifest import Record
from monai_sr_bundle.errors import BundleError
from monai_sr_bundle.images.input_checks import measure_sharpness_and_noise
from monai_sr_bundle.inferers.tiling import middle
from monai_sr_bundle.packing.release import release_learnt_from
from monai_sr_bundle.transforms.native_patches import FilmPatches

from tests.changed_bundles import copied, with_facts, with_metadata
from tests.with_error_bars import write_windows


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """`own`, the set of the bundle, and `other`, which is noisier."""
    root = write_windows(tmp_path_factory.mktemp("data"), "own", {"train": 4, "test": 2}, size=160)
    return write_windows(root, "other", {"train": 4}, size=160, noise=40.0)


def ours(parent, name="chest_xray_srcnn_x4", **facts):
    return with_metadata(with_facts(copied(parent, name), sets=["own"], **facts), input_range=None)


def test_the_command_states_what_the_training_inputs_were_like(data, tmp_path, capsys):
    folder = ours(tmp_path, reduce=1)
    before = json.loads((folder / "metadata.json").read_text())
    assert main(["export", str(folder), "--learnt-from", str(data)]) == 0
    input_range = json.loads((folder / "metadata.json").read_text())["input_range"]
    items, load = open_pairs(open_bundle(folder), data, "train", sets=["own"])
    assert input_range == known_range([measure_sharpness_and_noise(load(item)["low"][0].numpy()) for item in items])
    low, high = input_range["noise_percent"]
    printed = capsys.readouterr().out
    assert f"noise_percent: {low:g} to {high:g}\n" in printed
    # Files and their pixels; this set has no name, so its patients none.
    assert "learnt_from.txt: 8 fingerprints of images and patients\n" in printed
    assert json.loads((folder / "metadata.json").read_text()) == before | {"input_range": input_range}
    noisier = measure_training_range(open_bundle(with_facts(folder, sets=["other"])), data)["input_range"]
    assert noisier["noise_percent"][1] > high


def test_a_bundle_of_films_states_limits_beyond_degraded_and_unmodified_films_and_no_range(data, tmp_path, capsys):
    folder = ours(tmp_path, "chest_xray_blind", films=[["own", 1, 1.0]])
    assert main(["export", str(folder), "--learnt-from", str(data)]) == 0
    metadata = json.loads((folder / "metadata.json").read_text())
    assert "input_range" not in metadata
    patches = FilmPatches(data, sources=[["own", 1, 1.0]], patch_size=40, scales=(2, 3, 4), seed=0)
    for _ in range(20):
        _, low_res, high_res = draw_image(patches)
        for image in (middle(low_res), high_res):
            measures = measure_sharpness_and_noise(image)
            assert all(low < measures[name] < high for name, (low, high) in metadata["input_limits"].items())
    assert "noise_percent at most: 0 to" in capsys.readouterr().out


def test_the_spacing_of_training_inputs_is_that_after_the_reductions(tmp_path):
    folder = ours(tmp_path, "chest_ct_edsr_x4", reduce=2)
    file = tmp_path / "own" / "a.nii.gz"
    file.parent.mkdir()
    nibabel.save(nibabel.Nifti1Image(np.zeros((256, 256, 4), np.int16), np.eye(4)), file)
    shape = {"shape_xyz": (256, 256, 4), "spacing_xyz": (0.7, 0.7, 5.0)}
    write_manifest([Record(file, "ct", "train", "a patient", "Apache-2.0", **shape)], file.parent)
    assert measure_training_range(open_bundle(folder), tmp_path)["input_range"]["spacing_mm"] == [5.6, 5.6]


def test_thin_slices_have_no_range_of_inputs(data):
    with pytest.raises(BundleError, match="enlarges along the slices of a volume, for which there is no range of inp"):
        release_learnt_from("chest_ct_throughplane", data)


def test_a_variant_is_refused_as_it_has_learnt_from_what_its_bundle_has(data):
    with pytest.raises(BundleError, match="chest_xray_edsr_x4:artifacts is a variant; what it has learnt from belongs"):
        release_learnt_from("chest_xray_edsr_x4:artifacts", data)
