"""Volumes that are filled piece by piece: what is seen comes first, and nobody waits for the rest."""

import math

import numpy as np
import phantom_volumes
import pytest
import slicer
from SuperResolutionLib import filling, region, result_nodes
from SuperResolutionLib.viewing import Viewing


@pytest.fixture
def large(application):
    """A result of 24 slices of 512 x 512 voxels with error bars."""
    rows, columns = np.mgrid[0:128, 0:128]
    coarse = np.stack([1000 * np.sin(rows / 9 + k) * np.cos(columns / 7) for k in range(24)]).astype(np.int16)
    source = application.addVolume(coarse, phantom_volumes.GRID, "chest")
    source.GetDisplayNode().SetAutoWindowLevel(0)
    fine = np.repeat(np.repeat(coarse, 4, 1), 4, 2)
    fine[:, ::2] += 40
    bars = np.abs(fine).astype(np.float32) / 20
    return result_nodes.addResult(source, fine, region.whole(source), phantom_volumes.DONE, bars)


@pytest.fixture
def red(sliceView, large):
    view = sliceView("Red", 300, 300)
    view.show(result_nodes.sourceOf(large))
    return view


@pytest.fixture(autouse=True)
def noneLeft():
    yield
    filling._running.clear()


def at(view, slices):
    """Move a view to a slice of the phantom's grid."""
    view.logic.SetSliceOffset(phantom_volumes.GRID[2, 3] + phantom_volumes.GRID[2, 2] * slices)


def test_a_difference_is_that_of_the_whole_and_no_piece_is_larger_than_a_tick_has_time_for(large):
    extents = []
    node = result_nodes.addDifference(large)
    compute = filling.fillingOf(node)._compute
    filling.fillingOf(node)._compute = lambda extent: extents.append(compute(extent)) or extents[-1]
    while filling.isBusy():
        piecesBefore = len(extents)
        filling.step(0)
        assert len(extents) == piecesBefore + 1, "it does not look at the clock"
    assert max(piece.size for piece in extents) <= filling.PIECE
    assert len(extents) >= 24, "a slice at a time is too much at once"
    whole = slicer.util.arrayFromVolume(large).astype(np.float32) - phantom_volumes.interpolateSource(large)
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(node), whole)


def test_the_slice_that_is_seen_comes_first_and_is_followed(red, large):
    at(red, 17)
    assert filling.visibleSlices(large) == [17]
    node = result_nodes.addDifference(large)
    array = slicer.util.arrayFromVolume(node)
    for slices in (17, 3):
        at(red, slices)
        while not array[slices].any(axis=1).all():
            filling.step(0)
        assert array.any(axis=(1, 2)).sum() <= 2, "others came first"
    red.picture()
    result_nodes.remove(large)
    assert filling.fillingOf(node) is None


def test_a_turned_view_or_a_bent_volume_has_no_slice_that_is_seen(application, red, large):
    red.node.SetOrientation("Coronal")
    assert filling.visibleSlices(large) == []
    red.node.SetOrientation("Axial")
    application.bend(large)
    assert filling.visibleSlices(large) == []


def test_a_result_that_is_removed_or_replaced_is_filled_no_more(application, large):
    source, bars = result_nodes.sourceOf(large), slicer.util.arrayFromVolume(result_nodes.errorBarsOf(large)).copy()
    mask = result_nodes.addTrustMask(large, 25.0)
    first = filling.fillingOf(mask)
    assert Viewing(application.logic).maskText(large) == ("Marking…", True)
    array = slicer.util.arrayFromVolume(large).copy()
    result_nodes.addResult(source, array, region.whole(source), phantom_volumes.DONE, bars + 100, replace=large)
    assert filling.fillingOf(mask) is not first
    assert not first.isUnfinished
    filling.step(math.inf)
    assert result_nodes.uncertainShare(mask) == 1.0, "with the new error bars"
    result_nodes.addDifference(large)
    result_nodes.remove(large)
    filling.step(math.inf)
    assert not filling.isBusy()


def test_what_is_not_whole_is_not_saved(application, large, tmp_path):
    name = result_nodes.addDifference(large).GetName()
    application.saveScene(tmp_path / "half.mrb")
    filling.step(math.inf)
    application.saveScene(tmp_path / "whole.mrb")
    application.loadScene(tmp_path / "half.mrb")
    assert slicer.util.getFirstNodeByName(name) is None
    application.loadScene(tmp_path / "whole.mrb")
    assert slicer.util.arrayFromVolume(slicer.util.getFirstNodeByName(name)).any(axis=(1, 2)).all()
