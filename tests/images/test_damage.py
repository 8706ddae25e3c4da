"""Damaged and odd files: each is read, or refused by a sentence that names it, within the memory there is."""

from __future__ import annotations

import gzip
import os
import signal
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import nibabel
import numpy as np
import pytest
from monai_sr_bundle.errors import InputError, OutOfMemoryError, SuperResolutionError, quote
from monai_sr_bundle.images import decoder_process, dicom_file, memory
from monai_sr_bundle.images.decoder_process import DecoderError, DecoderProcess
from monai_sr_bundle.images.dicom_file import series_key
from monai_sr_bundle.images.dicom_pixels import decode
from monai_sr_bundle.images.dicom_read import read_dicom
from monai_sr_bundle.images.dicom_write import write_dicom
from monai_sr_bundle.images.files import UnreadableFile, discover
from monai_sr_bundle.images.from_array import image_from_array
from monai_sr_bundle.images.one_image import read_one
from monai_sr_bundle.images.unit import check_pixels
from PIL import Image as Picture
from pydicom import dcmread, uid
from pydicom.data import get_testdata_file
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.pixels import get_decoder, pixel_array
from pydicom.tag import Tag

from tests.images.dicom_files import ct_slice, enlarged, phantom, provenance, radiograph, zipped

GDCM_ALONE = ("JPEGLSNearLossless_16.dcm", "JPEGLSNearLossless_08.dcm", "MR_small_jpeg_ls_lossless.dcm")


def shipped(name: str) -> Path:
    return Path(get_testdata_file(name, download=False))


def with_raw(file: Path, keyword: str, representation: str, value: bytes) -> Path:
    """Replace an element by bytes that pydicom would not write."""
    dataset = dcmread(file)
    tag = Tag(keyword)
    dataset._dict[tag] = RawDataElement(tag, representation, len(value), value, 0, False, True)
    dataset.save_as(file, enforce_file_format=False)
    return file


def read_and_write(file: Path) -> Path:
    image = read_dicom([file], file)
    check_pixels(image)
    (written,) = write_dicom(enlarged(image), provenance(), file.with_name("out.dcm"))
    return written


HARMLESS = {
    "a series number that is none": ("SeriesNumber", "IS", b"A1"),
    "a series number of two": ("SeriesNumber", "IS", b"1\\2 "),
    "no high bit": ("HighBit", "US", b""),
    "no samples per pixel": ("SamplesPerPixel", "US", b""),
    "an image type of numbers": ("ImageType", "IS", b"ORIGINAL"),
    "a spacing of many letters": ("ImagerPixelSpacing", "DS", b"007.812500e-01\\007.812500e-01 "),
    "a sequence that is a text": ("ContributingEquipmentSequence", "LO", b"none"),
    "bytes that are a text": ("UValueData", "UI", b"1.2.840.10008.1.2.1\0"),
    "a tag that is a text": ("FrameIncrementPointer", "LO", b"none"),
}


@pytest.mark.parametrize("what", HARMLESS)
def test_what_is_odd_and_harmless_stops_nobody(tmp_path, what):
    file = with_raw(radiograph(tmp_path / "film.dcm"), *HARMLESS[what])
    written = dcmread(read_and_write(file))
    assert (written.Rows, written.Columns) == (96, 80)


def test_a_text_of_another_type_takes_that_of_the_standard(tmp_path):
    file = with_raw(radiograph(tmp_path / "film.dcm"), "StationName", "LT", b"ROOM 2")
    written = dcmread(read_and_write(file))
    assert (written["StationName"].VR, written.StationName) == ("SH", "ROOM 2")


def test_an_empty_element_of_another_type_stays_empty(tmp_path):
    file = with_raw(radiograph(tmp_path / "film.dcm"), "PatientComments", "US", b"")
    written = dcmread(read_and_write(file))
    assert (written["PatientComments"].VR, written.PatientComments) == ("LT", "")


