import shutil

import pytest

from monai_sr_bundle.bundles import configs_dir, released_weights
from monai_sr_bundle.errors import BundleError


def test_the_released_file_is_found_in_a_checkout_and_in_a_packed_bundle(packed):
    assert released_weights(str(configs_dir() / "chest_ct_edsr_x4")) == str(
        configs_dir() / "chest_ct_edsr_x4" / "model.pt"
    )
    folder = packed("chest_ct_edsr_x4")
    assert released_weights(str(folder)) == str(folder.resolve() / "models" / "model.pt")


def test_a_method_without_weights_has_no_file():
    assert released_weights(str(configs_dir() / "bicubic")) == ""


def test_damaged_and_missing_weights_are_refused(tmp_path):
    folder = shutil.copytree(configs_dir() / "chest_ct_edsr_x4", tmp_path / "chest_ct_edsr_x4")
    (folder / "model.pt").write_bytes(b"x")
    with pytest.raises(BundleError, match=r"model\.pt has SHA-256"):
        released_weights(str(folder))
    (folder / "model.pt").unlink()
    with pytest.raises(BundleError, match=r"model\.pt is missing"):
        released_weights(str(folder))
