"""Modules `qt` and `ctk` and Slicer's own widgets, over PySide6, for tests of the panel without Slicer's application.

Slicer binds Qt by PythonQt, where a property of a widget is an attribute (``label.text = "..."``) and a signal is named
by a text (``button.connect("clicked()", f)``). Classes of PySide6 are subclassed so that they do the same. An attribute
that is neither a property nor a method is refused, as PythonQt refuses it.

CTK's and Slicer's widgets are stand-ins: the selector of nodes (`qMRMLNodeComboBox`) is backed by the real scene, the
others draw what is needed to look at a picture of the panel. The file is used by tests only.
"""

import contextlib
import os
import re
import sys
import types

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import PySide6
import vtk
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


class _CollapsibleButton(QtWidgets.QWidget):
    """ctkCollapsibleButton: a title that hides and shows what is below it."""

    contentsCollapsed = QtCore.Signal(bool)
    _HEIGHT = 24

    def __init__(self, parent=None):
        super().__init__(parent)
        self._text, self._collapsed = "", False
        self.setContentsMargins(2, self._HEIGHT, 2, 2)

    def paintEvent(self, event):
        painter = QtGui.QPainter(self)
        # What is a property in PythonQt cannot be called through `self`.
        width, palette = QtWidgets.QWidget.width(self), QtWidgets.QWidget.palette(self)
        painter.fillRect(0, 0, width, self._HEIGHT - 2, palette.mid())
        painter.drawText(8, 16, ("▸ " if self._collapsed else "▾ ") + self._text)
        painter.end()

    def showEvent(self, event):
        self._setCollapsed(self._collapsed)

    def _setText(self, text):
        self._text = text
        self.update()

    def _setCollapsed(self, collapsed):
        changed, self._collapsed = collapsed != self._collapsed, collapsed
        for child in self.findChildren(QtWidgets.QWidget, options=QtCore.Qt.FindDirectChildrenOnly):
            if collapsed and not child.isHidden():
                child.setProperty("hiddenByCollapse", True)
                child.hide()
            elif not collapsed and child.property("hiddenByCollapse"):
                child.setProperty("hiddenByCollapse", False)
                child.show()
        self.setMaximumHeight(self._HEIGHT if collapsed else 16777215)
        self.update()
        if changed:
            self.contentsCollapsed.emit(collapsed)

    text = QtCore.Property(str, lambda self: self._text, _setText)
    collapsed = QtCore.Property(bool, lambda self: self._collapsed, _setCollapsed)


class _SliderWidget(QtWidgets.QWidget):
    """ctkSliderWidget: a slider and a spin box for one number."""

    valueChanged = QtCore.Signal(float)
    _TICKS = 1000

    def __init__(self, parent=None):
        super().__init__(parent)
        self._slider = QtWidgets.QSlider(QtCore.Qt.Horizontal)
        self._slider.setRange(0, self._TICKS)
        self._box = QtWidgets.QDoubleSpinBox()
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._slider, 1)
        layout.addWidget(self._box)
        self._box.valueChanged.connect(self._changed)

    def _changed(self, value):
        low, high = self._box.minimum(), self._box.maximum()
        self._slider.setValue(round(self._TICKS * (value - low) / (high - low)) if high > low else 0)
        self.valueChanged.emit(value)

    value = QtCore.Property(float, lambda self: self._box.value(), lambda self, value: self._box.setValue(value))
    minimum = QtCore.Property(float, lambda self: self._box.minimum(), lambda self, value: self._box.setMinimum(value))
    maximum = QtCore.Property(float, lambda self: self._box.maximum(), lambda self, value: self._box.setMaximum(value))
    singleStep = QtCore.Property(
        float, lambda self: self._box.singleStep(), lambda self, value: self._box.setSingleStep(value)
    )
    decimals = QtCore.Property(int, lambda self: self._box.decimals(), lambda self, value: self._box.setDecimals(value))


class _MRMLWidget(QtWidgets.QWidget):
    """qMRMLWidget: knows the scene."""

    mrmlSceneChanged = QtCore.Signal(object)

    def setMRMLScene(self, scene):
        self._scene = scene
        self.mrmlSceneChanged.emit(scene)


class _SlicerWidget(_MRMLWidget):
    """qSlicerWidget."""


def _setting(name, kind):
    def write(selector, value):
        selector._settings[name] = value
        selector._fill()

    return QtCore.Property(kind, lambda selector: selector._settings[name], write)