def test_an_element_of_a_message_is_left_out_of_the_result(tmp_path):
    file = radiograph(tmp_path / "film.dcm")
    data = file.read_bytes()
    start = data.index(b"\x08\x00\x08\x00CS")
    file.write_bytes(data[:start] + b"\x00\x00\x00\x10UI\x04\x001.2\x00" + data[start:])
    assert 0x00001000 not in dcmread(read_and_write(file))


@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process are POSIX's")
def test_the_process_of_a_decoder_gets_no_more_memory_than_its_limit():
    limit = "from monai_sr_bundle.images.decoder_process import _limit_memory; _limit_memory(64 * 1024**2); "
    for size, code in (("1024**2", 0), ("1024**3", 1)):
        done = subprocess.run([sys.executable, "-c", f"{limit} bytearray({size})"], capture_output=True, text=True)
        assert (done.returncode, "MemoryError" in done.stderr) == (code, bool(code)), done.stderr


def test_pixels_of_an_unknown_type_are_refused(tmp_path):
    file = radiograph(tmp_path / "film.dcm")
    file.write_bytes(file.read_bytes().replace(b"\xe0\x7f\x10\x00OW", b"\xe0\x7f\x10\x00OU"))
    with pytest.raises(InputError, match=r"film\.dcm: .* no readable pixel data follows"):
        read_and_write(file)


