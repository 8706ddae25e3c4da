from dataclasses import replace

import nibabel
import numpy as np
import pydicom.uid as uid
import pytest
from monai_sr_bundle import enhance
from monai_sr_bundle.datasets.phantom import draw_phantom
from monai_sr_bundle.engine.session import EnhanceOptions, Session, choose_bundle
from monai_sr_bundle.errors import InputError
from monai_sr_bundle.images.from_array import image_from_array
from monai_sr_bundle.images.input_checks import check_content
from monai_sr_bundle.images.one_image import read_one
from PIL import Image as Picture
from pydicom import Dataset
from pydicom.sr._snomed_dict import mapping
from pydicom.sr.codedict import codes

from tests.images.dicom_files import capture, ct_series, ct_slice, radiograph

FILM = np.rint(255 * draw_phantom(64)).astype(np.uint8)
TWELVE_BITS = FILM.astype(np.uint16) * 16
LUNGS = np.where(np.hypot(*(np.mgrid[:40, :40] - 20)) % 16 < 10, 50, 1060)
CT = (LUNGS + np.random.default_rng(0).integers(-40, 40, (3, 40, 40))).astype(np.int16)
"""Rings of air and soft tissue with noise, as a CT stores them with 1024 added."""
MONOCHROME2 = {"PhotometricInterpretation": "MONOCHROME2"}


def film(path, pixels=TWELVE_BITS, **attributes):
    return read_one(radiograph(path / "film.dcm", pixels, **MONOCHROME2 | attributes))


def view(name, scheme="SCT"):
    """The item of a View Code Sequence, with the code that pydicom's dictionary of CID 4010 has."""
    item, code = Dataset(), getattr(codes.cid4010, name)
    item.CodeValue = code.value if scheme == "SCT" else mapping["SCT"][code.value]
    item.CodingSchemeDesignator, item.CodeMeaning = scheme, code.meaning
    return item


def test_an_ordinary_film_and_an_ordinary_ct_give_no_sentence(tmp_path):
    assert check_content(film(tmp_path), "CXR") == ()
    assert check_content(read_one(ct_slice(tmp_path / "slice.dcm", CT[0])), "CT") == ()
    ct_series(tmp_path / "series", CT)
    assert check_content(read_one(tmp_path / "series"), "CT") == ()
    assert check_content(image_from_array(FILM), "CXR") == ()


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"BurnedInAnnotation": "YES"}, "Text is burned into the pixels"),
        ({"PresentationIntentType": "FOR PROCESSING"}, "The film is FOR PROCESSING"),
        ({"SOPClassUID": uid.DigitalXRayImageStorageForProcessing}, "The film is FOR PROCESSING"),
        ({"ViewPosition": "LL"}, "This is a lateral view"),
        ({"ViewPosition": "RLAT"}, "This is a lateral view"),
        ({"ViewCodeSequence": [view("LateralProjection")]}, "This is a lateral view"),
        ({"ViewCodeSequence": [view("LeftLateral")]}, "This is a lateral view"),
        ({"ViewCodeSequence": [view("RightLateral")]}, "This is a lateral view"),
        ({"ViewCodeSequence": [view("LateralProjection", "SRT")]}, "This is a lateral view"),
        ({"ViewPosition": None, "PatientOrientation": ["A", "F"]}, "This is a lateral view"),
        ({"ImagerPixelSpacing": ["80", "80"]}, "The pixel spacing cannot be right: 80 x 80 mm make an image of 5120 x"),
        ({"PhotometricInterpretation": "MONOCHROME1"}, "Black and white look exchanged"),
        ({"RescaleSlope": "1", "RescaleIntercept": "-1024"}, "Its values go down to -1024, as in CT"),
    ],
)
def test_what_a_film_is_not_as_it_should_be_is_one_sentence(tmp_path, attributes, words):
    (sentence,) = check_content(film(tmp_path, **attributes), "CXR")
    assert sentence.startswith(words)


def test_a_screenshot_is_told_from_a_scanned_film(tmp_path):
    (sentence,) = check_content(read_one(capture(tmp_path / "a.dcm", FILM)), "CXR")
    assert sentence.startswith("This is a Secondary Capture, such as a screenshot")
    assert check_content(read_one(capture(tmp_path / "b.dcm", FILM, ConversionType="DF")), "CXR") == ()


