"""The drawn radiograph: the same for a seed, true to its stated sizes, valid as DICOM."""

import numpy as np
import pydicom
import pytest
from monai_sr_bundle.datasets.phantom import BAR_PERIODS, NODULES, draw_phantom, write_phantom_dicom, write_phantom_png
from monai_sr_bundle.errors import OutputError
from PIL import Image

draw_anew = draw_phantom.__wrapped__
"""The other tests get copies of one drawing, see conftest.py."""


@pytest.fixture(scope="module")
def phantom() -> np.ndarray:
    return draw_phantom(512)


def mean_around(image: np.ndarray, x: float, y: float, radius: float = 0.008) -> float:
    size = len(image)
    rows = slice(round((y - radius) * size), round((y + radius) * size))
    columns = slice(round((x - radius) * size), round((x + radius) * size))
    return float(image[rows, columns].mean())


def test_it_looks_like_a_chest(phantom):
    """Air outside is darkest, then lung, soft tissue, and the middle with heart and spine."""
    assert (phantom.dtype, phantom.shape) == (np.float32, (512, 512))
    assert 0.0 <= phantom.min() < 0.01
    assert 0.9 < phantom.max() <= 1.0
    outside = mean_around(phantom, 0.2, 0.065)
    lung = mean_around(phantom, 0.33, 0.36)
    muscle = mean_around(phantom, 0.12, 0.45)
    heart = mean_around(phantom, 0.60, 0.60)
    spine = mean_around(phantom, 0.50, 0.60)
    assert outside < 0.05 < 0.15 < lung < 0.45 < muscle < heart < spine < 1.0


def test_the_marker_stands_on_the_patients_left(phantom):
    """The patient's left is on the right of the image; the L has a stem on its left and a foot at its bottom."""
    assert mean_around(phantom, 0.921, 0.06, 0.004) > 0.85
    assert mean_around(phantom, 0.940, 0.0885, 0.004) > 0.85
    assert mean_around(phantom, 0.940, 0.065, 0.004) < 0.05


def test_the_same_seed_draws_the_same_pixels_and_another_seed_others():
    first = draw_anew(64, seed=3)
    np.testing.assert_array_equal(first, draw_anew(64, seed=3))
    assert np.abs(first - draw_anew(64, seed=4)).max() > 0.01


def test_the_chest_is_the_same_at_every_size(phantom):
    """Reducing a large drawing gives the small one but for the noise, so an enlarged phantom can be compared."""
    reduced = np.asarray(Image.fromarray(phantom).resize((256, 256), Image.Resampling.BOX))
    chest = np.s_[32:192, 32:224]
    difference = draw_phantom(256)[chest] - reduced[chest]
    assert float(np.sqrt(np.mean(difference**2))) < 0.012
    assert abs(float(difference.mean())) < 0.002


@pytest.fixture(scope="module")
def without_nodules() -> np.ndarray:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("monai_sr_bundle.datasets.phantom.NODULES", ())
        return draw_anew(512)


@pytest.mark.parametrize("nodule", NODULES, ids=lambda nodule: f"{nodule.diameter:.3f}")
def test_every_nodule_is_where_it_says_and_as_wide(nodule, phantom, without_nodules):
    """The same chest without its nodules differs exactly in discs of the stated diameter."""
    difference = phantom - without_nodules
    rows, columns = np.mgrid[0:512, 0:512]
    distance = np.hypot((columns + 0.5) / 512 - nodule.x, (rows + 0.5) / 512 - nodule.y)
    core, ring = distance < 0.25 * nodule.diameter, distance < nodule.diameter
    weight = np.clip(difference, 0, None) * ring
    assert float(difference[core].mean()) > 0.02
    assert float((weight * (columns + 0.5)).sum() / weight.sum()) / 512 == pytest.approx(nodule.x, abs=0.001)
    assert float((weight * (rows + 0.5)).sum() / weight.sum()) / 512 == pytest.approx(nodule.y, abs=0.001)
    outside = ring & (distance > 0.5 * nodule.diameter + 0.003)
    assert float(np.abs(difference[outside]).mean()) < 0.1 * float(difference[core].mean())


def test_the_bars_have_the_stated_periods():
    """A 1024-pixel drawing resolves every group: its spectrum peaks at the stated number of bars."""
    drawing = draw_phantom(1024)
    for index, period in enumerate(BAR_PERIODS):
        row = drawing[round((0.8095 + 0.026 * index) * 1024), 12 : 12 + round(int(0.062 / period) * period * 1024)]
        bright = row > 0.45
        rising = int(np.count_nonzero(bright[1:] & ~bright[:-1])) + int(bright[0])
        assert rising == int(0.062 / period)


@pytest.mark.parametrize("size", [31, 4097])
def test_a_size_out_of_range_is_refused(size):
    with pytest.raises(ValueError, match=f"size is {size}, expected 32 to 4096 pixels"):
        draw_phantom(size)


def test_the_dicom_file_is_valid(tmp_path, dciodvfy):
    write_phantom_dicom(tmp_path / "phantom.dcm", size=128)
    assert dciodvfy(tmp_path / "phantom.dcm") == []


def test_the_dicom_file_holds_the_drawing_in_12_bits(tmp_path):
    write_phantom_dicom(tmp_path / "phantom.dcm", size=128, seed=1, spacing_mm=0.8)
    dataset = pydicom.dcmread(tmp_path / "phantom.dcm")
    assert (dataset.Modality, dataset.PresentationIntentType) == ("DX", "FOR PRESENTATION")
    assert (dataset.BitsStored, dataset.PhotometricInterpretation) == (12, "MONOCHROME2")
    assert str(dataset.PatientName) == "Phantom^Drawn"
    assert list(dataset.ImagerPixelSpacing) == [0.8, 0.8]
    np.testing.assert_allclose(dataset.pixel_array / 4095, draw_phantom(128, seed=1), atol=0.5 / 4095 + 1e-6)


def test_the_same_call_writes_the_same_dicom_file(tmp_path, monkeypatch):
    monkeypatch.setattr("monai_sr_bundle.datasets.phantom.draw_phantom", draw_anew)
    write_phantom_dicom(tmp_path / "a.dcm", size=64)
    write_phantom_dicom(tmp_path / "b.dcm", size=64)
    write_phantom_dicom(tmp_path / "c.dcm", size=64, seed=1)
    assert (tmp_path / "a.dcm").read_bytes() == (tmp_path / "b.dcm").read_bytes()
    first, other = (pydicom.dcmread(tmp_path / name, stop_before_pixels=True) for name in ("a.dcm", "c.dcm"))
    assert first.SOPInstanceUID != other.SOPInstanceUID


def test_the_png_file_holds_the_drawing_in_8_bits(tmp_path):
    write_phantom_png(tmp_path / "phantom.png", size=64)
    with Image.open(tmp_path / "phantom.png") as picture:
        assert picture.mode == "L"
        np.testing.assert_allclose(np.asarray(picture) / 255, draw_phantom(64), atol=0.5 / 255 + 1e-6)


@pytest.mark.parametrize("write", [write_phantom_png, write_phantom_dicom])
def test_a_file_that_exists_is_kept(write, tmp_path):
    out = tmp_path / "mine"
    out.write_text("precious")
    with pytest.raises(OutputError, match=r"mine: exists with other content and is never overwritten"):
        write(out, 64)
    assert out.read_text() == "precious"
