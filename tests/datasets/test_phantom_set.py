import numpy as np
import pytest
from monai_sr_bundle.datasets.manifest import read_boxes, read_manifest
from monai_sr_bundle.datasets.phantom_set import SLICES, write_phantom_set
from monai_sr_bundle.errors import OutputError
from monai_sr_bundle.images.nifti import read_nifti
from monai_sr_bundle.images.picture import read_picture


def test_radiographs_are_split_by_patient(tmp_path):
    write_phantom_set(tmp_path / "drawn", "CXR", size=32, train=2, val=1, test=1)
    records = read_manifest(tmp_path, kind="cxr")
    assert [record.split for record in records] == ["train", "train", "val", "test"]
    assert len({record.patient_id for record in records}) == 4
    first, second = (read_picture(record.file).pixels for record in records[:2])
    assert first.shape == (1, 32, 32)
    assert (first != second).any()
    boxes = read_boxes(tmp_path)
    assert boxes.keys() == {record.file for record in records}
    for (box,) in boxes.values():
        assert 0 <= box.x_min < box.x_max <= 32
        assert 0 <= box.y_min < box.y_max <= 32


def test_volumes_are_ct_in_hounsfield_units(tmp_path):
    write_phantom_set(tmp_path / "drawn", "CT", size=32, train=1, val=0, test=1)
    (record,) = read_manifest(tmp_path, kind="ct", split="test")
    volume = read_nifti(record.file)
    assert volume.modality == "CT"
    assert volume.pixels.shape == (SLICES, 32, 32)
    assert volume.pixels.dtype == np.int16
    assert volume.pixels.min() < -800
    assert volume.pixels.max() <= 400
    np.testing.assert_allclose(volume.grid.spacing_xyz, (0.7, 0.7, 5.0), rtol=1e-6)


def test_nothing_is_drawn_over(tmp_path):
    write_phantom_set(tmp_path / "drawn", "CXR", size=32)
    with pytest.raises(OutputError, match="exists with other content"):
        write_phantom_set(tmp_path / "drawn", "CXR", size=40)
