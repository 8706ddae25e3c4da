import numpy as np
import pytest
from monai_sr_bundle.benchmark.detection import BLOBS, DETECTION_FIGURES, ORIGINAL, compare_detection
from monai_sr_bundle.benchmark.trust_figures import Subject, find_structures, measure_parts, trust_figures
from monai_sr_bundle.degradation import Degradation
from monai_sr_bundle.inferers.postprocessing import enlarge_bicubic
from monai_sr_bundle.uncertainty.nodules import draw_nodules
from scipy import ndimage

X4 = Degradation.parse("bicubic_antialias_x4")


def film(seed=0, blobs=12, noise=0.004):
    """Smooth, with noise and bright and dark blobs of 15 grey levels."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:128, :128] / 128
    positions = [tuple(position) for position in rng.integers(8, 120, (blobs, 2))]
    nodules = draw_nodules(positions, 1.5, (128, 128)) if blobs else np.zeros((1, 128, 128))
    added = 15 / 255 * (nodules[::2].max(axis=0) - nodules[1::2].max(axis=0, initial=0))
    smooth = 0.4 + 0.2 * np.sin(2 * rows) * np.cos(3 * columns + seed)
    return (smooth + added + noise * rng.standard_normal((128, 128))).astype(np.float32)


def subject(result, high, half_width=None, boxes=None):
    mask = np.zeros(high.shape, bool) if boxes is None else boxes
    return Subject("film", X4(high), result, high, mask, half_width)


def bicubic(low):
    return enlarge_bicubic(low, 4)


def test_the_figures_of_a_result():
    high = film()
    result = np.rint(255 * bicubic(X4(high))).astype(np.float32) / 255
    boxes = np.zeros(high.shape, bool)
    boxes[10:20, 10:20] = True
    width = np.where(boxes, 1.0, np.abs(high - result) * np.where(np.arange(128) < 64, 1.01, 0.5)).astype(np.float32)
    figures, detections = trust_figures(subject(result, high, width, boxes), bicubic, X4, 255)
    assert 0 < figures["consistency"] < 1
    assert figures["box_coverage"] == 1.0
    assert figures["coverage"] == pytest.approx(0.5, abs=0.02)
    assert 0 <= figures["structure_coverage"] <= 1
    assert figures["error_bar"] == pytest.approx(255 * width.mean())
    assert figures["nodule_1"] < figures["nodule_1.5"] < figures["nodule_2"] < 1
    assert set(detections.blobs) == set(BLOBS)
    assert detections.blobs[1.5, False].true >= 4


def test_coverage_in_parts_goes_from_the_narrowest_error_bars_to_the_widest():
    result = film(blobs=0, noise=0) + 12 / 255 * draw_nodules([(64, 64)], 1.5, (128, 128))[0]
    width = np.linspace(1, 0, 128 * 128).reshape(128, 128)  # the widest first
    inside = np.zeros((128, 128), bool)
    inside[:64] = True
    inside[64, 64] = True
    valid = np.ones((128, 128), bool)
    error = np.where(inside, 0.0, 2.0)
    structures, *tenths, _ = measure_parts(error, result, width, valid)
    assert find_structures(result).sum() >= 1
    assert structures == inside[find_structures(result)].mean()
    assert tenths[:5] == pytest.approx([0, 0, 0, 0, 0], abs=2e-3)
    assert tenths[5:] == [1, 1, 1, 1, 1]
    valid[:64] = False
    assert max(measure_parts(error, result, width, valid)[2:11]) < 2e-3
    valid[:] = False
    valid[0] = True
    assert np.isnan(measure_parts(error, result, width, valid)[0])


def test_error_bars_are_as_wide_as_the_one_half_width_that_as_many_errors_are_within():
    error, valid = np.linspace(0, 0.6, 10_000).reshape(100, 100), np.ones((100, 100), bool)
    result = np.full((100, 100), 0.5)
    assert measure_parts(error, result, np.full((100, 100), 0.3), valid)[-1] == pytest.approx(1, abs=1e-3)
    assert measure_parts(error, result, error, valid)[-1] == pytest.approx(0.5, abs=1e-3)
    valid[:50] = False
    assert measure_parts(error, result, error, valid)[-1] == pytest.approx(0.75, abs=1e-3)


def test_coverage_at_structures_is_that_of_the_blobs_which_the_result_shows():
    high = film(blobs=0, noise=0)
    result = high + 12 / 255 * draw_nodules([(64, 64)], 1.5, (128, 128))[0]
    width = np.full(high.shape, 5 / 255, np.float32)
    figures, _ = trust_figures(subject(result, high, width), bicubic, X4, 255)
    assert figures["coverage"] > 0.99
    assert figures["structure_coverage"] < 0.5


def test_without_error_bars_and_without_structure_these_figures_are_missing():
    names = ("coverage", "structure_coverage", "box_coverage", "error_bar")
    figures, _ = trust_figures(subject(film(), film()), bicubic, X4, 255)
    assert np.isnan([figures[name] for name in names]).all()
    flat = np.full((96, 96), 0.5, np.float32)
    figures, _ = trust_figures(subject(flat, flat, np.ones_like(flat)), bicubic, X4, 255)
    names = ("cut_off", "disagreeing_patches", "structure_coverage", "box_coverage")
    assert np.isnan([figures[name] for name in names]).all()
    assert figures["coverage"] == 1.0


def test_detection_is_compared_over_all_images():
    films = [film(seed) for seed in range(20)]
    patients = [f"patient {index // 2}" for index in range(20)]

    def detections(enlarge):
        return [trust_figures(subject(enlarge(X4(high)), high), enlarge, X4, 255)[1] for high in films]

    def blurred(low):
        return ndimage.gaussian_filter(bicubic(low), 4)

    rows = compare_detection({"bicubic": detections(bicubic), "blurred": detections(blurred)}, patients, "bicubic")
    assert set(rows) == {"bicubic", "blurred", ORIGINAL}
    assert set(rows["bicubic"].figures) == set(rows["blurred"].differences) == set(DETECTION_FIGURES)
    assert not rows["bicubic"].differences
    for name, estimate in rows["bicubic"].figures.items():
        difference = rows["blurred"].differences[name]
        assert estimate.low <= estimate.high
        assert difference.mean == pytest.approx(rows["blurred"].figures[name].mean - estimate.mean)
    assert rows["blurred"].differences["sensitivity_bright_1.5"].high < 0
    # No method finds what the reduction has taken away.
    assert rows["bicubic"].figures["detectability_1"].mean < rows[ORIGINAL].figures["detectability_1"].mean
