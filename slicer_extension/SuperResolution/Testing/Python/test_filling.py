"""Volumes that are computed piece by piece: what is seen comes first, and nobody waits for the rest."""

import numpy as np
import phantom_volumes
import pytest
import slicer
from SuperResolutionLib import filling, region, result_nodes


@pytest.fixture
def large(application):
    """A result of 24 slices of 512 x 512 voxels."""
    rows, columns = np.mgrid[0:128, 0:128]
    coarse = np.stack([1000 * np.sin(rows / 9 + k) * np.cos(columns / 7) for k in range(24)]).astype(np.int16)
    source = application.addVolume(coarse, phantom_volumes.GRID, "chest")
    fine = np.repeat(np.repeat(coarse, 4, 1), 4, 2)
    fine[:, ::2] += 40
    yield result_nodes.addResult(source, fine, region.whole(source), phantom_volumes.DONE)
    filling._running.clear()


def test_a_difference_is_computed_in_pieces_from_the_slice_that_is_seen(large, sliceView):
    view = sliceView("Red", 300, 300)
    view.show(result_nodes.sourceOf(large))
    view.logic.SetSliceOffset(phantom_volumes.GRID[2, 3] + phantom_volumes.GRID[2, 2] * 17)
    node = result_nodes.addDifference(large)
    array, steps = slicer.util.arrayFromVolume(node), 1
    while not array[17].any(axis=1).all():
        before = np.count_nonzero(array)
        filling.step(0)
        steps += 1
        assert np.count_nonzero(array) - before <= 2**17, "it does not look at the clock"
    assert steps > 1, "a slice at a time is too much at once"
    assert array.any(axis=(1, 2)).sum() == 1, "others came first"
    phantom_volumes.fillAll()
    assert not filling.isBusy()
    whole = slicer.util.arrayFromVolume(large).astype(np.float32) - phantom_volumes.interpolateSource(large)
    np.testing.assert_array_equal(array, whole)


def test_what_is_removed_is_computed_no_more(large):
    node = result_nodes.addDifference(large)
    result_nodes.remove(large)
    filling.step(0)
    assert not filling.isBusy()
    assert not slicer.util.arrayFromVolume(node).any(axis=(1, 2)).all()


def test_what_is_not_whole_is_not_saved(application, large, tmp_path):
    name = result_nodes.addDifference(large).GetName()
    application.saveScene(tmp_path / "half.mrb")
    phantom_volumes.fillAll()
    application.saveScene(tmp_path / "whole.mrb")
    application.loadScene(tmp_path / "half.mrb")
    assert slicer.util.getFirstNodeByName(name) is None
    application.loadScene(tmp_path / "whole.mrb")
    assert slicer.util.arrayFromVolume(slicer.util.getFirstNodeByName(name)).any(axis=(1, 2)).all()
