"""The .ui file against the code: what Slicer would not complain about when the panel is opened."""

import ast
import xml.etree.ElementTree as ElementTree
from pathlib import Path

MODULE = Path(__file__).resolve().parents[2]
FORM = ElementTree.parse(MODULE / "Resources" / "UI" / "SuperResolution.ui").getroot()
CODE = ast.parse((MODULE / "SuperResolution.py").read_text(encoding="utf-8"))
WIDGETS = {widget.get("name"): widget for widget in FORM.find("widget").iter("widget")}
BY_HAND = {"regionKind", "bundle"}  # parameters that the panel itself writes to its lists


def setting(widget, name):
    return widget.findtext(f"property[@name='{name}']/*")


def namesOf(*classes):
    return {name for name, widget in WIDGETS.items() if widget.get("class") in classes}


def test_every_parameter_is_shown_by_a_widget():
    wrapper = next(node for node in CODE.body if getattr(node, "name", "") == "SuperResolutionParameterNode")
    parameters = {line.target.id for line in wrapper.body if isinstance(line, ast.AnnAssign)}
    assert {setting(widget, "SlicerParameterName") for widget in WIDGETS.values()} - {None} == parameters - BY_HAND


def test_every_selector_of_nodes_is_told_the_scene_and_offers_no_label_map_where_an_image_is_asked_for():
    slots = [one for one in FORM.iter("connection") if one.find("slot").text.startswith("setMRMLScene")]
    assert {one.find("receiver").text for one in slots} == namesOf("qMRMLNodeComboBox")
    for name in namesOf("qMRMLNodeComboBox"):
        assert setting(WIDGETS[name], "showChildNodeTypes") == "false", name


def test_the_code_names_only_widgets_that_exist_and_forgets_none_that_can_be_used():
    attributes = [node for node in ast.walk(CODE) if isinstance(node, ast.Attribute)]
    names = {node.attr for node in attributes if ast.unparse(node.value) in ("self.ui", "ui")}
    assert namesOf("QPushButton", "QTableWidget", "QComboBox") <= names <= set(WIDGETS)
