"""The .ui file against the code: what Slicer would not complain about when the panel is opened."""

import ast
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

MODULE = Path(__file__).resolve().parents[2]
BY_HAND = {"regionKind", "bundle"}
"""Parameters that the panel itself writes to its lists."""


@pytest.fixture(scope="module")
def form():
    return ElementTree.parse(MODULE / "Resources" / "UI" / "SuperResolution.ui").getroot()


@pytest.fixture(scope="module")
def code():
    return ast.parse((MODULE / "SuperResolution.py").read_text(encoding="utf-8"))


def widgets(form):
    return {widget.get("name"): widget for widget in form.find("widget").iter("widget")}


def setting(widget, name):
    return next((one[0].text for one in widget.findall("property") if one.get("name") == name), None)


def test_every_parameter_is_shown_by_a_widget(form, code):
    wrapper = next(node for node in code.body if getattr(node, "name", "") == "SuperResolutionParameterNode")
    parameters = {line.target.id for line in wrapper.body if isinstance(line, ast.AnnAssign)}
    named = {setting(widget, "SlicerParameterName") for widget in widgets(form).values()} - {None}
    assert named == parameters - BY_HAND


def test_every_selector_of_nodes_is_told_the_scene_and_offers_no_label_map_where_an_image_is_asked_for(form):
    selectors = {name: one for name, one in widgets(form).items() if one.get("class") == "qMRMLNodeComboBox"}
    assert set(selectors) == {
        one.find("receiver").text for one in form.iter("connection") if one.find("slot").text.startswith("setMRMLScene")
    }
    for name, widget in selectors.items():
        assert setting(widget, "showChildNodeTypes") == "false", name


def test_the_code_names_only_widgets_that_exist_and_forgets_none_that_can_be_used(form, code):
    named = {
        node.attr for node in ast.walk(code)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("self.ui", "ui")
    }  # fmt: skip
    existing = set(widgets(form))
    assert named <= existing
    usable = {
        name for name, one in widgets(form).items() if one.get("class") in ("QPushButton", "QTableWidget", "QComboBox")
    }
    assert usable <= named


def test_everything_that_can_be_used_has_a_tool_tip(form):
    silent = {
        name for name, widget in widgets(form).items()
        if widget.get("class") not in ("QLabel", "ctkCollapsibleButton", "qMRMLWidget", "QProgressBar")
        and not setting(widget, "toolTip")
    }  # fmt: skip
    assert not silent
