"""Files into the scene and results back into files, in this process: every number keeps its meaning and its place."""

import zipfile

import nibabel
import numpy as np
import pytest
import slicer
from PIL import Image
from SuperResolutionLib import headers, result_nodes, volumes
from SuperResolutionLib.enhancer import subjectOf
from SuperResolutionLib.errors import InputError
from SuperResolutionWeb import images

from monai_sr_bundle.images import files
from monai_sr_bundle.images.geometry import ras_from_lps
from tests.images.dicom_files import capture, ct_series, provenance, radiograph

RAMP = (np.arange(24 * 20).reshape(24, 20) * 8 + 3).astype(np.uint16)
FACTOR = np.ones((1, 4, 4))


@pytest.fixture
def scene(monkeypatch):
    scene = slicer.vtkMRMLScene()
    monkeypatch.setattr(slicer, "mrmlScene", scene, raising=False)
    slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    return scene


def loadImage(scene, path):
    """Read an image. Return it, its volume, and the headers in place of a DICOM database."""
    sources, database = images.ImageSources(str(path)), images.Headers()
    image = sources.read(0)
    sources.close()
    return image, images.addVolume(scene, image, database), database


def addResult(node, extent):
    """Add a result that repeats each voxel of the region, as a model that adds no detail would."""
    k0, k1, r0, r1, c0, c1 = extent
    voxels = np.kron(slicer.util.arrayFromVolume(node)[k0:k1, r0:r1, c0:c1], FACTOR)
    origin = provenance(roi_xyxy=(c0, r0, c1, r1), slices=(k0, k1)).as_dict()
    done = {
        "bundle": "chest_test_x4", "version": "1.2.3", "sha256": "ab" * 32, "scaleZYX": [1, 4, 4], "synthetic": False,
        "provenance": origin,
    }  # fmt: skip
    return result_nodes.addResult(node, voxels.astype(slicer.util.arrayFromVolume(node).dtype), extent, done)


def writeAndRead(node, image, extent, folder):
    """Write a result. Return it as the package reads it, and its path."""
    path = images.prepareFile(addResult(node, extent), image, folder)()
    with files.discover([path]) as [source]:
        return files.read(source), path


def test_a_radiograph_of_monochrome1_is_bright_where_it_is_dense_and_goes_back_as_it_came(scene, tmp_path):
    image, node, database = loadImage(scene, radiograph(tmp_path / "film.dcm", RAMP))
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(node)[0], 4095 - RAMP)
    subject = subjectOf(node, [0, 1, 0, 24, 0, 20], database)
    assert (subject.modality, subject.storedRange) == ("CXR", (0, 4095))
    assert subject.spacingZyx[1:] == (0.2, 0.1)
    assert headers.headerOf(node, database).note == ""
    assert "detector plane" in subject.spacingSource
    enlarged, path = writeAndRead(node, image, [0, 1, 4, 12, 5, 15], tmp_path)
    assert path.name == "film_sr.dcm" == images.nameResult(image)
    assert enlarged.black_is_high
    np.testing.assert_array_equal(enlarged.pixels, np.kron(RAMP[None, 4:12, 5:15], FACTOR))


def test_ct_is_in_hounsfield_units_and_in_its_place(scene, tmp_path):
    volume = np.stack([RAMP + 100 * index for index in range(4)]).astype(np.int16)
    ct_series(tmp_path / "series", volume)
    image, node, database = loadImage(scene, tmp_path / "series")
    assert slicer.util.arrayFromVolume(node).dtype == np.int16
    np.testing.assert_array_equal(np.sort(slicer.util.arrayFromVolume(node).ravel()), np.sort((volume - 1024).ravel()))
    np.testing.assert_allclose(volumes.ijkToRasOf(node), ras_from_lps(image.image.grid.affine), atol=1e-9)
    assert subjectOf(node, [0, 4, 0, 24, 0, 20], database).modality == "CT"


def test_some_slices_of_a_series_come_back_as_a_zip_in_their_place(scene, tmp_path):
    volume = np.stack([RAMP + 100 * index for index in range(4)]).astype(np.int16)
    ct_series(tmp_path / "series", volume)
    image, node, _ = loadImage(scene, tmp_path / "series")
    enlarged, path = writeAndRead(node, image, [1, 3, 4, 12, 5, 15], tmp_path / "out")
    assert path.name == images.nameResult(image)
    assert len(zipfile.ZipFile(path).namelist()) == 2
    np.testing.assert_array_equal(enlarged.pixels, np.kron(image.image.pixels[1:3, 4:12, 5:15], FACTOR))
    expected = image.image.grid.cropped((1, 4, 5), (2, 8, 10)).scaled((1, 4, 4))
    np.testing.assert_allclose(enlarged.grid.affine, expected.affine, atol=1e-3)