class _NodeComboBox(QtWidgets.QWidget):
    """qMRMLNodeComboBox: chooses one of the scene's nodes, follows nodes that come and go."""

    currentNodeChanged = QtCore.Signal(object)
    nodeTypes = _setting("nodeTypes", "QStringList")
    noneEnabled = _setting("noneEnabled", bool)
    showChildNodeTypes = _setting("showChildNodeTypes", bool)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._box = QtWidgets.QComboBox()
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._box)
        self._scene, self._observed, self._attributes, self._shown = None, [], [], None
        self._settings = {"nodeTypes": [], "noneEnabled": False, "showChildNodeTypes": True}
        self._box.activated.connect(lambda index: self._tell())

    def setMRMLScene(self, scene):
        for tag in self._observed:
            self._scene.RemoveObserver(tag)
        self._scene, self._observed = scene, []
        if scene is not None:
            scene_ = __import__("slicer").vtkMRMLScene
            for event in (scene_.NodeAddedEvent, scene_.NodeRemovedEvent, scene_.EndCloseEvent, scene_.EndImportEvent):
                self._observed.append(scene.AddObserver(event, self._changed))
        self._fill()

    def addAttribute(self, nodeClass, name):
        self._attributes.append((nodeClass, name))
        self._fill()

    def currentNode(self):
        identity = self._box.currentData()
        return self._scene.GetNodeByID(identity) if identity and self._scene else None

    def setCurrentNode(self, node):
        self._select(node.GetID() if node is not None else None)

    def _changed(self, scene, event):
        self._fill()

    def _nodes(self):
        nodes = []
        for index in range(self._scene.GetNumberOfNodes() if self._scene else 0):
            node = self._scene.GetNthNode(index)
            ours = node.GetClassName() in self.nodeTypes or (
                self.showChildNodeTypes and any(node.IsA(name) for name in self.nodeTypes)
            )
            lacks = any(node.IsA(kind) and node.GetAttribute(name) is None for kind, name in self._attributes)
            if ours and not lacks and not node.GetHideFromEditors():
                nodes.append(node)
        return nodes

    def _fill(self):
        chosen = self._box.currentData()
        self._box.blockSignals(True)
        self._box.clear()
        nodes = self._nodes()
        if self.noneEnabled:
            self._box.addItem("None", None)
        for node in nodes:
            self._box.addItem(node.GetName(), node.GetID())
        self._box.setEnabled(self._box.count() > 0)
        at = self._box.findData(chosen) if chosen else -1
        first = 0 if self.noneEnabled or nodes else -1
        self._box.setCurrentIndex(at if at >= 0 else first)
        self._box.blockSignals(False)
        self._tell()

    def _select(self, identity):
        at = self._box.findData(identity) if identity else (0 if self.noneEnabled else -1)
        self._box.setCurrentIndex(at)
        self._tell()

    def _tell(self):
        identity = self._box.currentData()
        if identity != self._shown:
            self._shown = identity
            self.currentNodeChanged.emit(self.currentNode())


CTK = {"ctkCollapsibleButton": _CollapsibleButton, "ctkSliderWidget": _SliderWidget}
SLICER = {"qMRMLWidget": _MRMLWidget, "qSlicerWidget": _SlicerWidget, "qMRMLNodeComboBox": _NodeComboBox}


class UiLoader(QtUiTools.QUiLoader):
    """Qt's loader, which takes CTK's and Slicer's widgets from here and refuses a class that is neither.

    It makes the connections by which Slicer's widgets are told of the scene. The top widget keeps its loader, and with
    it the Python part of each widget, alive.
    """

    def __init__(self):
        super().__init__()
        self.made = []

    def createWidget(self, className, parent=None, name=""):
        classes = {**{key: getattr(ctk, key) for key in CTK}, **{key: _slicerWidget(key) for key in SLICER}}
        if className in classes:
            widget = classes[className](parent)
        elif hasattr(QtWidgets, className):
            widget = getattr(qt, className)(parent)
        else:
            raise ValueError(f"the .ui file names a widget {className}, which no test knows")
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
        named = {widget.name: widget for widget in self.made}
        for sender, signal, receiver, slot in re.findall(
            r"<connection>\s*<sender>(\w+)</sender>\s*<signal>(.*?)</signal>\s*"
            r"<receiver>(\w+)</receiver>\s*<slot>(.*?)</slot>", text, re.S,
        ):  # fmt: skip
            assert (signal, slot) == ("mrmlSceneChanged(vtkMRMLScene*)", "setMRMLScene(vtkMRMLScene*)"), (signal, slot)
            named[sender].mrmlSceneChanged.connect(named[receiver].setMRMLScene)
        top._loader = self
        return top


def _slicerWidget(name):
    return styled(SLICER[name])


def _module(name, kind=types.ModuleType):
    module = kind(name)
    sys.modules[name] = module
    return module


class _CtkModule(types.ModuleType):
    def __getattr__(self, name):
        """A widget of CTK that no panel here uses: Slicer's Python layer names some as types."""
        if not name.startswith("ctk"):
            raise AttributeError(f"CTK has no {name}")
        setattr(self, name, styled(type(name, (QtWidgets.QWidget,), {})))
        return getattr(self, name)


qt = _module("qt", _QtModule)
ctk = _module("ctk", _CtkModule)
for _name, _class in CTK.items():
    _class.__name__ = _name
    setattr(ctk, _name, styled(_class))
qt.QUiLoader = UiLoader
for _name, _class in SLICER.items():
    _class.__name__ = _name
vtk.vtkObject.GlobalWarningDisplayOn()


_NAMED = ("qMRMLSliderWidget", "qMRMLSpinBox", "qMRMLRangeWidget", "qMRMLCheckableNodeComboBox",
          "qMRMLSubjectHierarchyTreeView", "qMRMLSubjectHierarchyComboBox")  # fmt: skip
"""Widgets of Slicer that no panel here uses and that its Python layer names as types."""


def install(slicer):
    """Give `slicer` its widgets, and Qt its application."""
    for name in SLICER:
        setattr(slicer, name, _slicerWidget(name))
    for name in _NAMED:
        setattr(slicer, name, styled(type(name, (QtWidgets.QWidget,), {})))
    return QtWidgets.QApplication.instance() or QtWidgets.QApplication(["tests"])
