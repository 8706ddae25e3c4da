"""The volumes that the engine accepts, and their modality, spacing and voxels."""

import numpy as np
import pytest
import slicer
from grids import GRIDS
from SuperResolutionLib import volumes
from SuperResolutionLib.errors import InputError


def ramp(dtype, low=0, high=100):
    return np.linspace(low, high, 2 * 3 * 4).reshape(2, 3, 4).astype(dtype)


@pytest.mark.parametrize(("dtype", "low", "high", "expected"), [
    *((dtype, 0, 100, dtype) for dtype in (np.uint8, np.int16, np.uint16, np.float32)),
    (np.int8, -128, 127, np.int16),
    (np.int32, -1024, 3071, np.int16),
    (np.int32, 0, 65535, np.uint16),
    (np.uint32, 0, 4095, np.int16),
    (np.int32, -70000, 70000, np.float32),
    (np.float64, -1024.5, 3071.25, np.float32),
])  # fmt: skip
def test_voxels_of_a_type_that_the_engine_does_not_know_become_the_narrowest_that_holds_them(
    application, dtype, low, high, expected
):
    volume = application.addVolume(ramp(dtype, low, high))
    given, voxels = volumes.voxelsOf(volume), slicer.util.arrayFromVolume(volume)
    array = volumes.narrow(given, "chest")
    assert array.dtype == expected
    assert np.shares_memory(array, voxels) == (dtype == expected)
    np.testing.assert_array_equal(array, voxels.astype(np.float32))
    with pytest.raises(ValueError, match="read-only"):
        given[0, 0, 0] = 7


@pytest.mark.parametrize(("dtype", "value"), [(np.float32, np.nan), (np.float64, -np.inf), (np.float64, 1e300)])
def test_values_that_float32_cannot_hold_are_refused(dtype, value):
    array = ramp(dtype)
    array[0, 1, 1:3] = value
    with pytest.raises(InputError, match="'chest' holds 2 values that are not numbers or are too large. Replace them"):
        volumes.narrow(array, "chest")


def test_what_cannot_be_enhanced_is_told_with_what_to_do(application):
    add = application.scene.AddNewNodeByClass
    colours = application.addVolume(np.zeros((2, 3, 4, 3), np.uint8), className="vtkMRMLVectorVolumeNode")
    labels = application.addVolume(ramp(np.uint8), name="labels", className="vtkMRMLLabelMapVolumeNode")
    mr = application.addVolume(ramp(np.int16), name="brain", modality="MR")
    sequence = add("vtkMRMLSequenceNode", "breathing")
    sequence.SetDataNodeAtValue(application.addVolume(ramp(np.int16)), "0")
    browser = add("vtkMRMLSequenceBrowserNode")
    browser.SetAndObserveMasterSequenceNodeID(sequence.GetID())
    application.moduleLogics["Sequences"].UpdateProxyNodesFromSequences(browser)
    for node, message in (
        (None, "No volume is chosen"),
        (browser.GetProxyNode(sequence), "is a sequence: its voxels change with the time point. Clone"),
        (colours, "several values per voxel .* Vector to Scalar Volume"),
        (labels, "'labels' is a label map: its numbers are names. Choose the image"),
        (add("vtkMRMLModelNode", "skin"), "'skin' holds no image. Load it again"),
        (add("vtkMRMLScalarVolumeNode", "empty"), "'empty' holds no image. Load it again"),
        (mr, "'brain' is of DICOM modality MR. The models know chest radiographs and CT."),
    ):
        with pytest.raises(InputError, match=message):
            volumes.check(node)


@pytest.mark.parametrize(("shape", "lowest", "fileModality", "unit", "modality", "question"), [
    ((1, 9, 9), 0, "", "", "CXR", ""),  # a film as PNG
    ((1, 9, 9), -1024, "", "", "unknown", "'chest' does not say whether it is a radiograph or a CT."),
    ((5, 9, 9), -1024, "", "", "unknown", "'chest' does not say whether it is a radiograph or a CT."),
    ((5, 9, 9), -1024, "CT", "", "CT", ""),
    ((5, 9, 9), -1024, "", "[hnsf'U]", "CT", ""),
    ((1, 9, 9), 0, "CT", "[hnsf'U]", "CT", "'chest' calls itself CT, but no value lies below -200 HU"),
    ((5, 9, 9), 0, "CR", "", "CXR", ""),
    ((5, 9, 9), -1024, "OT", "", "unknown", "'chest' does not say whether it is a radiograph or a CT."),
])  # fmt: skip
def test_what_an_image_is_is_asked_where_its_file_and_values_do_not_say_it(
    application, shape, lowest, fileModality, unit, modality, question
):
    voxels = np.linspace(lowest, 255, np.prod(shape)).astype(np.int16).reshape(shape)
    volume, units = application.addVolume(voxels, modality=fileModality), slicer.vtkCodedEntry()
    units.SetValueSchemeMeaning(unit, "UCUM", "Hounsfield unit")
    volume.SetVoxelValueUnits(units)
    volumes.check(volume)
    assert volumes.modality(volume) == modality
    assert volumes.questionOf(volume).startswith(question)
    assert bool(volumes.questionOf(volume)) == bool(question)
    volume.SetAttribute(volumes.MODALITY, "CXR")
    assert (volumes.modality(volume), volumes.questionOf(volume)) == ("CXR", "")


def test_the_spacing_goes_as_slices_rows_columns_and_is_unknown_where_nothing_says_it(application):
    volume = application.addVolume(ramp(np.int16), GRIDS[1])
    np.testing.assert_allclose(volumes.spacingZyx(volume), (1.0, 0.143, 0.139))
    assert volumes.spacingZyx(application.addVolume(ramp(np.int16))) == (1, 1, 1)  # a CT of one millimetre keeps it
    film = application.addVolume(np.zeros((1, 3, 4), np.uint8), np.diag([-1, -1, 1, 1]))
    for source, spacing in ((None, None), ("given by the user", (1, 1, 1)), (volumes.UNKNOWN, None)):
        film.SetAttribute(volumes.SPACING_SOURCE, source)
        assert volumes.spacingZyx(film) == spacing
    film.RemoveAttribute(volumes.SPACING_SOURCE)
    film.SetSpacing(0.35, 0.35, 1)
    assert volumes.spacingZyx(film) == (1, 0.35, 0.35)
    film.AddDefaultStorageNode()
    film.GetStorageNode().SetFileName("chest.PNG")  # whose resolution says nothing about the patient
    assert volumes.spacingZyx(film) is None
    assert volumes.spacingAdvice(film).startswith("If you know it, set it in the Volumes module.")
