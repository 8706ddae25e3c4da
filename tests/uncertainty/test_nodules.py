import numpy as np
import pytest
from monai_sr_bundle.uncertainty.nodules import AMPLITUDE, FIELDS, choose_positions, draw_nodules, recovered_contrast


def test_recovered_contrast_is_the_share_that_comes_back():
    nodules = AMPLITUDE * draw_nodules([(40, 50), (40, 66)], 2.0, (96, 96))
    without = np.full((96, 96), 0.4, np.float32)
    with_nodules = without + 0.7 * nodules[0] + 0.4 * nodules[1]
    parts = [recovered_contrast(with_nodules, without, nodule) for nodule in nodules]
    assert parts == pytest.approx([0.7, 0.4], abs=1e-3)
    assert recovered_contrast(without, without, nodules[0]) == 0


def test_nodules_are_gaussian():
    (nodule,) = draw_nodules([(20, 30)], 2.0, (50, 60))
    assert np.unravel_index(nodule.argmax(), nodule.shape) == (20, 30)
    assert nodule[20, 30] == 1
    assert nodule[20, 32] == nodule[18, 30] == pytest.approx(np.exp(-0.5))


def test_places_are_the_same_for_a_name_lie_in_the_lungs_and_apart():
    positions = choose_positions("a", (256, 200))
    assert positions == choose_positions("a", (256, 200)) != choose_positions("b", (256, 200))
    for index, (row, column) in enumerate(positions):
        top, bottom, left, right = FIELDS[index // 4]
        assert top <= row / 256 <= bottom
        assert left <= column / 200 <= right
    first, second = np.array(positions)[np.triu_indices(8, 1)[0]], np.array(positions)[np.triu_indices(8, 1)[1]]
    assert np.hypot(*(first - second).T).min() > 8