def test_one_slice_of_a_series_comes_back_as_a_file(scene, tmp_path):
    ct_series(tmp_path / "series", np.stack([RAMP] * 3).astype(np.int16))
    image, node, _ = loadImage(scene, tmp_path / "series")
    enlarged, _path = writeAndRead(node, image, [2, 3, 0, 24, 0, 20], tmp_path / "out")
    np.testing.assert_array_equal(enlarged.pixels, np.kron(image.image.pixels[2:3], FACTOR))


def test_some_frames_of_a_multi_frame_image_are_refused(scene, tmp_path):
    image, node, _ = loadImage(scene, capture(tmp_path / "frames.dcm", np.stack([RAMP.astype(np.uint8)] * 3)))
    with pytest.raises(InputError, match="shows 1 of 3 frames, and a multi-frame image is written whole"):
        images.prepareFile(addResult(node, [0, 1, 0, 24, 0, 20]), image, tmp_path)


def test_a_scaled_nifti_shows_its_values_and_keeps_its_scale(scene, tmp_path):
    nifti = nibabel.Nifti1Image(RAMP.T[..., None].astype(np.int16), np.diag([0.5, 0.5, 2.0, 1.0]))
    nifti.header.set_slope_inter(0.5, -10)
    nibabel.save(nifti, tmp_path / "volume.nii")
    image, node, _ = loadImage(scene, tmp_path / "volume.nii")
    np.testing.assert_allclose(slicer.util.arrayFromVolume(node)[0], 0.5 * image.image.pixels[0] - 10)
    enlarged, _path = writeAndRead(node, image, [0, 1, 4, 12, 5, 15], tmp_path / "out")
    assert (enlarged.slope, enlarged.intercept) == (0.5, -10)
    np.testing.assert_array_equal(enlarged.pixels, np.kron(image.image.pixels[:, 4:12, 5:15], FACTOR))


def test_a_picture_of_16_bits_stays_one_and_has_no_millimetres(scene, tmp_path):
    Image.fromarray(RAMP).save(tmp_path / "film.png")
    image, node, database = loadImage(scene, tmp_path / "film.png")
    assert subjectOf(node, [0, 1, 0, 24, 0, 20], database).spacingZyx is None
    enlarged, _path = writeAndRead(node, image, [0, 1, 0, 24, 0, 20], tmp_path / "out")
    assert enlarged.pixels.dtype == np.uint16
    np.testing.assert_array_equal(enlarged.pixels, np.kron(RAMP[None], FACTOR))


def test_a_result_beyond_the_stored_range_is_clipped_to_it(scene, tmp_path):
    image, node, _ = loadImage(scene, radiograph(tmp_path / "film.dcm", RAMP, PhotometricInterpretation="MONOCHROME2"))
    resultNode = addResult(node, [0, 1, 0, 24, 0, 20])
    slicer.util.arrayFromVolume(resultNode)[...] = 5000
    path = images.prepareFile(resultNode, image, tmp_path)()
    with files.discover([path]) as [source]:
        assert files.read(source).pixels.max() == 4095


def test_an_image_of_one_value_has_a_window(scene, tmp_path):
    Image.fromarray(np.full((24, 20), 7, np.uint8)).save(tmp_path / "flat.png")
    image, _node, _ = loadImage(scene, tmp_path / "flat.png")
    assert image.window == (7, 8)


def test_the_library_reads_from_the_headers_what_slicer_s_database_would_say(scene, tmp_path):
    image, node, database = loadImage(scene, radiograph(tmp_path / "film.dcm", RAMP, PixelSpacing=["0.19", "0.09"]))
    [header] = image.image.header
    uid = str(header.SOPInstanceUID)
    assert database.fileForInstance(uid)
    assert not database.fileForInstance("1.2.3")
    assert database.fileValue(uid, headers.IMAGER) == "0.2\\0.1"
    assert database.fileValue(uid, headers.BITS) == "12"
    assert database.fileValue(uid, "0010,4000") == ""
    assert headers.headerOf(node, database).spacingSource == "calibrated"
