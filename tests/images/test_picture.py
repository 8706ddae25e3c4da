"""PNG, JPEG and TIFF in and out: exact numbers and resolution tags, checked by other readers where they exist."""

from __future__ import annotations

import contextlib
import struct
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import SimpleITK as sitk
import tifffile
from monai_sr_bundle.errors import InputError, OutputError
from monai_sr_bundle.images.geometry import RESOLUTION_TAG, UNKNOWN
from monai_sr_bundle.images.picture import read_picture, write_picture
from PIL import ImageOps
from PIL.PngImagePlugin import PngInfo

from tests.images.dicom_files import enlarged, provenance

SCALE = (1, 2, 4)
SUFFIXES = (".png", ".jpg", ".tif")


def grey(dtype: type = np.uint8, rows: int = 12, columns: int = 9) -> np.ndarray:
    limits = np.iinfo(dtype)
    pixels = np.random.default_rng(1).integers(0, limits.max, (rows, columns), endpoint=True).astype(dtype)
    pixels[0, 0], pixels[0, 1] = 0, limits.max
    return pixels


def save(path: Path, pixels: np.ndarray, **options: object) -> Path:
    PIL.Image.fromarray(pixels).save(path, **options)
    return path


def save_tiff(path: Path, pixels: np.ndarray, photometric: str = "minisblack", **options: object) -> Path:
    tifffile.imwrite(path, pixels, photometric=photometric, **options)
    return path


def enlarge_file(path: Path, out: Path) -> Path:
    write_picture(enlarged(read_picture(path), SCALE), provenance(scale_zyx=SCALE), out)
    return out


def png_chunk(path: Path, name: bytes) -> bytes:
    """The body of the first chunk of that name, by the PNG specification, its sum checked."""
    data, at = path.read_bytes(), 8
    while at < len(data):
        (length,), kind = struct.unpack_from(">I", data, at), data[at + 4 : at + 8]
        body = data[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", data, at + 8 + length)[0] == zlib.crc32(kind + body)
        if kind == name:
            return body
        at += 12 + length
    raise AssertionError(f"no chunk {name!r}")


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pixels_survive_exactly(tmp_path: Path, suffix: str, dtype: type):
    path = save(tmp_path / f"in{suffix}", grey(dtype))
    before = path.read_bytes()
    image = read_picture(path)
    assert image.pixels.dtype == dtype
    np.testing.assert_array_equal(image.pixels[0], grey(dtype))
    assert (image.stored_range, image.bits) == ((0, np.iinfo(dtype).max), 8 * np.dtype(dtype).itemsize)
    assert (image.modality, image.black_is_high, image.slope, image.intercept) == ("unknown", False, 1.0, 0.0)
    out = enlarge_file(path, tmp_path / f"out{suffix}")
    other = sitk.ReadImage(str(out))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(other)[::2, ::4], grey(dtype))
    assert other.GetSize() == (36, 24)
    assert path.read_bytes() == before


def test_float_tiff_survives_exactly(tmp_path: Path):
    pixels = np.random.default_rng(2).normal(size=(12, 9)).astype(np.float32)
    image = read_picture(save(tmp_path / "in.tif", pixels))
    assert (image.pixels.dtype, image.stored_range, image.bits) == (np.float32, None, 32)
    out = enlarge_file(tmp_path / "in.tif", tmp_path / "out.tif")
    np.testing.assert_array_equal(tifffile.imread(out)[::2, ::4], pixels)


