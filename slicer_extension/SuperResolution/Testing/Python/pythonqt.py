"""Modules `qt` and `ctk` and Slicer's own widgets, over PySide6, for tests of the panel without Slicer's application.

Slicer binds Qt by PythonQt, where a property of a widget is an attribute (``label.text = "..."``), any other attribute
is refused, and a signal is named by a text (``button.connect("clicked()", f)``). Subclasses of PySide6's classes do the
same. CTK's and Slicer's widgets are stand-ins; the selector of nodes (`qMRMLNodeComboBox`) shows the real scene.
"""

import functools
import os
import sys
import types

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import shiboken6
from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets

_PLAIN = ("QObject", "QWidget", "QUiLoader", "QApplication", "QCoreApplication")
_METHODS = ("sizeHint", "minimumSizeHint")  # properties in Qt that every caller calls


@functools.cache
def styled(widgetClass):
    """A class of PySide6 with PythonQt's manners."""

    def setattribute(widget, name, value):
        # PySide6's loader gives a top widget its children as attributes.
        child = isinstance(value, QtCore.QObject) and value.property("objectName") == name
        if not name.startswith("_") and not child and not hasattr(type(widget), name):
            raise AttributeError(f"{type(widget).__name__} has no property {name}")
        widgetClass.__setattr__(widget, name, value)

    names = {
        "connect": connect, "disconnect": disconnect, "className": lambda widget: type(widget).__name__,
        "__setattr__": setattribute, "name": _property("objectName"),
        "__bool__": lambda widget: shiboken6.isValid(widget),
    }  # fmt: skip
    meta = widgetClass.staticMetaObject
    for name in [meta.property(index).name() for index in range(meta.propertyCount())]:
        if name not in _METHODS and not isinstance(getattr(widgetClass, name, None), QtCore.Property):
            names[name] = _property(name)
    return type(widgetClass.__name__, (widgetClass,), names)


def _property(name):
    def write(widget, value):
        if not widget.setProperty(name, value):
            raise AttributeError(f"{type(widget).__name__}.{name} cannot be set to {value!r}")

    return property(lambda widget: widget.property(name), write)


def connect(widget, signature, function):
    if widget.metaObject().indexOfSignal(signature) < 0:
        raise ValueError(f"{type(widget).__name__} has no signal {signature}")
    return QtCore.QObject.connect(widget, QtCore.SIGNAL(signature), function)


def disconnect(widget, signature, function):
    return QtCore.QObject.disconnect(widget, QtCore.SIGNAL(signature), function)


class ctkCollapsibleButton(QtWidgets.QGroupBox):
    """A title that hides and shows what is below it."""

    _isCollapsed = False

    def _collapse(self, isCollapsed):
        self._isCollapsed = isCollapsed
        self.setMaximumHeight(24 if isCollapsed else 16777215)

    text = QtCore.Property(str, QtWidgets.QGroupBox.title, QtWidgets.QGroupBox.setTitle)
    collapsed = QtCore.Property(bool, lambda self: self._isCollapsed, _collapse)


class ctkSliderWidget(QtWidgets.QDoubleSpinBox):
    """Without its slider: what can be set is that of its spin box."""


class qMRMLWidget(QtWidgets.QWidget):
    """Tells the scene to the selectors of nodes in it, as the .ui file asks for (test_form.py)."""

    def setMRMLScene(self, scene):
        for selector in self.findChildren(qMRMLNodeComboBox):
            selector.setMRMLScene(scene)


class qMRMLNodeComboBox(QtWidgets.QComboBox):
    """Chooses one of the scene's nodes or none, follows nodes that come and go."""

    currentNodeChanged = QtCore.Signal(object)
    nodeTypes = ()

    def __init__(self, parent=None):
        super().__init__(parent)
        self._scene, self._tags, self._attributes, self._nodeId = None, [], [], None
        self.activated.connect(lambda index: self._tell())

    def setMRMLScene(self, scene):
        for tag in self._tags:
            self._scene.RemoveObserver(tag)
        self._scene, self._tags = scene, []
        if scene is not None:
            events = (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndCloseEvent, scene.EndImportEvent)
            self._tags = [scene.AddObserver(event, lambda *_: self._fill()) for event in events]
        self._fill()

    def addAttribute(self, nodeClass, name):
        self._attributes.append((nodeClass, name))
        self._fill()

    def currentNode(self):
        return self._scene.GetNodeByID(self.currentData) if self.currentData and self._scene else None

    def setCurrentNode(self, node):
        self.setCurrentIndex(0 if node is None else self.findData(node.GetID()))
        self._tell()

    def _isOffered(self, node):
        lacks = any(node.IsA(kind) and node.GetAttribute(name) is None for kind, name in self._attributes)
        return node.GetClassName() in self.nodeTypes and not lacks and not node.GetHideFromEditors()

    def _fill(self):
        identity, scene = self.currentData, self._scene
        self.clear()
        self.addItem("None", None)
        nodes = [scene.GetNthNode(index) for index in range(scene.GetNumberOfNodes())] if scene else []
        for node in filter(self._isOffered, nodes):
            self.addItem(node.GetName(), node.GetID())
        self.setCurrentIndex(max(self.findData(identity), 0))
        self._tell()

    def _tell(self):
        if self.currentData != self._nodeId:
            self._nodeId = self.currentData
            self.currentNodeChanged.emit(self.currentNode())


WIDGETS = {each.__name__: each for each in (ctkCollapsibleButton, ctkSliderWidget, qMRMLWidget, qMRMLNodeComboBox)}


class UiLoader(QtUiTools.QUiLoader):
    """Qt's loader, which takes CTK's and Slicer's widgets from here and refuses a class that is neither."""

    def load(self, device):
        self._widgets = []
        top = super().load(device)
        top._widgets = self._widgets  # keeps the Python part of each widget alive
        return top

    def createWidget(self, className, parent=None, name=""):
        widget = (_slicerClass if className in WIDGETS else _qtClass)(className)(parent)
        widget.setObjectName(name)
        self._widgets.append(widget)
        return widget


def _qtClass(name):
    for module in (QtWidgets, QtGui, QtCore):
        if hasattr(module, name):
            entry = getattr(module, name)
            isStyled = isinstance(entry, type) and issubclass(entry, QtCore.QObject) and name not in _PLAIN
            return styled(entry) if isStyled else entry
    raise AttributeError(f"Qt has no {name}")


@functools.cache
def _slicerClass(name):
    """A widget that the panel has, or one that it has not and that Slicer's Python layer names as a type."""
    if not name.startswith(("ctk", "qMRML", "qSlicer")):
        raise AttributeError(f"there is no {name}")
    return styled(WIDGETS.get(name) or type(name, (QtWidgets.QWidget,), {}))


qt, ctk = types.ModuleType("qt"), types.ModuleType("ctk")
qt.__getattr__, ctk.__getattr__, qt.QUiLoader = _qtClass, _slicerClass, UiLoader
sys.modules.update(qt=qt, ctk=ctk)


def install(slicer):
    """Give `slicer` its widgets, and Qt its application."""
    slicer.__getattr__ = _slicerClass
    return QtWidgets.QApplication.instance() or QtWidgets.QApplication(["tests"])
