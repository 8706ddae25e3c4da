"""A landmark keeps its position in millimetres, measured by another library's reader (SimpleITK)."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from monai_sr_bundle.images.dicom_read import read_dicom
from monai_sr_bundle.images.dicom_write import write_dicom
from pydicom import dcmread

from tests.images.dicom_files import TILTED, ct_series, ct_slice, enlarged, phantom, provenance


def centroid_mm(image: sitk.Image) -> np.ndarray:
    """Centre of mass of the bright block, in LPS millimetres by SimpleITK's own geometry."""
    values = sitk.GetArrayFromImage(image)
    z, y, x = np.argwhere(values > values.min() + np.ptp(values) // 2).mean(axis=0)
    return np.array(image.TransformContinuousIndexToPhysicalPoint((x, y, z)))


def read_series(folder: Path) -> sitk.Image:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()


@pytest.mark.parametrize(("scale", "roi"), [((1, 4, 4), None), ((2, 2, 4), None), ((1, 4, 4), (6, 4, 18, 20))])
def test_a_landmark_in_an_oblique_series_and_in_a_region_of_it_stays_where_it_is(tmp_path, scale, roi):
    image = read_dicom(ct_series(tmp_path / "ct", phantom(slices=6)), tmp_path / "ct")
    if roi:
        grid = image.grid.cropped((0, 4, 6), (6, 16, 12))
        image = replace(image, pixels=image.pixels[:, 4:20, 6:18], grid=grid)
    write_dicom(enlarged(image, scale), provenance(scale_zyx=scale, roi_xyxy=roi), tmp_path / "out")
    before, after = read_series(tmp_path / "ct"), read_series(tmp_path / "out")
    assert after.GetSize() == tuple(n * s for n, s in zip(image.pixels.shape[::-1], scale[::-1], strict=True))
    np.testing.assert_allclose(centroid_mm(after), centroid_mm(before), atol=1e-3)
    np.testing.assert_allclose(after.GetSpacing(), np.array(before.GetSpacing()) / scale[::-1], atol=1e-6)


def test_our_reader_and_simpleitk_agree_on_every_corner(tmp_path):
    files = ct_series(tmp_path / "ct", phantom(slices=6))
    ours, theirs = read_dicom(files, tmp_path / "ct"), read_series(tmp_path / "ct")
    for corner in np.ndindex(2, 2, 2):
        index = [int(c * (n - 1)) for c, n in zip(corner, theirs.GetSize(), strict=True)]
        there = theirs.TransformIndexToPhysicalPoint(index)
        np.testing.assert_allclose((ours.grid.affine @ [*index, 1])[:3], there, atol=1e-4)


def test_a_landmark_in_one_oblique_slice_stays_where_it_is(tmp_path):
    turn = [*TILTED[:, 0], *TILTED[:, 1]]
    source = ct_slice(tmp_path / "in.dcm", orientation=turn, spacing=(0.9, 0.6))
    write_dicom(enlarged(read_dicom([source], source)), provenance(), tmp_path / "out.dcm")
    before, after = sitk.ReadImage(str(source)), sitk.ReadImage(str(tmp_path / "out.dcm"))
    np.testing.assert_allclose(centroid_mm(after), centroid_mm(before), atol=1e-3)


def test_a_tilted_series_is_not_straightened(tmp_path):
    files = ct_series(tmp_path / "ct", phantom(slices=5), axes=np.eye(3), step=(0, 1.0, 5.0))
    image = read_dicom(files, tmp_path / "ct")
    written = write_dicom(enlarged(image), provenance(), tmp_path / "out")
    for source, file in zip(image.header, written, strict=True):
        moved = np.array(dcmread(file).ImagePositionPatient) - np.array(source.ImagePositionPatient)
        np.testing.assert_allclose(moved, [-0.6 * 3 / 8, -0.9 * 3 / 8, 0], atol=1e-8)