def test_jpeg_stays_jpeg_and_close(tmp_path: Path):
    smooth = np.add.outer(np.arange(32), np.arange(48)).astype(np.uint8) * 3
    path = save(tmp_path / "in.jpg", smooth, quality=95)
    image = read_picture(path)
    np.testing.assert_array_equal(image.pixels[0], np.array(PIL.Image.open(path)))
    assert any("one named .png keeps every pixel" in note for note in image.notes)
    out = enlarge_file(path, tmp_path / "out.jpg")
    written = PIL.Image.open(out)
    assert (written.format, written.mode) == ("JPEG", "L")
    assert np.abs(np.array(written).astype(int) - enlarged(image, SCALE).pixels[0]).max() <= 3


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_tiff_of_either_byte_order_reads_exactly_or_not_at_all(tmp_path: Path, byteorder, dtype, compression):
    pixels = (grey(np.uint16) // (256 if dtype == "u1" else 1)).astype(dtype)
    tifffile.imwrite(tmp_path / "in.tif", pixels, byteorder=byteorder, compression=compression, photometric=1)
    if (byteorder, dtype, compression) == (">", "f4", "zlib"):
        with pytest.raises(InputError, match=r"compressed big-endian floats.*without compression"):
            read_picture(tmp_path / "in.tif")
        return
    image = read_picture(tmp_path / "in.tif")
    assert image.pixels.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(image.pixels[0], pixels)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_white_is_zero_becomes_black_is_zero(tmp_path: Path, dtype: type):
    save_tiff(tmp_path / "in.tif", grey(dtype), "miniswhite")
    image = read_picture(tmp_path / "in.tif")
    np.testing.assert_array_equal(image.pixels[0], np.iinfo(dtype).max - grey(dtype))
    assert any("looks the same" in note for note in image.notes)
    out = enlarge_file(tmp_path / "in.tif", tmp_path / "out.tif")
    with tifffile.TiffFile(out) as written:
        assert written.pages[0].photometric == tifffile.PHOTOMETRIC.MINISBLACK


@pytest.mark.parametrize(("compression", "code"), [("raw", 1), ("tiff_lzw", 5), ("tiff_adobe_deflate", 8)])
def test_tiff_compression_is_kept(tmp_path: Path, compression: str, code: int):
    save(tmp_path / "in.tif", grey(np.uint16), compression=compression)
    out = enlarge_file(tmp_path / "in.tif", tmp_path / "out.tif")
    with tifffile.TiffFile(out) as written:
        assert written.pages[0].compression == code


def test_pages_are_slices(tmp_path: Path):
    stack = np.stack([grey(np.uint16), grey(np.uint16)[::-1], grey(np.uint16)[:, ::-1]])
    image = read_picture(save_tiff(tmp_path / "in.tif", stack, resolution=(100, 100)))
    np.testing.assert_array_equal(image.pixels, stack)
    assert image.grid.spacing_xyz[2] == 1.0
    out = enlarge_file(tmp_path / "in.tif", tmp_path / "out.tif")
    with tifffile.TiffFile(out) as written:
        assert len(written.pages) == 3
        np.testing.assert_array_equal(np.stack([page.asarray() for page in written.pages])[:, ::2, ::4], stack)
        assert all(page.tags["XResolution"].value == (400, 1) for page in written.pages)


def test_reduced_copies_in_a_tiff_are_left_out(tmp_path: Path):
    with tifffile.TiffWriter(tmp_path / "in.tif") as file:
        file.write(grey(), photometric="minisblack")
        file.write(grey()[::2, ::2], photometric="minisblack", subfiletype=1)
    image = read_picture(tmp_path / "in.tif")
    np.testing.assert_array_equal(image.pixels, grey()[None])
    assert any("Reduced copies" in note for note in image.notes)


@pytest.mark.parametrize("target", [".png", ".jpg", ".tif"])
@pytest.mark.parametrize("source", [".png", ".jpg", ".tif"])
def test_a_resolution_is_scaled_survives_a_change_of_format_and_is_no_length(tmp_path: Path, source: str, target: str):
    path = save(tmp_path / f"in{source}", grey(), dpi=(150, 300))
    grid = read_picture(path).grid
    assert (grid.spacing_source, grid.in_millimetres) == (RESOLUTION_TAG, False)
    np.testing.assert_allclose(grid.spacing_xyz, (25.4 / 150, 25.4 / 300, 1), rtol=1e-4)
    written = read_picture(enlarge_file(path, tmp_path / f"out{target}"))
    np.testing.assert_allclose(written.grid.spacing_xyz, (25.4 / 600, 25.4 / 600, 1), rtol=1e-4)


def test_a_resolution_that_does_not_fit_is_left_out(tmp_path: Path):
    path = save(tmp_path / "in.png", grey(), dpi=(40_000, 40_000))
    assert read_picture(enlarge_file(path, tmp_path / "out.jpg")).grid.spacing_source == UNKNOWN


def test_a_resolution_in_centimetres_is_read(tmp_path: Path):
    save_tiff(tmp_path / "in.tif", grey(), resolution=((145, 2), (50, 1)), resolutionunit="CENTIMETER")
    np.testing.assert_allclose(read_picture(tmp_path / "in.tif").grid.spacing_xyz, (10 / 72.5, 10 / 50, 1))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_no_resolution_stays_none(tmp_path: Path, suffix: str):
    image = read_picture(save(tmp_path / f"in{suffix}", grey()))
    assert image.grid.spacing_source == UNKNOWN
    assert image.grid.spacing_xyz == (1, 1, 1)
    out = enlarge_file(tmp_path / f"in{suffix}", tmp_path / f"out{suffix}")
    assert read_picture(out).grid.spacing_source == UNKNOWN


def test_a_resolution_without_unit_or_of_zero_counts_as_none(tmp_path: Path):
    save_tiff(tmp_path / "in.tif", grey(), resolution=((2, 1), (1, 1)), resolutionunit="NONE")
    assert read_picture(tmp_path / "in.tif").grid.spacing_source == UNKNOWN
    path = save(tmp_path / "in.png", grey())
    data = path.read_bytes()
    path.write_bytes(data[:33] + chunk(b"pHYs", struct.pack(">IIB", 0, 0, 1)) + data[33:])
    assert read_picture(path).grid.spacing_source == UNKNOWN


def test_the_method_is_written_in_each_format(tmp_path: Path):
    path = save(tmp_path / "in.png", grey())
    for suffix in SUFFIXES:
        enlarge_file(path, tmp_path / f"out{suffix}")
    sentence = provenance(scale_zyx=SCALE).sentence
    assert PIL.Image.open(tmp_path / "out.png").info["Description"] == sentence
    assert png_chunk(tmp_path / "out.png", b"tEXt") == b"Description\0" + sentence.encode()
    assert PIL.Image.open(tmp_path / "out.jpg").info["comment"].decode() == sentence
    with tifffile.TiffFile(tmp_path / "out.tif") as written:
        assert written.pages[0].tags["ImageDescription"].value == sentence


def test_texts_of_the_source_are_not_copied_but_its_grey_profile_is(tmp_path: Path):
    text = PngInfo()
    text.add_text("Patient", "somebody")
    path = save(tmp_path / "in.png", grey(), pnginfo=text, icc_profile=b"a grey profile")
    out = enlarge_file(path, tmp_path / "out.png")
    assert b"somebody" not in out.read_bytes()
    assert PIL.Image.open(out).info["icc_profile"] == b"a grey profile"


@pytest.mark.parametrize(
    ("suffix", "dtype", "options"),
    [
        *((suffix, np.uint8, {}) for suffix in SUFFIXES),
        (".png", np.uint16, {}),
        (".tif", np.uint16, {}),
        (".tif", np.uint16, {"compression": "tiff_lzw"}),
    ],
)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_orientation_tag_is_applied_as_viewers_do(tmp_path: Path, suffix, dtype: type, options: dict, orientation):
    exif = PIL.Image.Exif()
    exif[274] = orientation
    path = save(tmp_path / f"in{suffix}", grey(dtype), exif=exif, dpi=(100, 200), **options)
    pixels = grey(dtype)
    if suffix == ".jpg":
        pixels = np.array(PIL.Image.open(save(tmp_path / "plain.jpg", pixels)))
    tagged = PIL.Image.fromarray(pixels)
    tagged.getexif()[274] = orientation
    image = read_picture(path)
    np.testing.assert_array_equal(image.pixels[0], np.array(ImageOps.exif_transpose(tagged)))
    assert any("orientation tag" in note for note in image.notes) == (orientation > 1)
    across, down = (25.4 / 200, 25.4 / 100) if orientation > 4 else (25.4 / 100, 25.4 / 200)
    np.testing.assert_allclose(image.grid.spacing_xyz[:2], (across, down), rtol=1e-3)
    out = enlarge_file(path, tmp_path / f"out{suffix}")
    assert PIL.Image.open(out).getexif().get(274, 1) == 1


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_three_equal_channels_are_grey(tmp_path: Path, suffix: str):
    smooth = np.add.outer(np.arange(32), np.arange(48)).astype(np.uint8) * 3
    image = read_picture(save(tmp_path / f"in{suffix}", np.dstack([smooth] * 3)))
    np.testing.assert_allclose(image.pixels[0].astype(int), smooth, atol=4 if suffix == ".jpg" else 0)
    assert any("three equal channels" in note for note in image.notes)
    assert PIL.Image.open(enlarge_file(tmp_path / f"in{suffix}", tmp_path / f"out{suffix}")).mode == "L"


def test_a_palette_of_greys_is_grey(tmp_path: Path):
    pixels = grey() & 0xF0
    PIL.Image.fromarray(pixels).quantize(16).save(tmp_path / "in.png")
    image = read_picture(tmp_path / "in.png")
    np.testing.assert_array_equal(image.pixels[0], np.array(PIL.Image.open(tmp_path / "in.png").convert("L")))
    assert image.notes == ("Stored with a palette of greys; read and written as grey.",)


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_an_opaque_alpha_channel_is_left_out(tmp_path: Path, mode: str):
    PIL.Image.fromarray(grey()).convert(mode).save(tmp_path / "in.png")
    image = read_picture(tmp_path / "in.png")
    np.testing.assert_array_equal(image.pixels[0], grey())
    assert any("opaque everywhere" in note for note in image.notes)


@pytest.mark.parametrize("mode", ["LA", "RGBA", "L"])
def test_transparency_is_refused(tmp_path: Path, mode: str):
    path = tmp_path / "in.png"
    if mode == "L":
        save(path, grey(), transparency=0)
    else:
        transparent = PIL.Image.fromarray(grey()).convert(mode)
        transparent.putpixel((3, 4), (9, 100) if mode == "LA" else (9, 9, 9, 100))
        transparent.save(path)
    with pytest.raises(InputError, match=r"in\.png: partly transparent.*background"):
        read_picture(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_colour_photograph_is_refused(tmp_path: Path, suffix: str):
    colours = np.zeros((16, 16, 3), np.uint8)
    colours[..., 0] = 200
    with pytest.raises(InputError, match=r"a colour picture \(red, green and blue differ by up to (19|20)\d of 255\)"):
        read_picture(save(tmp_path / f"in{suffix}", colours))


def colour_png_16(path: Path) -> None:
    """Write a PNG of three equal 16-bit channels, which Pillow would silently cut to 8 bits."""
    rows = b"".join(b"\0" + np.repeat(row, 3).astype(">u2").tobytes() for row in grey(np.uint16))
    chunks = {b"IHDR": struct.pack(">IIBBBBB", 9, 12, 16, 2, 0, 0, 0), b"IDAT": zlib.compress(rows), b"IEND": b""}
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(name, body) for name, body in chunks.items()))


