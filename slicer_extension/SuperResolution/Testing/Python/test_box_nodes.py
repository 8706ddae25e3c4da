"""Anomaly boxes: drawn, listed, as rectangles on slices, and loaded by Slicer."""

from dataclasses import replace

import numpy as np
import phantom_volumes
import pytest
from box_lists import assertSameBoxes, boxesOn, removeBoxes
from grids import GRIDS, makeGrid
from sliceview import difference
from SuperResolutionLib import box_nodes, display, nodes
from SuperResolutionLib.box import Box
from SuperResolutionLib.errors import InputError

NODULE = [1, 4, 12, 17, 9, 15]  # around the drawn nodule, in voxels of the source


def addNodule(source, bounds=NODULE, finding="Nodule", reader="A. Reader", certainty=0.8, tracking=""):
    return box_nodes.addBox(source, bounds, finding, reader, certainty, tracking)


def test_a_box_lies_on_its_voxels_says_what_it_is_and_goes_without_a_trace(application, source):
    other = application.addVolume(phantom_volumes.COARSE, phantom_volumes.GRID, name="other")
    application.addRoi(source, phantom_volumes.EXTENT)  # is no anomaly box
    hierarchy = application.subjectHierarchy
    before = (application.nodeIds(), hierarchy.GetNumberOfItems())
    box, onOther = addNodule(source, [1, 4, 12.25, 17, 9, 14.5], tracking="2.25.7"), addNodule(other)
    assert box_nodes.boxesOf(application.scene, source) == [box]
    assert box_nodes.boxesOf(application.scene) == [box, onOther]
    assert box.GetName() == "Nodule 80%"
    assertSameBoxes(boxesOn(source), [(("Nodule", "A. Reader", 0.8), "2.25.7", [1, 4, 12.25, 17, 9, 14.5])])
    assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(box)) == hierarchy.GetItemByDataNode(source)
    box.AddDefaultStorageNode()
    for node in (box, onOther):
        nodes.Removal(node)
    assert (application.nodeIds(), hierarchy.GetNumberOfItems()) == before


@pytest.mark.parametrize("grid", GRIDS)
def test_rectangles_bring_boxes_back_on_turned_and_transformed_volumes(application, grid):
    source = application.addVolume(phantom_volumes.COARSE, grid)
    application.move(source, makeGrid((0.3, 0.2, -0.7), (1, 1, 1), (10, 20, 30)))
    nodes = [addNodule(source, [0, 1, 0, 4.5, 2, 7], "Effusion", "B. Reader", 1), addNodule(source)]
    before = boxesOn(source)
    rectangles = [box for node in nodes for box in box_nodes.toBoxes(node, source)]
    assert [box.slice_index for box in rectangles] == [0, 1, 2, 3]
    uids = [box.tracking_uid for box in rectangles]
    assert uids[0] != uids[1] == uids[2] == uids[3]
    removeBoxes(source)
    box_nodes.addBoxes(rectangles, source)
    assertSameBoxes(boxesOn(source), before)


def test_rectangles_are_joined_only_where_they_go_on_as_one_lesion(source):
    first = Box("Mass", 4, 3, 8, 9, slice_index=1, reader="A", tracking_uid="2.25.7")
    following = replace(first, slice_index=2)
    apart = (
        replace(following, tracking_uid="2.25.8"), replace(following, reader="B"), replace(following, finding="Nodule"),
        replace(following, certainty=0.5), replace(following, x_max=8.5), replace(following, slice_index=3),
    )  # fmt: skip
    assert len(box_nodes.addBoxes([following, first], source)) == 1
    assert [len(box_nodes.addBoxes([first, other], source)) for other in apart] == [2] * len(apart)
    untracked = replace(first, tracking_uid="")
    assert len(box_nodes.addBoxes([untracked, replace(untracked, slice_index=2)], source)) == 2


def test_a_box_over_the_edge_is_cut_there(source):
    (box,) = box_nodes.toBoxes(addNodule(source, [0, 1, -3, 5, 35, 50]), source)
    assert box.xyxy == pytest.approx((35, 0, 40, 5), abs=1e-4)


def test_what_a_report_does_not_name_is_called_unknown_and_leaves_unnamed(source):
    (node,) = box_nodes.addBoxes([Box("", 4, 3, 8, 9, slice_index=1)], source)
    assert box_nodes.wordsOf(node) == ("Finding", "Unknown", None)
    assert box_nodes.toBoxes(node, source)[0].reader == ""


def test_a_box_on_a_radiograph_is_one_slice_thick(application):
    film = application.addVolume(np.zeros((1, 40, 60), np.uint16), np.diag([-0.2, -0.2, 1, 1]))
    flat = addNodule(film, [0.4, 0.6, 5, 9, 7, 12])
    thin = addNodule(film, [0.45, 0.55, 5, 9.5, 7, 7.4])
    assert box_nodes.boundsIn(flat, film) == pytest.approx([0, 1, 5, 9, 7, 12], abs=1e-5)
    assert np.diff(box_nodes.boundsIn(thin, film))[::2] == pytest.approx([1, 4.5, 1], abs=1e-4)


def test_a_box_that_slicer_loads_from_a_markups_file_belongs_to_no_volume(application, source, tmp_path):
    path, box = str(tmp_path / "box.mrk.json"), addNodule(source, finding='Größe: "Mass"', reader="B; <r>")
    storage = box.CreateDefaultStorageNode()
    storage.SetFileName(path)
    assert storage.WriteData(box)
    removeBoxes(source)
    assert application.moduleLogics["Markups"].LoadMarkups(path, "box")
    (box,) = box_nodes.boxesOf(application.scene)
    assert box_nodes.wordsOf(box) == ('Größe: "Mass"', "B; <r>", 0.8)
    assert box_nodes.boxesOf(application.scene, source) == []  # it may be a finding of another image


def test_a_box_is_an_outline_that_covers_nothing_of_its_finding(red, source):
    plain = red.picture()
    box = addNodule(source)
    picture = red.picture()
    changed = difference(plain, picture) > 20
    rows, columns = np.nonzero(changed)
    assert not changed[rows.min() + 5 : rows.max() - 5, columns.min() + 5 : columns.max() - 5].any()
    display.showHandles(box, True)
    assert difference(picture, red.picture()).max() > 100


def test_what_is_wrong_is_told_and_changes_nothing(application, source):
    addNodule(source)
    before = application.nodeIds()
    for words, message in (
        ({"finding": " "}, "A box needs a finding and a reader"),
        ({"reader": " "}, "A box needs a finding and a reader"),
        ({"certainty": 80}, "The certainty is 80, expected a number from 0 to 1"),
        ({"certainty": float("nan")}, "The certainty is nan, expected a number"),
    ):
        with pytest.raises(InputError, match=message):
            addNodule(source, **words)
    for k in (None, 5):
        with pytest.raises(InputError, match=f"Box 2 is on slice {k}, expected one of the 5 of the volume, from 0"):
            box_nodes.addBoxes([Box("x", 1, 2, 3, 4, 3), Box("x", 1, 2, 3, 4, k)], source)
    assert application.nodeIds() == before
