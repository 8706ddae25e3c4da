"""Modules `qt` and `ctk` and Slicer's own widgets, over PySide6, for tests of the panel without Slicer's application.

Slicer binds Qt by PythonQt, where a property of a widget is an attribute (``label.text = "..."``) and a signal is named
by a text (``button.connect("clicked()", f)``). Classes of PySide6 are subclassed so that they do the same. An attribute
that is neither a property nor a method is refused, as PythonQt refuses it.

CTK's and Slicer's widgets are stand-ins; the selector of nodes (`qMRMLNodeComboBox`) is backed by the real scene.
"""

import contextlib
import os
import re
import sys
import types

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import PySide6
from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets

# With this pair each call that returns None takes a reference away from it, until Python aborts.
if PySide6.__version_info__[:2] == (6, 12) and sys.version_info < (3, 12):
    raise ImportError("PySide6 6.12 does not work with Python 3.11: pip install 'PySide6-Essentials<6.12'")

_PLAIN = ("QObject", "QWidget", "QUiLoader", "QApplication", "QCoreApplication")
_METHODS = ("sizeHint", "minimumSizeHint")  # properties in Qt that every caller calls
_styled = {}


def styled(widgetClass):
    """A class of PySide6 with PythonQt's manners."""
    if widgetClass not in _styled:
        names = {
            "connect": _connect, "disconnect": _disconnect, "className": _className,
            "__setattr__": _setattrOf(widgetClass),
        }  # fmt: skip
        meta = widgetClass.staticMetaObject
        for index in range(meta.propertyCount()):
            name = meta.property(index).name()
            if name not in _METHODS and not isinstance(getattr(widgetClass, name, None), QtCore.Property):
                names[name] = _property(name)
        names["name"] = names["objectName"] = _property("objectName")
        _styled[widgetClass] = type(widgetClass.__name__, (widgetClass,), names)
    return _styled[widgetClass]


def _property(name):
    def write(widget, value):
        if not widget.setProperty(name, value):
            raise AttributeError(f"{type(widget).__name__}.{name} cannot be set to {value!r}")

    return property(lambda widget: widget.property(name), write)


def _setattrOf(widgetClass):
    def setattribute(widget, name, value):
        # PySide6's loader gives a top widget its children as attributes.
        child = isinstance(value, QtCore.QObject) and value.property("objectName") == name
        if not name.startswith("_") and not child and not hasattr(type(widget), name):
            raise AttributeError(f"{type(widget).__name__} has no property {name}")
        widgetClass.__setattr__(widget, name, value)

    return setattribute


def _connect(widget, signature, function):
    name, arguments = re.fullmatch(r"(\w+)\((.*)\)", signature).groups()
    count = len([argument for argument in arguments.split(",") if argument])
    signal = getattr(widget, name)
    overloads = {"int": int, "QString": str, "double": float, "bool": bool}
    if arguments in overloads:
        with contextlib.suppress(KeyError, IndexError):  # not overloaded
            signal = signal[overloads[arguments]]

    def called(*given):
        function(*given[:count])

    widget.__dict__.setdefault("_connected", {})[signature, function] = (signal, called)
    signal.connect(called)
    return True


def _disconnect(widget, signature, function):
    signal, called = widget.__dict__["_connected"].pop((signature, function))
    signal.disconnect(called)


def _className(widget):
    return type(widget).__name__


class _QtModule(types.ModuleType):
    def __getattr__(self, name):
        for module in (QtWidgets, QtGui, QtCore, QtUiTools):
            if hasattr(module, name):
                entry = getattr(module, name)
                if isinstance(entry, type) and issubclass(entry, QtCore.QObject) and name not in _PLAIN:
                    entry = styled(entry)
                setattr(self, name, entry)
                return entry
        raise AttributeError(f"Qt has no {name}")


class _CollapsibleButton(QtWidgets.QGroupBox):
    """ctkCollapsibleButton: a title that hides and shows what is below it."""

    _isCollapsed = False

    def _collapse(self, isCollapsed):
        self._isCollapsed = isCollapsed
        self.setMaximumHeight(24 if isCollapsed else 16777215)

    text = QtCore.Property(str, QtWidgets.QGroupBox.title, QtWidgets.QGroupBox.setTitle)
    collapsed = QtCore.Property(bool, lambda self: self._isCollapsed, _collapse)


class _SliderWidget(QtWidgets.QDoubleSpinBox):
    """ctkSliderWidget, without its slider: what can be set is that of its spin box."""


class _MRMLWidget(QtWidgets.QWidget):
    """qMRMLWidget: tells the scene to the selectors of nodes in it, as the .ui file asks for (test_form.py)."""

    def setMRMLScene(self, scene):
        for selector in self.findChildren(_NodeComboBox):
            selector.setMRMLScene(scene)


def _setting(name, kind):
    read, write = (
        lambda selector: selector._settings[name],
        lambda selector, value: selector._settings.update({name: value}),
    )
    return QtCore.Property(kind, read, write)