def pages_of_two_sizes(path: Path) -> None:
    with tifffile.TiffWriter(path) as file:
        file.write(grey(), photometric="minisblack")
        file.write(grey()[:5], photometric="minisblack")


def fewer_rows_than_its_header_says(path: Path) -> None:
    data = bytearray(save(path, grey()).read_bytes())
    data[20:24] = struct.pack(">I", 4_000_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    path.write_bytes(data)


def decompression_bomb(path: Path) -> None:
    small = save(path, grey()).read_bytes()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0))
    path.write_bytes(small[:8] + header + small[33:])


def with_two_not_finite(path: Path) -> None:
    pixels = grey().astype(np.float32)
    pixels[2, 3], pixels[4, 5] = np.nan, np.inf
    save(path, pixels)


SIZES = r".*expected one grey channel of 8 or 16 bits"
REFUSED = [
    ("cmyk.jpg", lambda path: PIL.Image.new("CMYK", (16, 16)).save(path), r"a colour picture \(CMYK\), expected grey"),
    ("one_bit.png", lambda path: save(path, grey() > 100), "PNG with 1-bit samples" + SIZES),
    ("one_bit.tif", lambda path: save(path, grey() > 100), "TIFF with 1-bit samples" + SIZES),
    (
        "signed.tif",
        lambda path: save_tiff(path, grey(np.uint16).astype("i2")),
        r"TIFF with 16-bit samples \(I\)" + SIZES,
    ),
    ("wide.tif", lambda path: save_tiff(path, grey(np.uint16).astype("i4")), r"TIFF with 32-bit samples \(I\)" + SIZES),
    (
        "transparent.png",
        lambda path: save(path, grey(np.uint16), transparency=0),
        r"PNG with 16-bit samples \(I;16, transparent\)" + SIZES,
    ),
    ("colour16.png", colour_png_16, "PNG with 16-bit samples"),  # rather than cut to 8
    ("double.tif", lambda path: save_tiff(path, grey().astype(float)), r"double\.tif: TIFF"),  # rather than rounded
    ("not_finite.tif", with_two_not_finite, "2 of 108 values are NaN or infinite"),
    (
        "animation.png",
        lambda path: save(path, grey(), save_all=True, append_images=[PIL.Image.fromarray(grey()[::-1].copy())]),
        r"animation\.png: 2 pictures in one PNG file, expected one",
    ),
    ("bomb.png", decompression_bomb, r"bomb\.png: too large for a radiograph.*Crop it"),
    (
        "white.tif",
        lambda path: save_tiff(path, grey().astype(np.float32), "miniswhite"),
        "float samples with white as zero",
    ),
    ("pages.tif", pages_of_two_sizes, r"pages are not of one kind \(9 x 12 uint8, 9 x 5 uint8\)"),
    ("text.png", lambda path: path.write_text("no picture"), r"text\.png: not a PNG, JPEG or TIFF"),
    ("short.png", fewer_rows_than_its_header_says, r"\(9 x 4000000 pixels in \d+ bytes\); it is damaged"),
]


