"""8-bit grey from any radiograph."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from monai_sr_bundle.datasets.radiograph import encode_png, read_radiograph, reduce_size
from monai_sr_bundle.errors import InputError
from pydicom.dataset import Dataset

from tests.datasets.layouts import chest, picture
from tests.images.dicom_files import radiograph

RAMP = np.tile(np.arange(0, 4096, 16, dtype="uint16"), (4, 1))


def read_dx(folder: Path, **attributes):
    """Read the ramp as a radiograph of MONOCHROME2, unless the attributes say otherwise."""
    attributes = {"PhotometricInterpretation": "MONOCHROME2", **attributes}
    return read_radiograph(radiograph(folder / "a", RAMP, **attributes))


@pytest.mark.parametrize("pixels", [chest(), np.repeat(chest()[..., None], 3, axis=2)])
def test_an_8_bit_picture_keeps_its_pixels_also_if_stored_as_colour(tmp_path: Path, pixels: np.ndarray) -> None:
    film = read_radiograph(picture(tmp_path / "a.png", pixels))
    np.testing.assert_array_equal(film.grey, chest())
    assert (film.size_xy, film.spacing_xy, film.note) == ((64, 64), None, "")


def test_16_bits_are_stretched_and_the_record_says_so(tmp_path: Path) -> None:
    film = read_radiograph(picture(tmp_path / "a.png", RAMP + 100))
    np.testing.assert_allclose(film.grey[0], np.linspace(0, 255, 256), atol=1e-3)
    assert film.note == "no VOI window: 100 to 4180 stretched to 0 to 255"


def test_a_window_is_applied_as_dicom_defines_it(tmp_path: Path) -> None:
    # PS3.3 C.11.2.1.2.1: black up to c - 0.5 - (w - 1) / 2, white from c - 0.5 + (w - 1) / 2.
    film = read_dx(tmp_path, WindowCenter="1000.5", WindowWidth="1001")
    np.testing.assert_allclose(film.grey[0], 255 * np.clip((RAMP[0] - 500.0) / 1000, 0, 1), atol=1e-3)
    assert film.note == "VOI window of the file"
    assert film.spacing_xy == (0.1, 0.2)
    without = read_dx(tmp_path, WindowCenter=None, WindowWidth=None)
    np.testing.assert_allclose(without.grey[0], np.linspace(0, 255, 256), atol=1e-3)


def test_monochrome1_is_inverted_so_that_black_is_low(tmp_path: Path) -> None:
    film = read_dx(tmp_path, PhotometricInterpretation="MONOCHROME1")
    assert film.grey[0, [0, -1]] == pytest.approx([255, 1], abs=0.1)


def test_a_voi_table_is_applied(tmp_path: Path) -> None:
    lut = Dataset()
    lut.LUTDescriptor = [4096, 0, 16]
    lut.LUTData = np.rint(1000 * (np.arange(4096) / 4095) ** 2).astype("<u2").tobytes()
    film = read_dx(tmp_path, VOILUTSequence=[lut])
    np.testing.assert_allclose(film.grey[0], 255 * (RAMP[0] / 4095.0) ** 2, atol=0.2)
    assert film.note == "VOI LUT of the file"


def test_a_window_that_cannot_be_applied_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a: its VOI window or table cannot be applied"):
        read_dx(tmp_path, WindowWidth="0")


def test_an_almost_blank_picture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.png: almost blank, its standard deviation is 0\.50 of 255 grey levels"):
        read_radiograph(picture(tmp_path / "a.png", np.tile(np.array([100, 101], "uint8"), (8, 8))))


def test_several_pages_are_refused(tmp_path: Path) -> None:
    page = PIL.Image.fromarray(chest())
    page.save(tmp_path / "a.tif", save_all=True, append_images=[page])
    with pytest.raises(InputError, match=r"a\.tif: holds 2 frames, expected one radiograph"):
        read_radiograph(tmp_path / "a.tif")


@pytest.mark.parametrize(("long_side", "size"), [(50, (50, 40)), (100, (100, 80)), (400, (100, 80)), (0, (100, 80))])
def test_the_long_side_is_reduced_and_never_enlarged(long_side: int, size: tuple[int, int]) -> None:
    assert reduce_size(chest(100, 80).astype("float32"), long_side).shape[::-1] == size


def test_reducing_keeps_the_mean_and_the_position_of_a_landmark() -> None:
    grey = np.zeros((100, 100), "float32")
    grey[40:44, 20:24] = 200
    small = reduce_size(grey, 50).astype(float)
    y, x = np.indices(small.shape)
    assert (small * x).sum() / small.sum() == pytest.approx((21.5 + 0.5) / 2 - 0.5, abs=0.02)
    assert (small * y).sum() / small.sum() == pytest.approx((41.5 + 0.5) / 2 - 0.5, abs=0.02)


def test_the_png_is_grey_8_bit_and_lossless() -> None:
    with PIL.Image.open(io.BytesIO(encode_png(chest()))) as stored:
        assert (stored.format, stored.mode) == ("PNG", "L")
        np.testing.assert_array_equal(np.asarray(stored), chest())
