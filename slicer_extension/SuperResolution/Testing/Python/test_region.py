"""The voxels of a region box, a slice view or the whole volume."""

import numpy as np
import pytest
import slicer
from grids import GRIDS, makeGrid
from SuperResolutionLib import region
from SuperResolutionLib.errors import InputError

SHAPE = (9, 40, 60)


@pytest.fixture
def volume(application):
    return application.addVolume(np.zeros(SHAPE, np.int16), GRIDS[0])


def slicersOwn(roi, volume):
    extent = [0] * 6
    slicer.vtkSlicerCropVolumeLogic.GetVoxelBasedCropOutputExtent(roi, volume, extent, True)
    i0, i1, j0, j1, k0, k1 = extent
    return [k0, k1 + 1, j0, j1 + 1, i0, i1 + 1]


def test_a_whole_volume_is_slices_rows_and_columns(volume):
    assert region.whole(volume) == [0, 9, 0, 40, 0, 60]


@pytest.mark.parametrize("grid", GRIDS)
def test_a_box_placed_on_voxels_means_these_voxels(application, grid):
    volume = application.addVolume(np.zeros(SHAPE, np.int16), grid)
    roi = application.addRoi(volume, [2, 6, 8, 24, 16, 48])
    assert region.ofRoi(roi, volume) == [2, 6, 8, 24, 16, 48]


def test_a_box_means_the_voxels_that_crop_volume_cuts_out(application, volume):
    random = np.random.default_rng(5)
    roi = application.addRoi()
    middle = region.outerCorners(GRIDS[0], [0, 9, 0, 40, 0, 60]).mean(axis=0)
    for _ in range(50):
        roi.SetCenter(*(middle + random.uniform(-8, 8, 3)))
        roi.SetSize(*random.uniform(6, 40, 3))
        assert region.ofRoi(roi, volume) == slicersOwn(roi, volume)


def test_transforms_of_box_and_volume_count_and_their_nodes_stay_as_they_are(application, volume):
    shear = makeGrid((0.2, 0.1, 0.4), (1.3, 0.8, 1.0), (5, 6, 7))
    shear[0, 1] += 0.2
    inner = application.addTransform(shear)
    inner.SetAndObserveTransformNodeID(application.addTransform(makeGrid((0.1, 0, 0), (1, 1, 1), (9, 0, 0))).GetID())
    volume.SetAndObserveTransformNodeID(inner.GetID())
    roi = application.addRoi()
    roi.SetAndObserveTransformNodeID(application.addTransform(makeGrid((0, 0.2, 0.3), (1, 1, 1.2), (0, 4, 0))).GetID())
    world = region.transformPoints(
        region.toWorldOf(volume), region.outerCorners(GRIDS[0], [0, 9, 0, 40, 0, 60]).mean(axis=0)[None]
    )
    roi.SetCenterWorld(*world[0])
    roi.SetSize(25, 20, 15)
    before = (roi.GetMTime(), volume.GetMTime(), application.nodeIds())

    extent = region.ofRoi(roi, volume)

    assert (roi.GetMTime(), volume.GetMTime(), application.nodeIds()) == before
    assert extent == slicersOwn(roi, volume)
    assert extent != region.whole(volume)


def test_a_box_on_a_transformed_volume_goes_with_it(application, volume):
    volume.SetAndObserveTransformNodeID(
        application.addTransform(makeGrid((0.2, 0.5, 0), (1, 1, 1), (50, 0, 0))).GetID()
    )
    roi = application.addRoi(volume, [1, 3, 4, 20, 8, 24])
    assert roi.GetParentTransformNode() is volume.GetParentTransformNode()
    assert region.ofRoi(roi, volume) == [1, 3, 4, 20, 8, 24]


def test_a_box_that_reaches_over_the_edge_is_cut_there(application, volume):
    assert region.ofRoi(application.addRoi(volume, [-3, 4, 30, 70, 50, 61]), volume) == [0, 4, 30, 40, 50, 60]


def test_a_thin_box_on_a_radiograph_holds_its_one_slice_and_one_above_it_is_outside(application):
    film = application.addVolume(np.zeros((1, 40, 60), np.uint16), np.diag([-0.2, -0.2, 1, 1]))
    assert region.ofRoi(application.addRoi(film, [0.45, 0.55, 8, 24, 16, 48]), film) == [0, 1, 8, 24, 16, 48]
    assert region.ofRoi(application.addRoi(film, [0.9, 30, 8, 24, 16, 48]), film) == [0, 1, 8, 24, 16, 48]
    with pytest.raises(InputError, match=r"outside 'chest': it covers slices 2.0 to 3.0 of 1. Move it onto the volume"):
        region.ofRoi(application.addRoi(film, [2, 3, 8, 24, 16, 48]), film)


@pytest.mark.parametrize(("extent", "message"), [
    ([0, 9, 0, 40, 61, 70], "Region 'R' lies outside 'chest': it covers columns 61.0 to 70.0 of 60. Move"),
    ([3.2, 3.7, 0, 40, 0, 60], "no whole voxel .* slices it is 1.25 thick, and a voxel is 2.5. Make it at le"),
    (None, "Region 'R' has no size yet. Finish drawing it"),
])  # fmt: skip
def test_a_box_without_voxels_is_told_with_what_to_do(application, volume, extent, message):
    with pytest.raises(InputError, match=message):
        region.ofRoi(application.addRoi(volume, extent), volume)


