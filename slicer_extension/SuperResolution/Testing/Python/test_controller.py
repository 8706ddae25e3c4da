"""Tests of what the panel shows and asks next, without Qt, Slicer or a process: the worker is imitated."""

from dataclasses import replace

import pytest
from SuperResolutionLib import controller as trust
from SuperResolutionLib.controller import Choice, Controller, Subject, resultText

FLOW = {
    "name": "flow", "title": "Residual flow", "description": "The expected image.", "modality": "CXR", "default": True,
    "scaleZYX": [1, 4, 4], "generative": True, "hasErrorBars": True, "textures": True, "steps": 4, "lacks": None,
}  # fmt: skip
CT = {**FLOW, "name": "ct", "title": "CT", "modality": "CT", "textures": False, "steps": None, "hasErrorBars": False}
SLOW = {**CT, "name": "slow", "modality": "CXR", "default": False, "generative": True, "steps": 300}
BROKEN = {"name": "broken", "lacks": "model.pt is missing. Pack it again."}
NOT_HERE = "is not installed, or cannot run here. Choose another one, or install it."
BUNDLES = {"event": "bundles", "bundles": [CT, SLOW, FLOW]}
CHEST = Subject("chest", (1, 512, 512), (0, 1, 100, 228, 50, 178), "CXR", (1.0, 0.5, 0.5))
DONE = {
    "event": "done", "bundle": "flow", "version": "0.1.0", "scaleZYX": [1, 4, 4], "seconds": 0.82, "synthetic": False,
    "provenance": {}, "consistency": {"rms": 0.31, "max": 2.0, "unit": "grey levels"},
    "coverage": {"promised": 0.9, "calibratedOn": "80 images of 71 patients"}, "warnings": ["The spacing is unknown."],
}  # fmt: skip


def planned(needed=2e8):
    return {"event": "planned", "seconds": 0.5, "bytes": needed, "freeBytes": 6e9, "errorBars": True}


def answered(controller, event):
    """Send what the controller wants, and answer it."""
    controller.setSent(*controller.nextRequest())
    return controller.handleEvent(event)


@pytest.fixture
def controller():
    """One that knows the models and a chest."""
    controller = Controller()
    answered(controller, BUNDLES)
    controller.choose(CHEST, "", Choice())
    return controller


def test_a_crash_is_told_and_run_may_be_pressed_again(controller):
    answered(controller, planned())
    controller.setSent("enhance", controller.enhancement)
    controller.handleEvent({"event": "failed", "kind": "crash", "message": "the worker was ended by SIGSEGV."})
    panel = controller.panel()
    assert (panel.message, panel.messageIsError) == ("the worker was ended by SIGSEGV.", True)
    assert (controller.nextRequest(), panel.canRun) == (None, True)


def test_an_installation_that_finds_nothing_missing_leaves_the_running_request(controller):
    answered(controller, planned())
    controller.setSent("enhance", controller.enhancement)
    controller.setAbsent("")
    assert controller.nextRequest() is None
    assert controller.panel().canCancel
    assert controller.handleEvent(DONE).subject is CHEST


@pytest.mark.parametrize(("bundles", "subject", "choice", "message"), [
    ([FLOW], None, Choice(), "Region 'R' lies outside 'chest'. Move it."),
    ([FLOW], CHEST, Choice("gone"), f"The model gone {NOT_HERE}"),
    ([BROKEN], CHEST, Choice("broken"), f"The model broken {NOT_HERE}"),
    ([FLOW], replace(CHEST, modality="CT"), Choice(), f"The model for chest CT {NOT_HERE}"),
    ([CT], CHEST, Choice("ct"), "'chest' is CXR, and ct is made for chest CT. Choose another model, or Automatic."),
])  # fmt: skip
def test_bad_input_is_a_message_that_says_what_to_do(bundles, subject, choice, message):
    controller = Controller()
    answered(controller, {**BUNDLES, "bundles": bundles})
    controller.choose(subject, "" if subject else message, choice)
    assert (controller.panel().message, controller.panel().messageIsError) == (message, True)
    assert not controller.panel().canRun
    assert controller.nextRequest() is None


def test_a_region_larger_than_memory_cannot_be_run(controller):
    answered(controller, planned(needed=12e9))
    panel = controller.panel()
    assert panel.message.startswith("This takes 12.0 GB of memory, and 6.0 GB are free. Choose a smaller region")
    assert (panel.messageIsError, panel.canRun) == (True, False)


def test_texture_and_steps_can_be_set_where_they_do_something(controller):
    panel = controller.panel()
    assert (panel.textureEnabled, panel.stepsEnabled) == (True, False)  # texture 0 takes no steps
    assert [name for name, *_ in panel.bundles] == ["", "flow", "slow"]  # the recommended one first
    controller.choose(CHEST, "", Choice(texture=0.5, steps=8))
    assert (controller.panel().stepsEnabled, controller.enhancement.fields()["steps"]) == (True, 8)
    controller.choose(CHEST, "", Choice("slow", texture=0.5, steps=8))
    panel, choice = controller.panel(), controller.enhancement.choice
    assert panel.bundleText.endswith("It generates texture: one of many that would fit. Without error bars.")
    assert (panel.textureEnabled, choice.texture, choice.steps) == (False, 0.0, 8)


def test_a_result_is_told_with_its_consistency_and_coverage():
    assert resultText(DONE) == (
        "Enlarged x4 by flow 0.1.0 in 0.8 s. Reduced to the input's size again it differs by 0.31 grey "
        "levels (root mean square; at most 2). Error bars hold the truth of 90% of the pixels, on average over images "
        "like those they were calibrated on: 80 images of 71 patients.\nNote: The spacing is unknown."
    )
    done = {**DONE, "coverage": None, "synthetic": True, "warnings": []}
    text = "This result has no error bars. Its texture is generated: it is one of many that would fit."
    assert resultText(done).endswith(text)


@pytest.mark.parametrize(("changes", "color", "beginning"), [
    ({"warnings": []}, trust.GREEN, "On average over images like those of the tests, 90% of the pixels lie within"),
    ({}, trust.AMBER, "The spacing is unknown."),
    ({"warnings": [], "coverage": None}, trust.AMBER, "There are no error bars: how far off a pixel may be is"),
    ({"synthetic": True}, trust.RED, "The texture is generated: it is one of many that would fit, so do not"),
    ({"provenance": {"instead_of": "flow"}}, trust.RED, "Nothing was added: the image is too unlike those the model"),
])  # fmt: skip
def test_trust_is_one_colour_and_the_most_serious_reason(changes, color, beginning):
    shownColor, reason = trust.trustOf({**DONE, **changes})
    assert shownColor == color
    assert reason.startswith(beginning)
