"""A hospital that cannot take part in a study is told why, before anything starts."""

import csv
import dataclasses
import hashlib
import warnings

import pytest

pytest.importorskip("nvflare", reason="federated training: nvflare is not installed (extra [federated])")

from monai_sr_bundle.errors import BundleError, InputError
from monai_sr_bundle.federated.contract import check_contract
from monai_sr_bundle.federated.site_settings import SiteSettings

from tests.drawn_data import write_radiographs, write_volumes
from tests.federated.conftest import study


@pytest.fixture
def site(tmp_path):
    data = write_radiographs(tmp_path / "data", size=96, counts=(("train", 3), ("val", 2)))
    return SiteSettings(data, tmp_path / "work")


def edit_manifest(site, change):
    """Let a test change the rows of a manifest."""
    path = site.data / "drawn" / "manifest.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    rows = change(rows) or rows
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


def test_a_site_with_a_whole_manifest_can_take_part(site):
    with warnings.catch_warnings(record=True) as remarks:
        warnings.simplefilter("always")
        numbers = check_contract(study(), site)
    assert numbers == "images: 3 to train on, of 3 patients, 0 with boxes; 2 to validate on"
    assert not site.work.exists()
    assert not [remark for remark in remarks if "GradScaler" in str(remark.message)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: [row | {"patient_id": "one"} for row in rows], "1 patients are in more than one split"),
        (lambda rows: [row for row in rows if row["split"] == "val"], "no cxr train image; there is cxr val 2"),
        (lambda rows: [row for row in rows if row["split"] == "train"], "no cxr val image; .* give whole patients"),
    ],
)
def test_a_manifest_that_cannot_be_trained_with_is_refused(site, change, message):
    edit_manifest(site, change)
    with pytest.raises(InputError, match=message):
        check_contract(study(), site)


def test_another_modality_is_refused(site, tmp_path):
    data = write_volumes(tmp_path / "volumes", splits=("train", "val"))
    with pytest.raises(InputError, match="no cxr train image; there is ct train 1, ct val 1"):
        check_contract(study(), dataclasses.replace(site, data=data))


def test_another_operator_is_refused(site):
    with pytest.raises(InputError, match="state the operator area_x4, but the study trains for bicubic_antialias_x4"):
        check_contract(study(), dataclasses.replace(site, operator="area_x4"))


def test_another_bundle_is_refused(site):
    with pytest.raises(BundleError, match="is for 000000000000.* Install the version .* the coordinator has"):
        check_contract(study(bundle_sha256="0" * 64), site)


def test_an_image_that_was_replaced_is_refused(site):
    def add_hashes(rows):
        for row in rows:
            row["sha256"] = hashlib.sha256((site.data / row["file"]).read_bytes()).hexdigest()

    edit_manifest(site, add_hashes)
    check_contract(study(), site)
    (site.data / "drawn" / "images" / "val1.png").write_bytes(b"another")
    with pytest.raises(InputError, match=r"val1.png: the file has another SHA-256"):
        check_contract(study(), site)


def test_a_damaged_image_is_refused_by_a_trial_step(site):
    image = site.data / "drawn" / "images" / "train0.png"
    image.write_bytes(image.read_bytes()[:1000])
    with pytest.raises(InputError, match="train0.png"):
        check_contract(study(), site)


def test_images_smaller_than_a_patch_are_refused_by_a_trial_step(site):
    with pytest.raises(InputError, match="12x12 pixels at low resolution, expected at least the patch of 24"):
        check_contract(study(patch_size=24), site)


def test_a_study_with_differential_privacy_needs_a_budget(site):
    private = {"protect": "training", "noise_multiplier": 1.0, "clip": 0.1, "epsilon": 8.0, "delta": 0.001}
    with pytest.raises(InputError, match="no privacy budget, .* --budget EPSILON DELTA"):
        check_contract(study(privacy=private), site)
