"""The voxels of a region box, a slice view or the whole volume."""

import numpy as np
import pytest
import slicer
from grids import GRIDS, makeGrid
from SuperResolutionLib import region
from SuperResolutionLib.errors import InputError
from SuperResolutionLib.volumes import ijkToWorldOf, transformPoints

SHAPE = (9, 40, 60)
BOX = [2, 6, 8, 24, 16, 48]


@pytest.fixture
def volume(application):
    return application.addVolume(np.zeros(SHAPE, np.int16), GRIDS[0])


@pytest.mark.parametrize("grid", GRIDS)
def test_a_box_means_the_voxels_it_was_placed_on_and_is_cut_at_the_edge(application, grid):
    volume = application.addVolume(np.zeros(SHAPE, np.int16), grid)
    application.move(volume, makeGrid((0.2, 0.5, 0), (1, 1, 1), (50, 0, 0)))
    roi = application.addRoi(volume, BOX)
    assert roi.GetParentTransformNode() is volume.GetParentTransformNode()
    assert region.ofRoi(roi, volume) == BOX
    assert region.whole(volume) == [0, 9, 0, 40, 0, 60]
    assert region.ofRoi(application.addRoi(volume, [-3, 4, 30, 70, 50, 61]), volume) == [0, 4, 30, 40, 50, 60]


def test_a_box_means_the_voxels_that_crop_volume_cuts_out(application, volume):
    roi = application.addRoi()
    shear = makeGrid((0.2, 0.1, 0.4), (1.3, 0.8, 1.0), (5, 6, 7))
    shear[0, 1] += 0.2
    application.move(volume, shear, makeGrid((0.1, 0, 0), (1, 1, 1), (9, 0, 0)))
    application.move(roi, makeGrid((0, 0.2, 0.3), (1, 1, 1.2), (0, 4, 0)))
    random, slicersOwn = np.random.default_rng(5), [0] * 6
    middle = transformPoints(ijkToWorldOf(volume), [[29.5, 19.5, 4.0]])[0]
    for _ in range(50):
        roi.SetCenterWorld(*(middle + random.uniform(-8, 8, 3)))
        roi.SetSize(*random.uniform(6, 40, 3))
        extent = region.ofRoi(roi, volume)
        slicer.vtkSlicerCropVolumeLogic.GetVoxelBasedCropOutputExtent(roi, volume, slicersOwn, True)
        assert np.reshape(extent, (3, 2))[::-1].ravel().tolist() == [n + i % 2 for i, n in enumerate(slicersOwn)]


def test_a_thin_box_on_a_radiograph_holds_its_one_slice(application):
    film = application.addVolume(np.zeros((1, 40, 60), np.uint16), np.diag([-0.2, -0.2, 1, 1]))
    for k0, k1 in ((0.45, 0.55), (0.9, 30)):
        assert region.ofRoi(application.addRoi(film, [k0, k1, 8, 24, 16, 48]), film) == [0, 1, 8, 24, 16, 48]


@pytest.mark.parametrize(("extent", "message"), [
    ([9, 10, 0, 40, 0, 60], "Region 'R' lies outside 'chest'. Move it onto the volume."),
    ([3.2, 3.7, 0, 40, 0, 60], "'R' holds no whole voxel of 'chest'. Make it at least 1.4 wide and 1.4 high, and 5 th"),
    (None, "No region is chosen. Draw one over the image, or choose the whole volume."),
])  # fmt: skip
def test_a_box_without_voxels_is_told_with_what_to_do(application, volume, extent, message):
    with pytest.raises(InputError, match=message):
        region.ofRoi(application.addRoi(volume, extent), volume)


def test_volumes_that_no_box_can_follow_are_told(application, volume):
    roi = application.addRoi(volume, BOX)
    application.bend(volume)
    with pytest.raises(InputError, match="'chest' is bent by the transform 'Bend'. Take it out of the transform"):
        region.ofRoi(roi, volume)
    sheared = GRIDS[0].copy()
    sheared[0, 2] = 1.0
    with pytest.raises(InputError, match="The axes of 'chest' are not square to each other"):
        application.addRoi(application.addVolume(np.zeros(SHAPE, np.int16), sheared), BOX)


def sliceAt(application, volume, orientation="Axial", index=(30, 20, 4)):
    """A slice node as the view's button 'Rotate to volume plane' leaves it, through a voxel (column, row, slice)."""
    node = application.scene.AddNewNodeByClass("vtkMRMLSliceNode", "Red")
    node.SetOrientation(orientation)
    node.RotateToVolumePlane(volume)
    node.JumpSliceByCentering(*transformPoints(ijkToWorldOf(volume), np.array([index]))[0])
    return node


@pytest.mark.parametrize("grid", [*GRIDS, makeGrid((0.3, 0.2, 0.1), (0.7, 0.7, 2.5), (1, 2, 3))])
def test_the_slice_of_a_view_is_one_layer_of_voxels(application, grid):
    volume = application.addVolume(np.zeros(SHAPE, np.int16), grid)
    application.move(volume, makeGrid((0.3, 0.1, 0), (1, 1, 1), (3, 4, 5)))
    layers = {
        tuple(region.ofSlice(sliceAt(application, volume, orientation, (58.6, 7.4, 4)), volume))
        for orientation in ("Axial", "Coronal", "Sagittal")
    }
    assert layers == {(4, 5, 0, 40, 0, 60), (0, 9, 7, 8, 0, 60), (0, 9, 0, 40, 59, 60)}


def test_no_view_and_one_beside_the_volume_or_turned_against_it_are_told(application, volume):
    view = sliceAt(application, volume)
    with pytest.raises(InputError, match="No slice view is chosen"):
        region.ofSlice(None, volume)
    with pytest.raises(InputError, match="slice of view 'Red' lies beside 'chest'. Scroll the view onto the volume"):
        region.ofSlice(sliceAt(application, volume, index=(30, 20, 9.6)), volume)
    application.move(volume, makeGrid((0.2, 0, 0), (1, 1, 1), (0, 0, 0)))
    with pytest.raises(InputError, match="View 'Red' is turned against the voxels of 'chest'.*Rotate to volume plane"):
        region.ofSlice(view, volume)
