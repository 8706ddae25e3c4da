"""NIfTI in and out: exact numbers, exact positions (checked with SimpleITK), and every kind of damaged file."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from monai_sr_bundle.errors import InputError, OutputError
from monai_sr_bundle.images.geometry import UNKNOWN, crop_affine, scale_affine
from monai_sr_bundle.images.given_spacing import with_spacing
from monai_sr_bundle.images.image import Image
from monai_sr_bundle.images.nifti import is_nifti, read_nifti, write_nifti

from tests.images.dicom_files import enlarged, provenance

SCALE = (2, 4, 4)


def oblique() -> np.ndarray:
    """A RAS affine with three turned axes, a left-handed one among them, and uneven spacing."""
    a, b = 0.3, -0.5
    turn_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    turn_z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn_x @ turn_z @ np.diag([-0.7, 0.8, 2.5])
    affine[:3, 3] = (120.5, -80.25, -412.125)
    return affine


def save(path: Path, data: np.ndarray, affine: np.ndarray | None = None, **fields: object) -> Path:
    """Write data ``[i, j, k]`` with raw header fields; codes 1 and millimetres unless they say otherwise."""
    image = nibabel.Nifti1Image(data, np.eye(4) if affine is None else affine)
    image.header.set_xyzt_units("mm")
    image.set_qform(image.affine, 1)
    image.set_sform(image.affine, 1)
    data_bytes = np.asfortranarray(data).tobytes(order="F")
    header = image.header
    header["vox_offset"] = 352
    for name, value in fields.items():
        header[name] = value
    raw = header.binaryblock + b"\0" * 4 + data_bytes
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


def volume(dtype: type = np.int16) -> np.ndarray:
    return np.random.default_rng(0).integers(-100, 100, (7, 6, 5)).astype(dtype)


def landmark_mm(path: Path, value: int) -> np.ndarray:
    """Centre of mass (LPS mm) of all samples with one value, by another library."""
    image = sitk.ReadImage(str(path))
    index = np.argwhere(sitk.GetArrayFromImage(image) == value).mean(axis=0)[::-1]
    return np.array(image.TransformContinuousIndexToPhysicalPoint([float(v) for v in index]))


def write_enlarged(image: Image, out: Path, scale: tuple[int, int, int] = SCALE) -> nibabel.Nifti1Image:
    """Enlarge an image, write it, and return what nibabel reads."""
    write_nifti(enlarged(image, scale), provenance(scale_zyx=scale), out)
    return nibabel.load(out)


RANGES = {
    np.uint8: (0, 255), np.int8: (-128, 127), np.int16: (-32768, 32767), np.uint16: (0, 65535),
    np.int32: (-(2**31), 2**31 - 1), np.float32: None, np.float64: None,
}  # fmt: skip


@pytest.mark.parametrize("name", ["volume.nii", "volume.nii.gz"])
@pytest.mark.parametrize("dtype", RANGES)
def test_samples_and_type_survive_exactly(tmp_path: Path, name: str, dtype: type):
    stored = volume(dtype)
    image = read_nifti(save(tmp_path / "in.nii", stored))
    assert (image.pixels.dtype, image.stored_range, image.bits) == (dtype, RANGES[dtype], 8 * np.dtype(dtype).itemsize)
    np.testing.assert_array_equal(image.pixels, stored.T)
    written = write_enlarged(image, tmp_path / name, (1, 2, 2))
    assert written.get_data_dtype() == dtype
    np.testing.assert_array_equal(np.asanyarray(written.dataobj)[::2, ::2], stored)


@pytest.mark.parametrize(("qform_code", "sform_code"), [(1, 0), (0, 1), (1, 1)])
def test_a_landmark_of_an_oblique_volume_keeps_its_position(tmp_path: Path, qform_code: int, sform_code: int):
    data = np.zeros((9, 8, 7), np.int16)
    data[6, 2, 5] = 1000
    source, out = tmp_path / "in.nii.gz", tmp_path / "out.nii.gz"
    image = read_nifti(save(source, data, oblique(), qform_code=qform_code, sform_code=sform_code))
    write_enlarged(image, out)
    np.testing.assert_allclose(landmark_mm(out, 1000), landmark_mm(source, 1000), atol=1e-3)
    np.testing.assert_allclose(landmark_mm(source, 1000), (image.grid.affine @ [6, 2, 5, 1])[:3], atol=1e-3)


def test_nifti_2_stays_nifti_2(tmp_path: Path):
    nibabel.save(nibabel.Nifti2Image(volume(), oblique()), tmp_path / "in.nii")
    image = read_nifti(tmp_path / "in.nii")
    np.testing.assert_array_equal(image.pixels, volume().T)
    written = write_enlarged(image, tmp_path / "out.nii")
    assert isinstance(written, nibabel.Nifti2Image)
    np.testing.assert_allclose(written.affine, scale_affine(oblique(), SCALE[::-1]), atol=1e-9)


@pytest.mark.parametrize(("qform_code", "sform_code"), [(1, 0), (0, 1), (0, 2), (1, 1), (2, 4)])
def test_codes_stay_as_they_were(tmp_path: Path, qform_code: int, sform_code: int):
    path = save(tmp_path / "in.nii", volume(), oblique(), qform_code=qform_code, sform_code=sform_code)
    image = read_nifti(path)
    np.testing.assert_allclose(image.grid.affine, np.diag([-1, -1, 1, 1]) @ oblique(), atol=1e-4)
    header = write_enlarged(image, tmp_path / "out.nii").header
    assert (header["qform_code"], header["sform_code"]) == (qform_code, sform_code)
    expected = scale_affine(oblique(), SCALE[::-1])
    if qform_code:
        np.testing.assert_allclose(header.get_qform(), expected, atol=1e-3)
    if sform_code:
        np.testing.assert_allclose(header.get_sform(), expected, atol=1e-3)
    np.testing.assert_allclose(header.get_zooms(), [0.7 / 4, 0.8 / 4, 2.5 / 2], rtol=1e-6)


def test_a_sheared_sform_stays_sheared(tmp_path: Path):
    sheared = oblique()
    sheared[1, 2] += 0.9  # gantry tilt: no quaternion can say this
    image = read_nifti(save(tmp_path / "in.nii", volume(), sheared, qform_code=0))
    header = write_enlarged(image, tmp_path / "out.nii").header
    assert (header["qform_code"], header["sform_code"]) == (0, 1)
    np.testing.assert_allclose(header.get_sform(), scale_affine(sheared, SCALE[::-1]), atol=1e-3)


def test_different_sform_and_qform_are_both_scaled(tmp_path: Path):
    source = nibabel.Nifti1Image(volume(), oblique())
    source.header.set_xyzt_units("mm")
    template = np.diag([2.0, 2.0, 2.0, 1.0])
    source.set_qform(oblique(), 1)
    source.set_sform(template, 4)
    nibabel.save(source, tmp_path / "in.nii")
    image = read_nifti(tmp_path / "in.nii")
    assert any("sform and qform lie up to" in note for note in image.notes)
    header = write_enlarged(image, tmp_path / "out.nii").header
    np.testing.assert_allclose(header.get_sform(), scale_affine(template, SCALE[::-1]), atol=1e-3)
    np.testing.assert_allclose(header.get_qform(), scale_affine(oblique(), SCALE[::-1]), atol=1e-3)


def test_a_region_lies_where_it_was_cut(tmp_path: Path):
    image = read_nifti(save(tmp_path / "in.nii", volume(), oblique()))
    region = replace(image, pixels=image.pixels[:, 2:5, 1:6], grid=image.grid.cropped((0, 2, 1), (5, 3, 5)))
    written = write_enlarged(region, tmp_path / "out.nii", (1, 2, 2))
    expected = scale_affine(crop_affine(oblique(), (1, 2, 0)), (2, 2, 1))
    np.testing.assert_allclose(written.affine, expected, atol=1e-3)


def test_slope_and_intercept_stay_beside_the_stored_numbers(tmp_path: Path):
    image = read_nifti(save(tmp_path / "in.nii", volume(), scl_slope=0.5, scl_inter=-1000))
    assert (image.slope, image.intercept) == (0.5, -1000.0)
    np.testing.assert_array_equal(image.pixels, volume().T)
    written = write_enlarged(image, tmp_path / "out.nii", (1, 2, 2))
    np.testing.assert_array_equal(written.get_fdata()[::2, ::2], volume() * 0.5 - 1000)


def test_big_endian_stays_big_endian(tmp_path: Path):
    header = nibabel.Nifti1Header(endianness=">")
    header.set_data_dtype(np.int16)
    header.set_data_shape((7, 6, 5))
    header.set_sform(oblique(), 1)
    header.set_xyzt_units("mm")
    (tmp_path / "in.nii").write_bytes(header.binaryblock + b"\0" * 4 + volume().astype(">i2").tobytes(order="F"))
    image = read_nifti(tmp_path / "in.nii")
    assert image.pixels.dtype == np.dtype("=i2")
    np.testing.assert_array_equal(image.pixels, volume().T)
    written = write_enlarged(image, tmp_path / "out.nii", (1, 2, 2))
    assert written.header.endianness == ">"
    np.testing.assert_array_equal(np.asanyarray(written.dataobj)[::2, ::2], volume())


def test_other_header_fields_are_kept_and_descrip_names_the_method(tmp_path: Path):
    path = save(tmp_path / "in.nii", volume(), cal_max=300.0, intent_name=b"kept", aux_file=b"aux", slice_end=4)
    header = write_enlarged(read_nifti(path), tmp_path / "out.nii").header
    assert (header["cal_max"], header["intent_name"], header["aux_file"]) == (300.0, b"kept", b"aux")
    assert header["slice_end"] == 0
    assert header["descrip"].item() == b"Super-resolution x2 along the slices, chest_test_x4 1.2.3. Not for diagnosis."
    long_name = replace(provenance(scale_zyx=SCALE), bundle="chest_with_a_very_long_name_indeed_x2" * 3)
    write_nifti(enlarged(read_nifti(path), SCALE), long_name, tmp_path / "out.nii")
    assert len(nibabel.load(tmp_path / "out.nii").header["descrip"].item()) == 79


def test_equal_results_are_equal_files_and_the_input_is_untouched(tmp_path: Path):
    path = save(tmp_path / "in.nii.gz", volume(), oblique())
    before = path.read_bytes()
    for name in ("a.nii.gz", "b.nii.gz"):
        write_enlarged(read_nifti(path), tmp_path / name)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    assert (tmp_path / "a.nii.gz").read_bytes()[4:8] == bytes(4)  # no time of writing
    assert path.read_bytes() == before


@pytest.mark.parametrize(("unit", "mm"), [("meter", 1000.0), ("micron", 0.001)])
def test_other_units_become_millimetres_and_go_back(tmp_path: Path, unit: str, mm: float):
    source = nibabel.Nifti1Image(volume(), np.diag([0.5, 0.25, 2.0, 1.0]))
    source.header.set_xyzt_units(unit)
    nibabel.save(source, tmp_path / "in.nii")
    image = read_nifti(tmp_path / "in.nii")
    np.testing.assert_allclose(image.grid.spacing_xyz, np.array([0.5, 0.25, 2.0]) * mm)
    header = write_enlarged(image, tmp_path / "out.nii", (1, 2, 2)).header
    assert header.get_xyzt_units()[0] == unit
    np.testing.assert_allclose(header.get_zooms(), [0.25, 0.125, 2.0])


def test_an_unstated_unit_is_taken_as_millimetres_with_a_note(tmp_path: Path):
    image = read_nifti(save(tmp_path / "in.nii", volume(), oblique(), xyzt_units=0))
    assert image.grid.spacing_source == "NIfTI sform, unit not stated, millimetres assumed"
    assert image.grid.in_millimetres
    assert any("states no unit" in note for note in image.notes)


def test_without_codes_only_the_spacing_is_kept(tmp_path: Path):
    path = save(tmp_path / "in.nii", volume(), np.diag([0.5, 0.25, 2.0, 1.0]), qform_code=0, sform_code=0)
    image = read_nifti(path)
    assert image.grid.spacing_xyz == (0.5, 0.25, 2.0)
    assert image.grid.spacing_source == "NIfTI pixdim"
    assert any("no position or orientation" in note for note in image.notes)
    header = write_enlarged(image, tmp_path / "out.nii", (1, 2, 2)).header
    assert (header["qform_code"], header["sform_code"]) == (0, 0)
    np.testing.assert_allclose(header.get_zooms(), [0.25, 0.125, 2.0])


@pytest.mark.parametrize("zoom", [0.0, np.nan])
def test_missing_spacing_is_called_unknown(tmp_path: Path, zoom: float):
    path = save(tmp_path / "in.nii", volume(), qform_code=0, sform_code=0, pixdim=[1, zoom, 1, 1, 1, 1, 1, 1])
    image = read_nifti(path)
    assert image.grid.spacing_source == UNKNOWN
    assert image.grid.spacing_xyz == (1, 1, 1)
    assert image.notes == ()  # the engine says it, once for all formats
    write_enlarged(image, tmp_path / "out.nii", (1, 2, 2))
    assert read_nifti(tmp_path / "out.nii").grid.spacing_source == UNKNOWN


def test_a_spacing_given_by_the_user_is_written(tmp_path: Path):
    path = save(tmp_path / "in.nii", volume(), qform_code=0, sform_code=0, pixdim=[1, 0, 0, 0, 1, 1, 1, 1])
    image = read_nifti(path)
    written = write_enlarged(with_spacing(image, (0.8, 0.6)), tmp_path / "out.nii", (1, 2, 2))
    np.testing.assert_allclose(written.header.get_zooms(), [0.3, 0.4, 1.0], rtol=1e-6)


def test_a_broken_sform_gives_way_to_the_qform_and_an_impossible_qform_to_the_spacing(tmp_path: Path):
    image = read_nifti(save(tmp_path / "in.nii", volume(), oblique(), srow_x=[0, 0, 0, 0]))
    assert image.grid.spacing_source == "NIfTI qform"
    assert any("Its sform is not a grid" in note for note in image.notes)
    np.testing.assert_allclose(image.grid.affine, np.diag([-1, -1, 1, 1]) @ oblique(), atol=1e-4)
    written = write_enlarged(image, tmp_path / "out.nii")
    assert written.header["sform_code"] == 0
    np.testing.assert_allclose(written.affine, scale_affine(oblique(), SCALE[::-1]), atol=1e-3)
    image = read_nifti(save(tmp_path / "in.nii", volume(), oblique(), sform_code=0, quatern_b=3.0))
    assert any("Its qform is not a grid" in note for note in image.notes)
    assert image.grid.spacing_source == "NIfTI pixdim"


def test_a_qform_of_unset_handedness_is_right_handed(tmp_path: Path):
    pixdim = [0, 0.5, 0.25, 2, 0, 0, 0, 0]
    image = read_nifti(save(tmp_path / "in.nii", volume(), oblique(), sform_code=0, pixdim=pixdim))
    assert image.grid.spacing_source == "NIfTI qform"
    header = write_enlarged(image, tmp_path / "out.nii").header
    assert header["qform_code"] == 1
    source, result = (sitk.ReadImage(str(tmp_path / name)) for name in ("in.nii", "out.nii"))
    corners = (each.TransformContinuousIndexToPhysicalPoint((-0.5, -0.5, -0.5)) for each in (source, result))
    np.testing.assert_allclose(*corners, atol=1e-3)


def test_a_flat_file_is_one_slice_and_stays_flat_and_axes_of_one_sample_are_dropped(tmp_path: Path):
    flat = volume()[:, :, 0]
    image = read_nifti(save(tmp_path / "in.nii", flat, pixdim=[1, 0.5, 0.5, 0, 0, 0, 0, 0], sform_code=0))
    assert image.grid.shape_zyx == (1, 6, 7)
    assert image.grid.spacing_xyz == (0.5, 0.5, 1.0)
    assert write_enlarged(image, tmp_path / "out.nii", (1, 2, 2)).shape == (14, 12)
    assert read_nifti(save(tmp_path / "in.nii", volume()[..., None, None])).grid.shape_zyx == (5, 6, 7)


def test_an_image_with_air_is_ct_and_any_other_is_unknown(tmp_path: Path):
    air = volume()
    air[0, 0, 0] = -900
    assert read_nifti(save(tmp_path / "ct.nii", air)).modality == "CT"
    assert read_nifti(save(tmp_path / "ct.nii", volume(), scl_slope=1, scl_inter=-900)).modality == "CT"
    assert read_nifti(save(tmp_path / "other.nii", volume())).modality == "unknown"
    assert read_nifti(save(tmp_path / "slice.nii", air[:, :, :1])).modality == "CT"
    assert read_nifti(save(tmp_path / "flat.nii", volume()[:, :, :1])).modality == "unknown"


def test_extensions_are_left_out_with_a_note(tmp_path: Path):
    source = nibabel.Nifti1Image(volume(), oblique())
    source.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"shape 7 6 5"))
    nibabel.save(source, tmp_path / "in.nii")
    image = read_nifti(tmp_path / "in.nii")
    np.testing.assert_array_equal(image.pixels, volume().T)
    assert any("header extensions" in note for note in image.notes)
    assert len(write_enlarged(image, tmp_path / "out.nii").header.extensions) == 0


def test_nifti_is_recognised_by_content(tmp_path: Path):
    save(tmp_path / "plain", volume())
    (tmp_path / "packed").write_bytes(gzip.compress((tmp_path / "plain").read_bytes()))
    nibabel.save(nibabel.Nifti2Image(volume(), oblique()), tmp_path / "two.nii")
    (tmp_path / "text.nii").write_text("no image at all")
    (tmp_path / "text.nii.gz").write_bytes(gzip.compress(b"no image at all"))
    (tmp_path / "cut.nii.gz").write_bytes(gzip.compress(b"x" * 10_000)[:15])
    assert sorted(path.name for path in tmp_path.iterdir() if is_nifti(path)) == ["packed", "plain", "two.nii"]
    np.testing.assert_array_equal(read_nifti(tmp_path / "packed").pixels, volume().T)


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("in.nii", lambda raw: raw[: len(raw) // 2], r"in.nii: .*truncated NIfTI.*Get the file again"),
        ("in.nii.gz", lambda raw: gzip.compress(raw)[:3000], r"in.nii.gz: .*truncated NIfTI.*Get the file again"),
        # ends early but cleanly
        ("in.nii.gz", lambda raw: gzip.compress(raw[:3000]), r"truncated NIfTI: [\d,]+ of 65,536 bytes"),
        ("in.nii.gz", lambda raw: gzip.compress(raw)[:-8] + bytes(8), "damaged or truncated NIfTI"),  # wrong checksum
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, name: str, damage, message: str):
    data = np.random.default_rng(0).integers(0, 30000, (64, 64, 8)).astype(np.int16)
    (tmp_path / name).write_bytes(damage(save(tmp_path / "whole.nii", data).read_bytes()))
    with pytest.raises(InputError, match=message):
        read_nifti(tmp_path / name)


@pytest.mark.parametrize("name", ["in.nii", "in.nii.gz"])
def test_a_header_that_claims_too_much_is_refused_without_reading(tmp_path: Path, name: str):
    path = save(tmp_path / name, volume(), dim=[3, 30000, 30000, 30000, 1, 1, 1, 1])
    with pytest.raises(InputError, match="truncated NIfTI: 30000 x 30000 x 30000 int16 samples need"):
        read_nifti(path)


def test_half_of_a_pair_is_refused(tmp_path: Path):
    nibabel.save(nibabel.Nifti1Pair(volume(), np.eye(4)), tmp_path / "pair.img")
    assert is_nifti(tmp_path / "pair.hdr")
    with pytest.raises(InputError, match=r"pair\.hdr: one half of a NIfTI pair.*Convert"):
        read_nifti(tmp_path / "pair.hdr")


NOT_FINITE = np.concatenate([np.array([np.nan, np.inf, -np.inf]), np.zeros(207)]).astype(np.float32).reshape(7, 6, 5)


@pytest.mark.parametrize(
    ("data", "fields", "message"),
    [
        (np.zeros((4, 4, 4, 3), np.int16), {}, r"4 dimensions \(4, 4, 4, 3\), expected one image or volume"),
        (volume(), {"dim": [1, 210, 1, 1, 1, 1, 1, 1]}, "expected two or three numbers above 0"),
        (volume(), {"dim": [3, 7, 0, 5, 1, 1, 1, 1]}, "expected two or three numbers above 0"),
        (volume(), {"datatype": 128}, r"NIfTI datatype 128 \(NIFTI_TYPE_RGB24\), expected integers or floats"),
        (volume(), {"datatype": 32}, r"NIfTI datatype 32 \(NIFTI_TYPE_COMPLEX64\), expected integers or floats"),
        (volume(), {"datatype": 999}, r"NIfTI datatype 999 \(unknown\), expected integers or floats"),
        (NOT_FINITE, {}, "3 of 210 values are NaN or infinite"),
        (volume(), {"scl_slope": 2, "scl_inter": np.nan}, r"damaged or truncated NIfTI.*intercept"),
    ],
)
def test_data_that_is_no_grey_volume_is_refused(tmp_path: Path, data: np.ndarray, fields: dict, message: str):
    with pytest.raises(InputError, match=message):
        read_nifti(save(tmp_path / "in.nii", data, **fields))


def test_more_samples_than_nifti_1_can_count_are_refused(tmp_path: Path):
    image = read_nifti(save(tmp_path / "in.nii", np.zeros((2, 40, 1), np.uint8)))
    with pytest.raises(OutputError, match=r"2 x 40000 x 1 uint8 image does not fit.*--roi.*NIfTI-2"):
        write_enlarged(image, tmp_path / "out.nii", (1, 1000, 1))