REFUSED = {
    "rows of two": ("Rows", "US", struct.pack("<2H", 24, 24), "Rows is [24, 24], expected one whole number"),
    "bits of a text": ("BitsStored", "LO", b"many", "BitsStored (0028,0101) is not readable"),
    "an endless number of frames": ("NumberOfFrames", "IS", b"inf ", "NumberOfFrames (0028,0008) is not readable"),
    "a slope of letters": ("RescaleSlope", "DS", b"one ", "RescaleSlope"),
    "an endless slope": ("RescaleSlope", "DS", b"1e400 ", "RescaleSlope is 1e400, expected a finite number"),
    "a slope that leaves nothing": ("RescaleSlope", "DS", b"1e-320", "slope above 1e-30"),
    "an enormous slope": ("RescaleSlope", "DS", b"1e300 ", "expected at most 1e+15"),
    "no pixel representation": ("PixelRepresentation", "US", b"", "PixelRepresentation is None"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_would_change_the_pixels_is_refused_by_name(tmp_path, what):
    keyword, representation, value, message = REFUSED[what]
    file = with_raw(radiograph(tmp_path / "film.dcm"), keyword, representation, value)
    with pytest.raises(InputError) as refused:
        read_and_write(file)
    assert message in str(refused.value)
    assert "film.dcm" in str(refused.value)


def test_a_message_repeats_two_hundred_letters_of_a_value_in_one_line(tmp_path):
    file = with_raw(radiograph(tmp_path / "film.dcm"), "PhotometricInterpretation", "CS", b"RGB\n" + b"A" * 60_000)
    with pytest.raises(InputError, match="is a colour image") as refused:
        read_dicom([file], file)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 600
    assert len(quote("A" * 1000)) == 200
    assert len(quote([[[["deep"] * 99] * 99] * 99])) == 200


def deflated(file: Path, pixels: np.ndarray | None = None) -> Path:
    return ct_slice(file, pixels, TransferSyntaxUID=uid.DeflatedExplicitVRLittleEndian)


def test_a_deflated_file_that_is_cut_off_is_refused(tmp_path):
    whole = deflated(tmp_path / "ct.dcm", np.random.default_rng(0).integers(-999, 999, (64, 64)).astype(np.int16))
    data = whole.read_bytes()
    for part in range(1, 10):
        truncated = tmp_path / "cut.dcm"
        truncated.write_bytes(data[: 340 + (len(data) - 340) * part // 10])
        with pytest.raises(InputError, match=r"cut\.dcm: "):
            read_dicom([truncated], truncated)


def test_a_deflated_file_beyond_the_memory_is_refused_before_it_is_inflated(tmp_path, monkeypatch):
    file = deflated(tmp_path / "ct.dcm", np.zeros((4096, 4096), np.int16))
    assert file.stat().st_size < 100_000
    monkeypatch.setattr(dicom_file, "free_memory", lambda: 10_000_000)
    monkeypatch.setattr(memory, "free_memory", lambda: 10_000_000)
    with pytest.raises(OutOfMemoryError, match=r"ct\.dcm: .* need [\d,]+ bytes of memory, and 10,000,000 are free"):
        series_key(file)
    with discover([tmp_path]) as (source,):  # the others of a folder are found
        assert source.files == (file,)


def test_a_deflated_file_that_holds_more_than_its_header_says_is_refused_in_little_memory(tmp_path):
    file, large = ct_slice(tmp_path / "ct.dcm", np.zeros((32, 32), np.int16)), 300_000_000
    dataset = dcmread(file)
    dataset.PixelData = bytes(large)
    dataset.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    dataset.save_as(file)
    assert file.stat().st_size < large / 900
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=r"^ct\.dcm: its deflated data hold more than 67,110,912 bytes"):
            read_dicom([file], file)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("keyword", "words"),
    [("SamplesPerPixel", ""), ("Columns", "holds no image"), ("PhotometricInterpretation", "is a colour image")],
)
def test_what_a_deflated_header_lacks_is_taken_or_told_as_of_any_other(tmp_path, keyword, words):
    for syntax in (uid.ExplicitVRLittleEndian, uid.DeflatedExplicitVRLittleEndian):
        attributes = {"TransferSyntaxUID": syntax, keyword: None}
        file = ct_slice(tmp_path / "ct.dcm", np.zeros((32, 32), np.int16), **attributes)
        if words:
            with pytest.raises(InputError, match=words):
                read_dicom([file], file)
        else:
            assert read_dicom([file], file).pixels.shape == (1, 32, 32)


def test_a_header_beyond_the_memory_is_refused(tmp_path, monkeypatch):
    def take_too_much(*_: object, **__: object) -> None:
        raise MemoryError

    file = radiograph(tmp_path / "film.dcm")
    monkeypatch.setattr(dicom_file, "dcmread", take_too_much)
    monkeypatch.setattr(dicom_file, "free_memory", lambda: 100)
    with pytest.raises(OutOfMemoryError, match=r"^film\.dcm: does not fit into the memory\. Close other programs\.$"):
        dicom_file.read_file(file, stop_before_pixels=True)
    monkeypatch.setattr(dicom_file, "free_memory", lambda: 10**9)  # so it is the file that asks for what it has not
    with pytest.raises(InputError, match=r"^film\.dcm: cannot be read as DICOM \(MemoryError\); it is damaged"):
        dicom_file.read_file(file, stop_before_pixels=True)


def test_a_picture_whose_decoder_gets_no_memory_is_refused(tmp_path, monkeypatch):
    def take_too_much(_: object) -> None:
        raise MemoryError

    Picture.new("L", (40, 40)).save(tmp_path / "film.png")
    monkeypatch.setattr(Picture.Image, "load", take_too_much)
    with pytest.raises(OutOfMemoryError, match=r"^film\.png: does not fit into the memory\. Close other programs\.$"):
        read_one(tmp_path / "film.png")


def test_a_gzipped_volume_beyond_the_memory_is_refused_before_it_is_inflated(tmp_path, monkeypatch):
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape((512, 512, 100))
    file = tmp_path / "volume.nii.gz"
    file.write_bytes(gzip.compress(header.binaryblock + bytes(4 + 2 * 512 * 512 * 100)))
    monkeypatch.setattr(memory, "free_memory", lambda: 10_000_000)
    with pytest.raises(OutOfMemoryError, match=r"volume\.nii\.gz: its 512 x 512 x 100 samples need"):
        read_one(file)


def test_a_picture_beyond_the_memory_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    file = tmp_path / "film.png"
    Picture.new("L", (4000, 4000)).save(file)
    monkeypatch.setattr(memory, "free_memory", lambda: 10_000_000)
    with pytest.raises(OutOfMemoryError, match=r"film\.png: its 4000 x 4000 pixels need"):
        read_one(file)


def test_frames_that_no_run_lengths_can_hold_are_refused(tmp_path):
    file = radiograph(tmp_path / "film.dcm")
    dataset = dcmread(file)
    dataset.compress(uid.RLELossless, generate_instance_uid=False)
    dataset.Rows = dataset.Columns = 65535
    dataset.save_as(file)
    with pytest.raises(InputError, match=r"film\.dcm: the pixel data is cut off"):
        read_dicom([file], file)


@pytest.mark.parametrize("size", [4, 345, 400, 539])
def test_a_nifti_2_that_ends_in_its_header_is_refused(tmp_path, size):
    file = tmp_path / "x.nii"
    file.write_bytes(nibabel.Nifti2Image(np.zeros((9, 9, 3), np.int16), np.eye(4)).to_bytes()[:size])
    with pytest.raises(InputError, match=r"x\.nii: "):
        read_one(file)


def test_a_zip_whose_directory_points_elsewhere_is_refused(tmp_path):
    path = zipped(tmp_path / "x.zip", [ct_slice(tmp_path / "ct.dcm")])
    data = bytearray(path.read_bytes())
    start = data.index(b"PK\x01\x02") + 42
    data[start : start + 4] = struct.pack("<I", 2**31 - 1)
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"x\.zip: damaged zip"):
        read_one(path)


@pytest.mark.parametrize("value", [1e16, 3e38])
def test_an_array_of_enormous_values_is_refused(value):
    with pytest.raises(InputError, match="its values reach"):
        check_pixels(image_from_array(np.full((9, 9), value, np.float32)))


@pytest.mark.parametrize("name", [*GDCM_ALONE, "MR_small_jp2klossless.dcm", "JPEG2000.dcm"])
def test_what_is_decoded_in_another_process_has_the_numbers_of_the_decoder(name):
    dataset = dcmread(shipped(name))
    with DecoderProcess() as process:
        pixels, _ = decode(dataset, shipped(name), process)
    plugin = "gdcm" if name in GDCM_ALONE else "pylibjpeg"
    np.testing.assert_array_equal(pixels[0], pixel_array(dataset, raw=True, decoding_plugin=plugin))


@pytest.mark.skipif(
    sys.platform == "win32",
    reason="WINDOWS: nothing bounds the memory of a decoder, so read only files that you trust there",
)
def test_jpeg_2000_that_states_a_larger_image_than_its_header_takes_no_memory():
    import resource

    dataset = dcmread(shipped("MR_small_jp2klossless.dcm"))
    size = struct.pack(">I", 16_000)
    start = dataset.PixelData.index(b"\xff\x4f\xff\x51") + 8  # Xsiz, Ysiz, XOsiz, YOsiz, XTsiz, YTsiz
    larger = 2 * size + dataset.PixelData[start + 8 : start + 16] + 2 * size
    dataset.PixelData = dataset.PixelData[:start] + larger + dataset.PixelData[start + 24 :]
    peaks = {who: resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)}
    with DecoderProcess() as process, pytest.raises(InputError, match="x.dcm: the pixel data .* cannot be decoded"):
        decode(dataset, Path("x.dcm"), process)
    for who, peak in peaks.items():
        assert resource.getrusage(who).ru_maxrss <= max(peak, 2 * decoder_process.SPARE_BYTES / 1024)


