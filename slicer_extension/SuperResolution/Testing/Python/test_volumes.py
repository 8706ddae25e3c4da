"""The volumes that the engine accepts, and their modality, spacing and voxels."""

import numpy as np
import pytest
import slicer
import vtk
from grids import GRIDS
from SuperResolutionLib import volumes
from SuperResolutionLib.errors import InputError
from SuperResolutionLib.volumes import resultAffine


def ramp(dtype, low=0, high=100):
    return np.linspace(low, high, 2 * 3 * 4).reshape(2, 3, 4).astype(dtype)


def arrayOf(volume):
    return volumes.narrow(volumes.voxelsOf(volume), volume.GetName())


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float32])
def test_what_the_engine_knows_goes_as_it_is_without_a_copy(application, dtype):
    volume = application.addVolume(ramp(dtype))
    array = arrayOf(volume)
    assert array.dtype == dtype
    np.testing.assert_array_equal(array, ramp(dtype))
    assert np.shares_memory(array, slicer.util.arrayFromVolume(volume))
    with pytest.raises(ValueError, match="read-only"):
        array[0, 0, 0] = 7


@pytest.mark.parametrize(("dtype", "low", "high", "expected"), [
    (np.int8, -128, 127, np.int16),
    (np.int32, -1024, 3071, np.int16),
    (np.int32, 0, 65535, np.uint16),
    (np.uint32, 0, 4095, np.int16),
    (np.int32, -70000, 70000, np.float32),
    (np.float64, -1024.5, 3071.25, np.float32),
])  # fmt: skip
def test_other_types_become_the_narrowest_that_holds_them(application, dtype, low, high, expected):
    volume = application.addVolume(ramp(dtype, low, high))
    array = arrayOf(volume)
    assert array.dtype == expected
    np.testing.assert_array_equal(array, slicer.util.arrayFromVolume(volume).astype(np.float32))


@pytest.mark.parametrize(("dtype", "value", "message"), [
    (np.int32, 20_000_000, "'chest' holds integers from 0 to 20000000, expected at most 16777216"),
    (np.float32, np.nan, "'chest' holds 2 values that are not numbers or are too large. Replace them"),
    (np.float64, -np.inf, "'chest' holds 2 values that are not numbers or are too large. Replace them"),
    (np.float64, 1e300, "'chest' holds 2 values that are not numbers or are too large. Replace them"),
])  # fmt: skip
def test_values_that_float32_cannot_hold_are_refused(application, dtype, value, message):
    array = ramp(dtype)
    array[0, 1, 1:3] = value
    with pytest.raises(InputError, match=message):
        arrayOf(application.addVolume(array))


def test_what_cannot_be_enhanced_is_told_with_what_to_do(application):
    add = application.scene.AddNewNodeByClass
    several = add("vtkMRMLScalarVolumeNode", "several")
    image = vtk.vtkImageData()
    image.SetDimensions(4, 3, 2)
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 3)
    several.SetAndObserveImageData(image)
    colours = application.addVolume(np.zeros((2, 3, 4, 3), np.uint8), className="vtkMRMLVectorVolumeNode")
    labels = application.addVolume(ramp(np.uint8), name="labels", className="vtkMRMLLabelMapVolumeNode")
    mr = application.addVolume(ramp(np.int16), name="brain", modality="MR")
    for node, message in (
        (None, "No volume is chosen"),
        (several, "'several' has 3 values per voxel, expected one. Convert it"),
        (colours, "several values per voxel .* Vector to Scalar Volume"),
        (labels, "'labels' is a label map: its numbers are names. Choose the image"),
        (add("vtkMRMLModelNode", "skin"), r"'skin' is no volume \(Model\). Choose a radiograph or a CT"),
        (add("vtkMRMLScalarVolumeNode", "empty"), "'empty' holds no image. Load it again"),
        (mr, r"'brain' is of DICOM modality MR. .* \(CR, DX, RG, RF, DR, XR\) and CT"),
    ):
        with pytest.raises(InputError, match=message):
            volumes.check(node)


def test_a_sequence_and_the_volume_that_shows_it_are_told(application):
    sequence = application.scene.AddNewNodeByClass("vtkMRMLSequenceNode", "breathing")
    for value in range(2):
        frame = slicer.vtkMRMLScalarVolumeNode()
        slicer.util.updateVolumeFromArray(frame, ramp(np.int16) + value)
        sequence.SetDataNodeAtValue(frame, str(value))
    browser = application.scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode")
    browser.SetAndObserveMasterSequenceNodeID(sequence.GetID())
    application.moduleLogics["Sequences"].UpdateProxyNodesFromSequences(browser)
    proxy = browser.GetProxyNode(sequence)
    assert proxy.GetImageData() is not None
    for node in (sequence, proxy):
        with pytest.raises(InputError, match="is a sequence: its voxels change with the time point. Clone"):
            volumes.check(node)


