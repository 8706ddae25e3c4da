from dataclasses import replace

import nibabel
import numpy as np
import pydicom.uid as uid
import pytest
from PIL import Image as Picture

from monai_sr_bundle import enhance
from monai_sr_bundle.datasets.phantom import draw_phantom
from monai_sr_bundle.engine.session import Session, choose_bundle
from monai_sr_bundle.images.files import read_one
from monai_sr_bundle.images.from_array import image_from_array
from monai_sr_bundle.images.input_checks import check_content
from tests.images.dicom_files import capture, ct_series, ct_slice, radiograph

FILM = np.rint(255 * draw_phantom(64)).astype(np.uint8)
TWELVE_BITS = FILM.astype(np.uint16) * 16
MONOCHROME2 = {"PhotometricInterpretation": "MONOCHROME2"}


def film(path, **attributes):
    return read_one(radiograph(path / "film.dcm", TWELVE_BITS, **MONOCHROME2 | attributes))


def test_an_ordinary_film_and_an_ordinary_ct_give_no_sentence(tmp_path):
    assert check_content(film(tmp_path), "CXR") == ()
    volume = np.random.default_rng(0).integers(0, 2000, (3, 40, 40)).astype(np.int16)  # -1024 to 976 HU
    assert check_content(read_one(ct_slice(tmp_path / "slice.dcm", volume[0])), "CT") == ()
    ct_series(tmp_path / "series", volume)
    assert check_content(read_one(tmp_path / "series"), "CT") == ()
    assert check_content(image_from_array(FILM), "CXR") == ()


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"BurnedInAnnotation": "YES"}, "Text is burned into the pixels"),
        ({"PresentationIntentType": "FOR PROCESSING"}, "The film is FOR PROCESSING"),
        ({"SOPClassUID": uid.DigitalXRayImageStorageForProcessing}, "The film is FOR PROCESSING"),
        ({"ViewPosition": "LL"}, "This is a lateral view"),
        ({"ViewPosition": None, "PatientOrientation": ["A", "F"]}, "This is a lateral view"),
        ({"ImagerPixelSpacing": ["80", "80"]}, "The pixel spacing cannot be right: 80 x 80 mm make an image of 5120 x"),
        ({"PhotometricInterpretation": "MONOCHROME1"}, "Black and white look exchanged"),
        ({"RescaleSlope": "1", "RescaleIntercept": "-1024"}, "Its values go down to -1024, as those of CT do"),
    ],
)
def test_what_a_film_is_not_as_it_should_be_is_one_sentence(tmp_path, attributes, words):
    (sentence,) = check_content(film(tmp_path, **attributes), "CXR")
    assert sentence.startswith(words)


def test_a_screenshot_is_told_from_a_scanned_film(tmp_path):
    (sentence,) = check_content(read_one(capture(tmp_path / "a.dcm", FILM)), "CXR")
    assert sentence.startswith("This is a Secondary Capture, such as a screenshot")
    assert check_content(read_one(capture(tmp_path / "b.dcm", FILM, ConversionType="DF")), "CXR") == ()


def test_a_ct_without_air_or_with_pixels_that_no_scanner_has_is_said(tmp_path):
    pixels = np.full((40, 40), 1000, np.uint16)
    (sentence,) = check_content(read_one(ct_slice(tmp_path / "a.dcm", pixels)), "CT")
    assert sentence.startswith("Nothing in the middle slice is as dark as air (-500 HU or less)")
    fine = read_one(ct_slice(tmp_path / "b.dcm", np.zeros((40, 40), np.uint16), spacing=(0.01, 0.01)))
    (sentence,) = check_content(fine, "CT")
    assert sentence.startswith("The pixel spacing cannot be right: 0.01 x 0.01 mm")


def test_a_film_that_looks_inverted_is_said_in_every_storage_and_a_flat_one_is_not():
    for image in (image_from_array(255 - FILM), replace(image_from_array(FILM), slope=-1.0)):
        (sentence,) = check_content(image, "CXR")
        assert sentence.startswith("Black and white look exchanged")
    assert check_content(replace(image_from_array(255 - FILM), black_is_high=True), "CXR") == ()
    assert check_content(image_from_array(np.zeros((9, 11), np.uint8)), "CXR") == ()


def test_one_slice_of_hu_without_a_modality_is_enlarged_as_ct(tmp_path):
    hu = np.random.default_rng(0).normal(-600, 200, (48, 40, 1)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(hu, np.diag([0.7, 0.7, 1.0, 1.0])), tmp_path / "slice.nii")
    image = read_one(tmp_path / "slice.nii")
    assert (image.modality, choose_bundle(image).name) == ("CT", "chest_ct_blind")
    # It was trained on single slices, too; the flow on volumes alone.
    for name, count in (("chest_ct_blind", 0), ("chest_ct_residual_flow_x4", 1)):
        warnings = Session(choose_bundle(image, name)).check(image).warnings
        assert sum(warning.startswith("A single slice") for warning in warnings) == count


@pytest.mark.parametrize("name", ["film.png", "film.jpg", "film.tif", "film.nii", "film.dcm"])
def test_a_result_that_is_enlarged_again_is_said_and_its_source_is_not(tmp_path, name):
    path = tmp_path / name
    if name == "film.dcm":
        radiograph(path, TWELVE_BITS, **MONOCHROME2)
    elif name == "film.nii":
        nibabel.save(nibabel.Nifti1Image(FILM[..., None], np.diag([0.7, 0.7, 1.0, 1.0])), path)
    else:
        Picture.fromarray(FILM).save(path)
    words = "This is a result of this program"
    first = enhance(path, "bicubic")
    assert not any(warning.startswith(words) for warning in first.warnings)
    again = read_one(first.save(tmp_path / f"again{path.suffix}"))
    assert [sentence for sentence in check_content(again, "CXR") if sentence.startswith(words)]