@pytest.mark.parametrize("named", ["US", "MR", "MG", "CT"])
@pytest.mark.parametrize(
    "write",
    [
        lambda path, named: capture(path, FILM, Modality=named),
        lambda path, named: capture(path, np.stack([FILM, FILM]), Modality=named, RescaleSlope=None),
        lambda path, named: radiograph(path, TWELVE_BITS, "CR", Modality=named),
        lambda path, named: radiograph(path, TWELVE_BITS, "DX", Modality=named),
    ],
    ids=["capture", "frames", "CR", "DX"],
)
def test_a_file_that_names_another_modality_is_refused_unless_forced(tmp_path, write, named):
    image = read_one(write(tmp_path / "a.dcm", named))
    session = Session(choose_bundle(image))
    with pytest.raises(InputError) as caught:
        session.check(image)
    assert str(caught.value) == (
        f"a.dcm: this is {named}, but bundle chest_xray_blind is made for CXR (Modality CR, DX, RG, RF, DR, XR). "
        "Choose another image, or pass --force to use it nevertheless."
    )
    forced = session.check(image, EnhanceOptions(force=True)).warnings
    assert f"Bundle chest_xray_blind is made for CXR and was forced onto {named}." in forced
    assert not any("does not name" in sentence for sentence in forced)
    assert Session(choose_bundle(image, "bicubic")).check(image)  # which is made for any


@pytest.mark.parametrize("named", ["OT", "", None, "RG", "RF", "DR"])
def test_a_capture_of_no_named_modality_is_a_film_with_a_note_and_one_of_a_film_has_none(tmp_path, named):
    image = read_one(capture(tmp_path / "a.dcm", FILM, Modality=named, ConversionType="DF"))
    sentence = "The file does not name its modality; taken as a chest X-ray."
    assert (sentence in Session(choose_bundle(image)).check(image).warnings) == (named in ("OT", "", None))


def test_a_ct_without_air_or_with_pixels_that_no_scanner_has_is_said(tmp_path):
    pixels = np.full((40, 40), 1000, np.uint16)
    (sentence,) = check_content(read_one(ct_slice(tmp_path / "a.dcm", pixels)), "CT")
    assert sentence.startswith("Nothing in the middle slice is as dark as air (-500 HU or less)")
    fine = read_one(ct_slice(tmp_path / "b.dcm", CT[0], spacing=(0.01, 0.01)))
    (sentence,) = check_content(fine, "CT")
    assert sentence.startswith("The pixel spacing cannot be right: 0.01 x 0.01 mm")


@pytest.mark.parametrize("offset", [1024, 1000])
def test_a_ct_that_is_called_a_radiograph_is_noticed_by_its_values(tmp_path, offset):
    stored = np.clip(CT[0] - 1024 + offset, 0, 4095).astype(np.uint16)
    (sentence,) = check_content(read_one(radiograph(tmp_path / "a.dcm", stored, "CR", **MONOCHROME2)), "CXR")
    assert sentence == "Its values are those of air and soft tissue plus 1024, as in CT: it may be no radiograph."


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_a_radiograph_that_is_called_a_ct_is_noticed_by_its_values_and_elsewhere_is_no_ct(tmp_path, bits):
    stored = (FILM.astype(np.uint16) << bits - 8).astype(np.uint16)
    attributes = {"BitsStored": bits, "HighBit": bits - 1}
    (sentence,) = check_content(read_one(ct_slice(tmp_path / "a.dcm", stored, **attributes)), "CT")
    assert sentence.startswith("Too little of the middle slice is air or soft tissue: its numbers are no HU")
    assert check_content(film(tmp_path, stored, **attributes), "CXR") == ()
    negative = (1 << bits) - 1 - stored
    monochrome1 = radiograph(tmp_path / "b.dcm", negative, "CR", **attributes)
    assert check_content(read_one(monochrome1), "CXR") == ()


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
    saved = read_one(first.save(tmp_path / f"again{path.suffix}"))
    assert [sentence for sentence in check_content(saved, "CXR") if sentence.startswith(words)]