@pytest.mark.parametrize(
    ("shape", "lowest", "fileModality", "modality", "question"),
    [
        ((1, 9, 9), 0, None, "CXR", ""),  # a film as PNG
        ((1, 9, 9), -1024, None, "unknown", "'chest' does not say whether it is a radiograph or a CT."),
        ((5, 9, 9), -1024, None, "unknown", "'chest' does not say whether it is a radiograph or a CT."),
        ((5, 9, 9), -1024, "CT", "CT", ""),
        ((5, 9, 9), -1024, "[hnsf'U]", "CT", ""),  # the unit of the voxels
        ((1, 9, 9), 0, "CT", "CT", "'chest' calls itself CT, but no value lies below -200 HU"),
        ((1, 9, 9), 0, "DX", "CXR", ""),
        ((5, 9, 9), 0, "CR", "CXR", ""),
        ((5, 9, 9), 0, "DR", "CXR", ""),
        ((5, 9, 9), 0, "XR", "CXR", ""),
        ((5, 9, 9), -1024, "OT", "unknown", "'chest' does not say whether it is a radiograph or a CT."),
    ],
)
def test_what_an_image_is_is_asked_where_its_file_and_values_do_not_say_it(
    application, shape, lowest, fileModality, modality, question
):
    voxels = np.linspace(lowest, 255, np.prod(shape)).astype(np.int16).reshape(shape)
    volume = application.addVolume(voxels)
    if fileModality == "[hnsf'U]":
        units = slicer.vtkCodedEntry()
        units.SetValueSchemeMeaning(fileModality, "UCUM", "Hounsfield unit")
        volume.SetVoxelValueUnits(units)
    elif fileModality:
        application.setModality(volume, fileModality)
    volumes.check(volume)
    assert volumes.modality(volume) == modality
    assert volumes.questionOf(volume).startswith(question)
    assert bool(volumes.questionOf(volume)) == bool(question)
    volumes.setModality(volume, "CXR")
    assert (volumes.modality(volume), volumes.questionOf(volume)) == ("CXR", "")


def test_the_spacing_goes_as_slices_rows_columns(application):
    volume = application.addVolume(ramp(np.int16), GRIDS[1])
    np.testing.assert_allclose(volumes.spacingZyx(volume), (1.0, 0.143, 0.139))
    assert volumes.spacingZyx(application.addVolume(ramp(np.int16))) == (1, 1, 1)  # a CT of one millimetre keeps it


def test_spacing_is_unknown_where_nothing_says_it(application):
    film = application.addVolume(np.zeros((1, 3, 4), np.uint8), np.diag([-1, -1, 1, 1]))
    assert volumes.spacingZyx(film) is None
    film.SetAttribute(volumes.SPACING_SOURCE, "given by the user")
    assert volumes.spacingZyx(film) == (1, 1, 1)
    film.SetAttribute(volumes.SPACING_SOURCE, volumes.UNKNOWN)
    assert volumes.spacingZyx(film) is None
    film.RemoveAttribute(volumes.SPACING_SOURCE)
    film.SetSpacing(0.35, 0.35, 1)
    assert volumes.spacingZyx(film) == (1, 0.35, 0.35)
    film.AddDefaultStorageNode()
    film.GetStorageNode().SetFileName("chest.PNG")  # whose resolution says nothing about the patient
    assert volumes.spacingZyx(film) is None
    assert volumes.spacingAdvice(film) == "If you know it, set it in the Volumes module, and save the volume as NRRD."
    film.GetStorageNode().SetFileName("chest.nrrd")
    assert volumes.spacingZyx(film) == (1, 0.35, 0.35)


@pytest.mark.parametrize("grid", GRIDS)
def test_interpolation_keeps_places(application, grid):
    k, r, c = np.ogrid[0:6, 0:9, 0:10]
    volume = application.addVolume((1000 * k + 100 * r + 10 * c).astype(np.float32), grid)
    fine = volumes.resample(volume, resultAffine(grid, [2, 4, 2, 6, 3, 7], (2, 4, 4)), [0, 4, 0, 16, 0, 16])
    k, r, c = np.ogrid[0:4, 0:16, 0:16]
    expected = 1000 * (2 + (k + 0.5) / 2 - 0.5) + 100 * (2 + (r + 0.5) / 4 - 0.5) + 10 * (3 + (c + 0.5) / 4 - 0.5)
    np.testing.assert_allclose(fine, expected, atol=0.05)


def test_interpolation_reaches_to_the_outer_faces_of_a_volume(application):
    volume = application.addVolume(np.full((1, 4, 4), 500, np.int16))
    np.testing.assert_allclose(
        volumes.resample(volume, resultAffine(np.eye(4), [0, 1, 0, 4, 0, 4], (1, 4, 4)), [0, 1, 0, 16, 0, 16]), 500
    )