@pytest.mark.parametrize(("name", "write", "message"), REFUSED, ids=[name for name, *_ in REFUSED])
def test_other_pictures_are_refused(tmp_path: Path, name: str, write, message: str):
    write(tmp_path / name)
    with pytest.raises(InputError, match=message):
        read_picture(tmp_path / name)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_damaged_picture_is_refused_wherever_it_is_cut_or_changed(tmp_path: Path, suffix: str):
    whole = save(tmp_path / f"whole{suffix}", grey(np.uint8, 40, 50)).read_bytes()
    path = tmp_path / f"in{suffix}"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"that cannot be decoded.*Get the file again"):
        read_picture(path)
    random = np.random.default_rng(3)
    for _ in range(300):  # any damage gives a picture or an InputError, nothing else
        damaged = bytearray(whole[: random.integers(8, len(whole))] if random.random() < 0.3 else whole)
        for index in random.integers(8, len(damaged), 3) if len(damaged) > 8 else []:
            damaged[index] = random.integers(0, 256)
        path.write_bytes(damaged)
        with contextlib.suppress(InputError):
            read_picture(path)


@pytest.mark.parametrize(
    ("pixels", "scale", "name", "message"),
    [
        (grey(np.uint16), (1, 1, 1), "out.jpg", r"uint16 pixels do not fit into a JPEG, which holds uint8\."),
        (np.stack([grey()] * 2), (1, 1, 1), "out.png", r"2 slices do not fit into one PNG. Name it \.tif"),
        (grey(np.uint8, 1, 70), (1, 1, 1000), "out.jpg", r"70000 x 1 pixels do not fit into a JPEG.*--roi"),
    ],
)
def test_a_result_that_its_format_cannot_hold_is_refused(tmp_path: Path, pixels, scale, name: str, message: str):
    image = enlarged(read_picture(save_tiff(tmp_path / "in.tif", pixels)), scale)
    with pytest.raises(OutputError, match=f"{name}: {message}"):
        write_picture(image, provenance(scale_zyx=scale), tmp_path / name)
    assert not list(tmp_path.glob("out*"))
