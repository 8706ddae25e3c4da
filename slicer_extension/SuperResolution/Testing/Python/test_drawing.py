"""Boxes that are drawn with the mouse on real slice views, and edges that are moved onto those of pixels."""

import numpy as np
import phantom_volumes
import pytest
import slicer
from grids import makeGrid
from sliceview import difference
from SuperResolutionLib import box_nodes, display, drawing, region
from SuperResolutionLib.errors import InputError


def at(view, row, column):
    """Place on the screen of an edge between pixels of the coarse chest: `row` 8 is the upper edge of row 8."""
    return view.xy(phantom_volumes.world(2, 4 * row - 0.5, 4 * column - 0.5))


def draw(view, source, start, end, pixels=drawing.REGION_PIXELS, between=None):
    """Drag from a row and column to another. Return the extent that was drawn and what was said."""
    ends, errors = [], []
    drawn = drawing.BoxDrawing([(view.node, view.interactor)], source, pixels, ends.append, errors.append)
    view.drag(at(view, *start), at(view, *end), between)
    drawn.stop()
    return ends, errors


def test_a_drag_draws_a_box_of_whole_pixels_on_the_slice_in_view(application, red, source, keep):
    nodes, plain, seen = application.nodeIds(), red.picture(), []
    window = source.GetDisplayNode().GetWindow()
    interaction = application.logic.GetInteractionNode()
    interaction.SetCurrentInteractionMode(interaction.AdjustWindowLevel)  # which rests meanwhile
    ends, errors = draw(red, source, (8.3, 7.8), (23.7, 32.4), between=lambda: seen.append(red.picture()))
    interaction.SetCurrentInteractionMode(interaction.ViewTransform)
    assert (ends, errors) == ([[2, 3, 8, 24, 8, 32]], [])
    keep(seen[0], "drawing")
    assert difference(plain, seen[0]).max() > 100  # it is seen while it is drawn
    assert difference(plain, red.picture()).max() == 0
    assert application.nodeIds() == nodes
    assert source.GetDisplayNode().GetWindow() == window
    backwards, _ = draw(red, source, (24, 32), (8, 8))
    assert backwards == ends


def test_after_the_box_the_mouse_is_slicers_again(red, source):
    ends = []
    drawing.BoxDrawing([(red.node, red.interactor)], source, 8, ends.append, ends.append)
    red.drag(at(red, 8, 8), at(red, 24, 32))
    red.drag(at(red, 10, 10), at(red, 20, 20))
    assert len(ends) == 1


def test_a_drawing_ends_without_a_box_when_its_volume_is_removed(application, red, source):
    nodes = application.nodeIds()
    begin, end, ends = at(red, 8, 8), at(red, 24, 32), []
    drawn = drawing.BoxDrawing([(red.node, red.interactor)], source, 8, ends.append, ends.append)
    red.drag(begin, end, between=lambda: application.scene.RemoveNode(source))
    assert (ends, drawn.isOver) == ([], True)
    assert set(application.nodeIds()) <= set(nodes)


def test_a_click_draws_a_square_that_lies_inside_the_volume(red, source):
    assert draw(red, source, (16, 20), (16, 20), pixels=8)[0] == [[2, 3, 12, 20, 16, 24]]
    assert draw(red, source, (1, 39), (1, 39), pixels=8)[0] == [[2, 3, 0, 8, 32, 40]]
    assert draw(red, source, (16, 20), (16, 20), pixels=128)[0] == [[2, 3, 0, 32, 0, 40]]


def test_a_drag_beyond_the_image_ends_at_its_edge_and_one_beside_it_is_told(red, source):
    assert draw(red, source, (30, 38), (34, 44))[0] == [[2, 3, 30, 32, 38, 40]]
    ends, errors = draw(red, source, (8, 41), (20, 44))
    assert ends == []
    assert errors[-1] == "The mouse was outside 'chest'. Drag over the image."


def test_a_coronal_view_draws_through_slices(sliceView, source):
    view = sliceView("Green", 420, 340, "Coronal")
    view.show(source)
    view.node.SetSliceOffset(phantom_volumes.world(0, 4 * 9.5, 0)[1])
    start, end = (view.xy(phantom_volumes.world(k - 0.5, 0, 4 * column - 0.5)) for k, column in ((1, 10), (4, 30)))
    ends = []
    drawing.BoxDrawing([(view.node, view.interactor)], source, 8, ends.append, ends.append)
    view.drag(start, end)
    assert ends == [[1, 4, 9, 10, 10, 30]]


def test_a_view_that_is_turned_against_the_voxels_is_told(application, sliceView):
    source = application.addVolume(phantom_volumes.COARSE, makeGrid((0.4, 0.3, 0.2), (2, 2, 5), (0, 0, 0)))
    view = sliceView("Red", 420, 340)
    view.composite.SetBackgroundVolumeID(source.GetID())
    with pytest.raises(InputError, match="is turned against the voxels"):
        drawing.extentBetween(view.node, source, (10, 10), (90, 90))


def extentOf(box, source):
    return box_nodes.boundsIn(box, source)


def test_a_box_whose_handle_is_let_go_snaps_to_pixels(application, red, source):
    box = drawing.addRegion(source, [2, 3, 8, 24, 8, 32])
    display.showHandles(box, True)
    moved = slicer.vtkMRMLMarkupsNode.PointEndInteractionEvent
    box.AddObserver(moved, lambda *_: drawing.snap(box, source))
    red.picture()
    red.moveMouse(*at(red, 24, 32))
    red.picture()
    red.drag(at(red, 24, 32), at(red, 26.4, 35.3))
    assert extentOf(box, source) == pytest.approx([2, 3, 8, 26, 8, 35], abs=1e-3)


def test_snapping_leaves_turned_boxes_and_those_outside_alone_and_keeps_one_pixel(application, source):
    for matrix, size in ((makeGrid((0.3, 0, 0), (1, 1, 1), (100, 80, -20)), (20, 20, 5)),
                         (makeGrid((0, 0, 0), (1, 1, 1), (900, 0, 0)), (20.3, 20, 5))):  # fmt: skip
        box = application.addRoi()
        box.SetSize(*size)
        box.SetAndObserveObjectToNodeMatrix(slicer.util.vtkMatrixFromArray(matrix))
        before = region.cornersWorld(box)
        drawing.snap(box, source)
        np.testing.assert_array_equal(region.cornersWorld(box), before)
    box = application.addRoi(source, [2.4, 2.6, 8.2, 23.6, 8.4, 8.5])
    drawing.snap(box, source)
    assert extentOf(box, source) == pytest.approx([2, 3, 8, 24, 8, 9], abs=1e-3)