def test_the_decoder_imports_no_module_that_lies_in_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "json.py").write_text("raise SystemExit")
    monkeypatch.chdir(tmp_path)
    dataset = dcmread(shipped(GDCM_ALONE[0]))
    with DecoderProcess() as process:
        decode(dataset, Path("x.dcm"), process)


def test_one_process_decodes_all_slices_and_ends_with_the_image():
    dataset = dcmread(shipped("JPEGLSNearLossless_16.dcm"))
    with DecoderProcess() as process:
        for _ in range(3):
            decode(dataset, Path("x.dcm"), process)
        started = process._process
        assert started is not None
        assert started.poll() is None
    assert started.poll() is not None


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("JPGExtended.dcm", r"JPEG Extended .* needs a decoder that is not installed. .*\[jpeg\]"),
        (GDCM_ALONE[0], "cannot be decoded, it is damaged"),
    ],
)
def test_a_missing_decoder_of_12_bit_lossy_jpeg_is_named_for_such_files_alone(monkeypatch, name, words):
    def refuse(*_: object) -> None:
        raise DecoderError("no decoder")

    monkeypatch.setattr(DecoderProcess, "decode", refuse)
    monkeypatch.setattr(get_decoder(uid.JPEGExtended12Bit), "_available", {})
    with pytest.raises(InputError, match=words):
        read_dicom([shipped(name)], shipped(name))