class _NodeComboBox(QtWidgets.QWidget):
    """qMRMLNodeComboBox: chooses one of the scene's nodes, follows nodes that come and go."""

    currentNodeChanged = QtCore.Signal(object)
    nodeTypes, noneEnabled = _setting("nodeTypes", "QStringList"), _setting("noneEnabled", bool)
    showChildNodeTypes = _setting("showChildNodeTypes", bool)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._box = QtWidgets.QComboBox()
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._box)
        self._settings = {"nodeTypes": [], "noneEnabled": False, "showChildNodeTypes": False}
        self._scene, self._observed, self._attributes, self._shown = None, [], [], None
        self._box.activated.connect(lambda index: self._tell())

    def setMRMLScene(self, scene):
        for tag in self._observed:
            self._scene.RemoveObserver(tag)
        self._scene, self._observed = scene, []
        if scene is not None:
            events = (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndCloseEvent, scene.EndImportEvent)
            self._observed = [scene.AddObserver(event, lambda *_: self._fill()) for event in events]
        self._fill()

    def addAttribute(self, nodeClass, name):
        self._attributes.append((nodeClass, name))
        self._fill()

    def currentNode(self):
        identity = self._box.currentData()
        return self._scene.GetNodeByID(identity) if identity and self._scene else None

    def setCurrentNode(self, node):
        first = 0 if self._settings["noneEnabled"] else -1
        self._box.setCurrentIndex(first if node is None else self._box.findData(node.GetID()))
        self._tell()

    def _isOffered(self, node):
        lacks = any(node.IsA(kind) and node.GetAttribute(name) is None for kind, name in self._attributes)
        return node.GetClassName() in self._settings["nodeTypes"] and not lacks and not node.GetHideFromEditors()

    def _fill(self):
        chosen, scene = self._box.currentData(), self._scene
        every = [scene.GetNthNode(index) for index in range(scene.GetNumberOfNodes())] if scene else []
        self._box.blockSignals(True)
        self._box.clear()
        if self._settings["noneEnabled"]:
            self._box.addItem("None", None)
        for node in filter(self._isOffered, every):
            self._box.addItem(node.GetName(), node.GetID())
        self._box.setEnabled(self._box.count() > 0)
        at, first = self._box.findData(chosen) if chosen else -1, 0 if self._box.count() else -1
        self._box.setCurrentIndex(at if at >= 0 else first)
        self._box.blockSignals(False)
        self._tell()

    def _tell(self):
        identity = self._box.currentData()
        if identity != self._shown:
            self._shown = identity
            self.currentNodeChanged.emit(self.currentNode())


CTK = {"ctkCollapsibleButton": _CollapsibleButton, "ctkSliderWidget": _SliderWidget}
SLICER = {"qMRMLWidget": _MRMLWidget, "qSlicerWidget": _MRMLWidget, "qMRMLNodeComboBox": _NodeComboBox}


class UiLoader(QtUiTools.QUiLoader):
    """Qt's loader, which takes CTK's and Slicer's widgets from here and refuses a class that is neither.

    The top widget keeps its loader, and with it the Python part of each widget, alive.
    """

    def __init__(self):
        super().__init__()
        self.made = []

    def createWidget(self, className, parent=None, name=""):
        own = {**CTK, **SLICER}.get(className)
        if own is None and not hasattr(QtWidgets, className):
            raise ValueError(f"the .ui file names a widget {className}, which no test knows")
        widget = (styled(own) if own else getattr(qt, className))(parent)
        widget.setObjectName(name)
        self.made.append(widget)
        return widget

    def load(self, device):
        text = bytes(device.readAll()).decode("utf-8")
        content = QtCore.QBuffer()
        content.setData(re.sub(r"<connections>.*</connections>", "", text, flags=re.S).encode())
        content.open(QtCore.QIODevice.ReadOnly)
        top = super().load(content)
        assert top is not None, self.errorString()
        top._loader = self
        return top


class _CtkModule(types.ModuleType):
    def __getattr__(self, name):
        """A widget of CTK that no panel here uses: Slicer's Python layer names some as types."""
        if not name.startswith("ctk"):
            raise AttributeError(f"CTK has no {name}")
        setattr(self, name, styled(type(name, (QtWidgets.QWidget,), {})))
        return getattr(self, name)


qt, ctk = _QtModule("qt"), _CtkModule("ctk")
sys.modules.update(qt=qt, ctk=ctk)
qt.QUiLoader = UiLoader
for _name, _class in {**CTK, **SLICER}.items():
    _class.__name__ = _name
for _name, _class in CTK.items():
    setattr(ctk, _name, styled(_class))

_NAMED = ("qMRMLSliderWidget", "qMRMLSpinBox", "qMRMLRangeWidget", "qMRMLCheckableNodeComboBox",
          "qMRMLSubjectHierarchyTreeView", "qMRMLSubjectHierarchyComboBox")  # fmt: skip
"""Widgets of Slicer that no panel here uses and that its Python layer names as types."""


def install(slicer):
    """Give `slicer` its widgets, and Qt its application."""
    for name, widgetClass in SLICER.items():
        setattr(slicer, name, styled(widgetClass))
    for name in _NAMED:
        setattr(slicer, name, styled(type(name, (QtWidgets.QWidget,), {})))
    return QtWidgets.QApplication.instance() or QtWidgets.QApplication(["tests"])
