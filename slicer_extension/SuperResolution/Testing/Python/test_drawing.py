"""Boxes that are drawn with the mouse on real slice views, and edges that are moved onto those of pixels."""

import numpy as np
import phantom_volumes
import pytest
import slicer
from grids import makeGrid
from sliceview import difference
from SuperResolutionLib import box_nodes, display, drawing, region


def at(view, row, column):
    """Place on the screen of an edge between pixels of the coarse chest: `row` 8 is the upper edge of row 8."""
    return view.xy(phantom_volumes.world(2, 4 * row - 0.5, 4 * column - 0.5))


def draw(view, source, start, end, pixels=drawing.REGION_PIXELS, between=None):
    """Drag from one place on the screen to another. Return the extents that were drawn, and what was said."""
    ends, errors = [], []
    boxDrawing = drawing.BoxDrawing([(view.node, view.interactor)], source, pixels, ends.append, errors.append)
    view.drag(start, end, between)
    if not ends:  # else it has stopped
        boxDrawing.stop()
    return ends, errors


def test_a_drag_draws_a_box_of_whole_pixels_on_the_slice_in_view(application, red, source):
    nodes, plain, pictures = application.nodeIds(), red.picture(), []
    window = source.GetDisplayNode().GetWindow()
    interaction = application.logic.GetInteractionNode()
    interaction.SetCurrentInteractionMode(interaction.AdjustWindowLevel)  # which rests meanwhile
    drag = at(red, 8.3, 7.8), at(red, 23.7, 32.4)
    extents, errors = draw(red, source, *drag, between=lambda: pictures.append(red.picture()))
    assert (extents, errors) == ([[2, 3, 8, 24, 8, 32]], [])
    assert difference(plain, pictures[0]).max() > 100  # it is seen while it is drawn
    assert difference(plain, red.picture()).max() == 0
    assert application.nodeIds() == nodes
    assert source.GetDisplayNode().GetWindow() == window
    red.drag(*drag)
    interaction.SetCurrentInteractionMode(interaction.ViewTransform)
    assert source.GetDisplayNode().GetWindow() != window  # the mouse is Slicer's again


@pytest.mark.parametrize(("start", "end", "pixels", "extent"), [
    ((24, 32), (8, 8), 128, [2, 3, 8, 24, 8, 32]),  # backwards
    ((30, 38), (34, 44), 128, [2, 3, 30, 32, 38, 40]),  # beyond the image
    ((16, 20), (16, 20), 8, [2, 3, 12, 20, 16, 24]),  # a click
    ((1, 39), (1, 39), 8, [2, 3, 0, 8, 32, 40]),
    ((16, 20), (16, 20), 128, [2, 3, 0, 32, 0, 40]),
])  # fmt: skip
def test_a_box_lies_inside_the_volume(red, source, start, end, pixels, extent):
    assert draw(red, source, at(red, *start), at(red, *end), pixels) == ([extent], [])


def test_a_drag_beside_the_image_or_over_one_with_slanting_axes_is_told(red, source):
    ends, errors = draw(red, source, at(red, 8, 41), at(red, 20, 44))
    assert (ends, errors[-1]) == ([], "The mouse was outside 'chest'. Drag over the image.")
    slanting = phantom_volumes.GRID.copy()
    slanting[0, 2] = 1.0
    source.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(slanting))
    _, errors = draw(red, source, at(red, 8, 8), at(red, 20, 20))
    assert errors[0].startswith("The axes of 'chest' are not square to each other.")


def test_a_coronal_view_draws_through_slices(sliceView, source):
    view = sliceView("Green", 420, 340, "Coronal")
    view.show(source)
    view.node.SetSliceOffset(phantom_volumes.world(0, 4 * 9.5, 0)[1])
    start, end = (view.xy(phantom_volumes.world(k - 0.5, 0, 4 * column - 0.5)) for k, column in ((1, 10), (4, 30)))
    assert draw(view, source, start, end) == ([[1, 4, 9, 10, 10, 30]], [])


def test_a_box_whose_handle_is_let_go_snaps_to_pixels(red, source):
    box = drawing.addRegion(source, [2, 3, 8, 24, 8, 32])
    display.showHandles(box, True)
    box.AddObserver(slicer.vtkMRMLMarkupsNode.PointEndInteractionEvent, lambda *_: drawing.snap(box, source))
    red.picture()
    red.moveMouse(*at(red, 24, 32))
    red.picture()
    red.drag(at(red, 24, 32), at(red, 26.4, 35.3))
    assert box_nodes.boundsIn(box, source) == pytest.approx([2, 3, 8, 26, 8, 35], abs=1e-3)


def test_snapping_leaves_turned_boxes_and_those_outside_alone_and_keeps_one_pixel(application, source):
    box = application.addRoi()
    for matrix, size in ((makeGrid((0.3, 0, 0), (1, 1, 1), (100, 80, -20)), (20, 20, 5)),
                         (makeGrid((0, 0, 0), (1, 1, 1), (900, 0, 0)), (20.3, 20, 5))):  # fmt: skip
        box.SetSize(*size)
        box.SetAndObserveObjectToNodeMatrix(slicer.util.vtkMatrixFromArray(matrix))
        before = region.cornersZyx(box, source)
        drawing.snap(box, source)
        np.testing.assert_array_equal(region.cornersZyx(box, source), before)
    region.placeBox(box, source, [2.4, 2.6, 8.2, 23.6, 8.4, 8.5])
    drawing.snap(box, source)
    assert box_nodes.boundsIn(box, source) == pytest.approx([2, 3, 8, 24, 8, 9], abs=1e-3)