def test_a_decoder_that_aborts_costs_its_file_and_no_other():
    dataset = dcmread(shipped("JPEGLSNearLossless_16.dcm"))
    with DecoderProcess() as process:
        decode(dataset, Path("good.dcm"), process)
        os.kill(process._process.pid, signal.SIGABRT)
        process._process.wait()
        with pytest.raises(InputError, match=r"bad\.dcm: the pixel data .*the decoder ended unexpectedly"):
            decode(dataset, Path("bad.dcm"), process)
        decode(dataset, Path("next.dcm"), process)


def test_a_decoder_that_never_answers_is_ended(monkeypatch):
    monkeypatch.setattr(decoder_process, "SECONDS", 0.5)
    dataset = dcmread(shipped("JPEGLSNearLossless_16.dcm"))
    with DecoderProcess() as process:
        os.kill(process._start().pid, signal.SIGSTOP)
        with pytest.raises(InputError, match=r"bad\.dcm: .*the decoder took more than \d+ s"):
            decode(dataset, Path("bad.dcm"), process)


def test_a_decoder_that_wants_more_memory_than_the_pixels_need_is_refused(monkeypatch):
    monkeypatch.setattr(decoder_process, "SPARE_BYTES", -(2**40))
    with DecoderProcess() as process, pytest.raises(DecoderError):
        process.decode(b"\0" * 5_000_000, {"syntax": str(uid.JPEGLSLossless), "decoding_plugin": "gdcm"}, 1)


def test_a_damaged_file_of_a_folder_is_told_and_the_others_are_found(tmp_path):
    radiograph(tmp_path / "good.dcm")
    truncated = deflated(tmp_path / "bad.dcm")
    truncated.write_bytes(truncated.read_bytes()[:400])
    unreadable: list[UnreadableFile] = []
    with discover([tmp_path], unreadable) as sources:
        names = {source.name for source in sources} | {file.name for file in unreadable}
        assert names == {"good.dcm", "bad.dcm"}
        for source in sources:
            if source.name == "bad.dcm":
                with pytest.raises(SuperResolutionError, match=r"bad\.dcm"):
                    read_dicom(source.files, source.files[0])


def test_pixels_and_tables_of_a_big_endian_file_are_turned_around(tmp_path):
    file = ct_slice(tmp_path / "ct.dcm")
    big = Dataset()
    big.update({element.tag: element for element in dcmread(file)})
    table = Dataset()
    table.LUTDescriptor = [3, 0, 16]
    table.add_new("LUTData", "OW", np.array([1, 2, 3], ">u2").tobytes())
    big.VOILUTSequence = [table]
    big.PixelData = phantom()[0].astype(">i2").tobytes()
    big.file_meta = dcmread(file).file_meta
    big.file_meta.TransferSyntaxUID = uid.ExplicitVRBigEndian
    big.save_as(file, enforce_file_format=True)
    written = dcmread(read_and_write(file))
    np.testing.assert_array_equal(written.pixel_array[::4, ::4], phantom()[0])
    assert written.VOILUTSequence[0]["LUTData"].value == np.array([1, 2, 3], "<u2").tobytes()
