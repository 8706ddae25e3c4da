"""Windows to choose from, and the words for what lies under the mouse."""

import re

import numpy as np
import phantom_volumes
import pytest
import slicer
from dicomfiles import databaseOf
from SuperResolutionLib import headers, volumes, windows
from SuperResolutionLib.controller import inNumbers


def test_all_windows_of_the_file_are_offered_then_those_of_ct_then_the_full_range(application, source, monkeypatch):
    application.setModality(source, "CT")
    source.GetDisplayNode().AddWindowLevelPreset(1200, -600)  # Slicer's reader keeps one of them
    assert windows.windowsOf(source)[0] == ("file", 1200, -600)
    header = {windows.CENTER: "40\\-600\\7", windows.WIDTH: "400\\1200\\0", windows.EXPLANATION: "SOFT\\LUNG"}
    source.SetAttribute(volumes.UIDS, "1.2.3")
    monkeypatch.setattr(slicer, "dicomDatabase", databaseOf(header), raising=False)
    assert [windows.describe(window) for window in windows.windowsOf(source)] == [
        "SOFT: 400 / 40", "LUNG: 1200 / -600", "lung: 1500 / -600", "bone: 1800 / 400", "full",
    ]  # fmt: skip


@pytest.mark.parametrize(("blackIsHigh", "level"), [(False, 3095), (True, 1000)])
def test_the_window_of_a_film_that_the_reader_has_inverted_is_mirrored(application, monkeypatch, blackIsHigh, level):
    film = application.addVolume(np.full((1, 4, 4), 900, np.int16), modality="DX")
    film.SetAttribute(volumes.UIDS, "1.2.3")
    values = {windows.CENTER: "1000", windows.WIDTH: "2000", headers.PHOTOMETRIC: "MONOCHROME1"}
    monkeypatch.setattr(slicer, "dicomDatabase", databaseOf(values), raising=False)
    header = headers.Header(storedRange=(0, 4095), blackIsHigh=blackIsHigh)
    monkeypatch.setattr(headers, "headerOf", lambda volume: header)
    assert windows.windowsOf(film) == [("file", 2000, level), ("full", 0, 0)]  # and none of a CT


def test_a_window_is_shown_and_full_is_all_that_the_volume_holds(source):
    windows.show(source, windows.Window("lung", 1500, -600))
    display = source.GetDisplayNode()
    assert (display.GetWindow(), display.GetLevel(), display.GetAutoWindowLevel()) == (1500, -600, 0)
    windows.show(source, windows.windowsOf(source)[-1])
    assert (display.GetWindowLevelMin(), display.GetWindowLevelMax()) == pytest.approx(
        (phantom_volumes.COARSE.min(), phantom_volumes.COARSE.max())
    )


def test_the_place_under_the_mouse_is_told_with_its_values_before_and_after(application, red, source, result):
    application.setModality(source, "CT")
    red.node.SetSliceOffset(phantom_volumes.world(2, 0, 0)[2])
    position = phantom_volumes.world(2, 4 * 12 + 1.5, 4 * 20 + 1.5)
    red.moveMouse(*red.xy(position))
    text = windows.textAt(application.crosshair, source, result)
    zoom = 2.8 / (red.node.GetFieldOfView()[0] / 420)
    after, width = (array[1, 17, 49] for array in (phantom_volumes.RESULT, phantom_volumes.BARS))
    assert text.startswith("slice 3 of 5; column 20, row 12; R ")
    assert f"; {phantom_volumes.COARSE[2, 12, 20]:g} HU, enhanced {inNumbers(after)} ± {inNumbers(width)}; " in text
    assert text.endswith(f"; zoom {zoom:.0%}")
    red.moveMouse(*red.xy(phantom_volumes.world(2, 4 * 2, 4 * 2)))
    assert "enhanced" not in windows.textAt(application.crosshair, source, result)
    red.node.SetFieldOfView(300, 240, 1)
    red.moveMouse(1, 170)
    assert windows.textAt(application.crosshair, source, result) == ""


def test_a_film_has_no_position_in_a_patient(application, sliceView):
    film = application.addVolume(phantom_volumes.COARSE[:1] + 30000, np.diag([-0.5, -0.5, 1, 1]), modality="DX")
    view = sliceView("Red", 420, 340)
    view.show(film)
    view.moveMouse(210, 170)
    text = windows.textAt(application.crosshair, film)
    assert re.fullmatch(r"column \d+, row \d+; \d+ grey levels; zoom \d+%", text)