def test_without_a_box_or_a_view_that_is_told(volume):
    with pytest.raises(InputError, match="No region is chosen. Draw a region box"):
        region.ofRoi(None, volume)
    with pytest.raises(InputError, match="No slice view is chosen"):
        region.ofSlice(None, volume)


def test_no_volume_is_told_by_every_kind_of_region(application):
    for ask in (region.whole, lambda volume: region.ofRoi(None, volume), lambda volume: region.ofSlice(None, volume)):
        with pytest.raises(InputError, match="No volume is chosen. Load a chest radiograph or a chest CT"):
            ask(None)


def test_a_transform_that_bends_is_told_and_does_not_matter_to_the_whole_volume(application, volume):
    roi = application.addRoi(volume, [2, 6, 8, 24, 16, 48])
    volume.SetAndObserveTransformNodeID(application.addBend().GetID())
    with pytest.raises(InputError, match="'chest' is bent by the transform 'Bend'. Take it out of the transform"):
        region.ofRoi(roi, volume)
    assert region.whole(volume) == [0, 9, 0, 40, 0, 60]


def test_a_volume_whose_axes_are_not_square_takes_no_box(application):
    sheared = GRIDS[0].copy()
    sheared[0, 2] = 1.0
    volume = application.addVolume(np.zeros(SHAPE, np.int16), sheared)
    with pytest.raises(InputError, match="The axes of 'chest' are not square to each other"):
        application.addRoi(volume, [2, 6, 8, 24, 16, 48])


def sliceAt(application, volume, axis, layer):
    """A slice node as the view's button 'Rotate to volume plane' leaves it, at the middle of one layer of voxels."""
    node = application.scene.AddNode(slicer.vtkMRMLSliceNode())
    node.SetName("Red")
    ijkToWorld = region.toWorldOf(volume) @ region.ijkToRasOf(volume)
    columns = np.roll(ijkToWorld[:3, :3] / np.linalg.norm(ijkToWorld[:3, :3], axis=0), 2 - axis, axis=1)
    index = np.array(region.shapeOf(volume)[::-1]) / 2.0
    index[axis] = layer
    matrix = np.eye(4)
    matrix[:3, :3] = columns
    matrix[:3, 3] = region.transformPoints(ijkToWorld, index[None])[0]
    node.GetSliceToRAS().DeepCopy(slicer.util.vtkMatrixFromArray(matrix))
    node.UpdateMatrices()
    return node


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize(
    ("axis", "layer", "extent"),
    [(2, 4, [4, 5, 0, 40, 0, 60]), (1, 7.4, [0, 9, 7, 8, 0, 60]), (0, 58.6, [0, 9, 0, 40, 59, 60])],
)
def test_the_slice_of_a_view_is_one_layer_of_voxels(application, grid, axis, layer, extent):
    volume = application.addVolume(np.zeros(SHAPE, np.int16), grid)
    volume.SetAndObserveTransformNodeID(application.addTransform(makeGrid((0.3, 0.1, 0), (1, 1, 1), (3, 4, 5))).GetID())
    assert region.ofSlice(sliceAt(application, volume, axis, layer), volume) == extent


@pytest.mark.parametrize(("orientation", "extent"), [
    ("Axial", [4, 5, 0, 40, 0, 60]), ("Coronal", [0, 9, 20, 21, 0, 60]), ("Sagittal", [0, 9, 0, 40, 30, 31]),
])  # fmt: skip
def test_rotate_to_volume_plane_makes_a_slice_of_a_turned_volume_enhanceable(application, orientation, extent):
    volume = application.addVolume(np.zeros(SHAPE, np.int16), makeGrid((0.3, 0.2, 0.1), (0.7, 0.7, 2.5), (1, 2, 3)))
    node = application.scene.AddNewNodeByClass("vtkMRMLSliceNode", "Red")
    node.SetOrientation(orientation)
    node.RotateToVolumePlane(volume)
    node.JumpSliceByCentering(*region.transformPoints(region.ijkToRasOf(volume), np.array([[30, 20, 4]]))[0])
    assert region.ofSlice(node, volume) == extent


def test_a_view_beside_the_volume_is_told(application, volume):
    with pytest.raises(InputError, match="slice of view 'Red' lies beside 'chest'. Scroll the view onto the volume"):
        region.ofSlice(sliceAt(application, volume, 2, 9.6), volume)


def test_a_view_turned_against_the_volume_is_told(application, volume):
    view = sliceAt(application, volume, 2, 4)
    volume.SetAndObserveTransformNodeID(application.addTransform(makeGrid((0.2, 0, 0), (1, 1, 1), (0, 0, 0))).GetID())
    with pytest.raises(InputError, match="View 'Red' is turned against the voxels of 'chest'.*Rotate to volume plane"):
        region.ofSlice(view, volume)
