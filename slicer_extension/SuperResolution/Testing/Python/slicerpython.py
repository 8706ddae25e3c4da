"""Slicer's application and its Python layer, as far as a scripted module needs them, for tests without Slicer.

The Python layer (`ScriptedLoadableModule`, `parameterNodeWrapper`) is Slicer's own where SUPERRESOLUTION_SLICER_PYTHON
names the folder `Base/Python` of Slicer's sources, and a stand-in of the same manners else. Nothing of Slicer's sources
is kept here.
"""

import importlib.util
import os
import sys
import types
from enum import Enum
from pathlib import Path
from typing import get_args, get_origin, get_type_hints

import pythonqt
import qt
import slicer
import vtk

SLICER_PYTHON = "SUPERRESOLUTION_SLICER_PYTHON"


class Settings(dict):
    """The user's settings, for as long as the tests run."""

    def value(self, name, default=None):
        return self.get(name, default)

    setValue = dict.__setitem__


class Application(qt.QObject):
    """slicer.app: what the panel asks of it."""

    def __init__(self, core):
        super().__init__()
        self._core = core
        self.testingEnabled = True
        self.slicerHome = ""
        self.temporaryPath = core.cacheFolder.name
        self.connected = []
        self._settings = Settings()
        self.asked, self.answer = [], True

    def applicationLogic(self):
        return self._core.logic

    def layoutManager(self):
        return None

    def moduleManager(self):
        return self

    def connect(self, signal, function):
        self.connected.append((signal, function))

    def disconnect(self, signal, function):
        self.connected.remove((signal, function))

    def start(self):
        """Send the signal that Slicer sends once all modules are loaded."""
        for signal, function in list(self.connected):
            if signal == "startupCompleted()":
                function()

    def settings(self):
        return self.userSettings()

    def userSettings(self):
        return self._settings

    def moduleDocumentationUrl(self, name):
        return f"https://example.org/{name}"

    def processEvents(self):
        qt.QApplication.processEvents()

    def translate(self, context, text):
        return text


def start(core):
    """Set up `slicer` for a scripted module, on the scene of `application.Application`.

    Returns:
        slicer.app.
    """
    pythonqt.install(slicer)
    slicer.app = Application(core)
    slicer.modules = types.SimpleNamespace()
    slicer.selfTests = {}
    folder = os.environ.get(SLICER_PYTHON)
    if folder:
        slicer.__path__.append(str(Path(folder) / "slicer"))  # where `import slicer.parameterNodeWrapper` finds it
    elif "slicer.ScriptedLoadableModule" not in sys.modules:
        _standIn("slicer.ScriptedLoadableModule", ScriptedLoadableModule, ScriptedLoadableModuleWidget,
                 ScriptedLoadableModuleLogic, ScriptedLoadableModuleTest)  # fmt: skip
        _standIn("slicer.parameterNodeWrapper", parameterNodeWrapper, WithinRange)
        _standIn("slicer.i18n", tr=lambda text: text, translate=lambda context, text: text)
    slicer.util.loadUI = pythonqt.loadUi
    slicer.util.mainWindow = lambda: None
    slicer.util.settingsValue = lambda key, default, converter=None, settings=None: default
    slicer.util.confirmOkCancelDisplay = lambda text, *arguments, **options: (
        slicer.app.asked.append(text) or slicer.app.answer
    )
    return slicer.app


def openModule(path):
    """Load a scripted module as Slicer does. Returns the Python module, and makes `slicer.modules` know it."""
    path = Path(path)
    name = path.stem
    sys.path.insert(0, str(path.parent))
    specification = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    specification.loader.exec_module(module)
    slicer.util.modulePath = lambda moduleName: str(path)
    parent = types.SimpleNamespace(path=str(path), icon=None)
    instance = types.SimpleNamespace(path=str(path), parent=parent, module=getattr(module, name)(parent))
    setattr(slicer.modules, name.lower(), instance)
    return module


def _standIn(name, *objects, **named):
    module = types.ModuleType(name)
    for item in objects:
        named[item.__name__] = item
    module.__dict__.update(named, __all__=list(named))
    sys.modules[name] = module
    short = name.split(".")[-1]
    setattr(slicer, short, module)


class ScriptedLoadableModule:
    def __init__(self, parent):
        self.parent = parent
        self.moduleName = type(self).__name__
        slicer.selfTests[self.moduleName] = self.runTest

    def runTest(self, msec=100, **options):
        testClass = getattr(sys.modules[self.__module__], f"{self.moduleName}Test")
        testClass().runTest(**options)


class ScriptedLoadableModuleWidget:
    def __init__(self, parent=None):
        super().__init__()
        self.moduleName = type(self).__name__[: -len("Widget")]
        self.developerMode = False
        self.parent = parent or slicer.qMRMLWidget()
        if parent is None:
            self.parent.setLayout(qt.QVBoxLayout())
            self.parent.setMRMLScene(slicer.mrmlScene)
        self.layout = self.parent.layout()
        if parent is None:
            self.setup()
            self.parent.show()

    def resourcePath(self, name):
        return os.path.join(os.path.dirname(slicer.util.modulePath(self.moduleName)), "Resources", name)

    def setup(self):
        pass

    def cleanup(self):
        pass


class ScriptedLoadableModuleLogic:
    def __init__(self, parent=None):
        self.moduleName = type(self).__name__[: -len("Logic")]
        self.isSingletonParameterNode = True

    def getParameterNode(self):
        node = slicer.mrmlScene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
        if node is None:
            node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLScriptedModuleNode")
            node.UnRegister(None)
            node.SetSingletonTag(self.moduleName)
            node = slicer.mrmlScene.AddNode(node)
        node.SetAttribute("ModuleName", self.moduleName)
        node.SetModuleName(self.moduleName)
        return node


class ScriptedLoadableModuleTest(__import__("unittest").TestCase):
    def __init__(self, *arguments):
        super().__init__(*(arguments or ("runTest",)))

    def delayDisplay(self, message, requestedDelay=None, msec=None):
        pass


class WithinRange:
    """Annotation of a parameter: the bounds of its widget."""

    def __init__(self, minimum, maximum):
        self.minimum, self.maximum = minimum, maximum


class _Parameter:
    """One typed entry of a vtkMRMLScriptedModuleNode, and the widgets it is shown by."""

    def __init__(self, name, annotated, default):
        self.name, self.limits = name, None
        self.kind = annotated
        if get_origin(annotated) is not None:
            self.kind, *notes = get_args(annotated)
            self.limits = next((note for note in notes if isinstance(note, WithinRange)), None)
        self.isNode = issubclass(self.kind, slicer.vtkMRMLNode)
        self.default = default if default is not None else (None if self.isNode else self.kind())

    def read(self, node):
        if self.isNode:
            return node.GetNodeReference(self.name)
        text = node.GetParameter(self.name)
        return text == "True" if self.kind is bool else self.kind(text)

    def write(self, node, value):
        if self.isNode:
            if value is not None and not isinstance(value, self.kind):
                raise ValueError(f"{self.name} is {value!r}, expected {self.kind.__name__}")
            modified = node.StartModify()
            node.SetParameter(self.name, "")
            node.SetNodeReferenceID(self.name, value.GetID() if value is not None else None)
            node.EndModify(modified)
            return
        allowed = (int, float) if self.kind is float else self.kind
        if not isinstance(value, allowed) or isinstance(value, Enum):
            raise ValueError(f"{self.name} is {value!r}, expected {self.kind.__name__}")
        if self.limits and not self.limits.minimum <= value <= self.limits.maximum:
            raise ValueError(f"{self.name} is {value!r}, expected {self.limits.minimum} to {self.limits.maximum}")
        node.SetParameter(self.name, str(value))

    def property(self):
        return property(
            lambda wrapper: self.read(wrapper.parameterNode),
            lambda wrapper, value: self.write(wrapper.parameterNode, value),
        )


# Which widget shows which type, by which property and signal: as Slicer's connectors have it.
_CONNECTORS = {
    ("QCheckBox", bool): ("checked", "stateChanged"),
    ("QSpinBox", int): ("value", "valueChanged"),
    ("QDoubleSpinBox", float): ("value", "valueChanged"),
    ("ctkSliderWidget", float): ("value", "valueChanged"),
    ("QLineEdit", str): ("text", "textChanged"),
}


class _Connection:
    def __init__(self, widget, parameter):
        self.widget, self.parameter = widget, parameter
        if type(widget).__name__ == "qMRMLNodeComboBox" and parameter.isNode:
            self.read, self.write, self.signal = widget.currentNode, widget.setCurrentNode, widget.currentNodeChanged
            return
        key = (type(widget).__name__, parameter.kind)
        if key not in _CONNECTORS:
            raise RuntimeError(f"no connector of Slicer shows {parameter.kind} by a {key[0]}")
        property_, signal = _CONNECTORS[key]
        if parameter.limits is not None:
            widget.minimum, widget.maximum = parameter.limits.minimum, parameter.limits.maximum
        elif parameter.kind in (int, float):
            raise RuntimeError(f"{parameter.name}: a number without WithinRange makes a spin box without bounds")
        self.read = lambda: getattr(widget, property_)
        self.write = lambda value: setattr(widget, property_, value)
        self.signal = getattr(widget, signal)


class _Wrapper:
    def __init__(self, parameterNode):
        self.parameterNode = parameterNode
        self._guis, self._nextGui, self._writing = {}, 0, False
        for parameter in self.allParameters.values():
            if not parameterNode.HasParameter(parameter.name):
                parameter.write(parameterNode, parameter.default)

    def connectParametersToGui(self, mapping):
        connections = {name: _Connection(widget, self.allParameters[name]) for name, widget in mapping.items()}
        for name, connection in connections.items():
            connection.write(getattr(self, name))
            connection.call = self._follower(name, connection)
            connection.signal.connect(connection.call)
        self._nextGui += 1
        self._guis[self._nextGui] = connections
        self.parameterNode.AddObserver(vtk.vtkCommand.ModifiedEvent, self._show)
        return self._nextGui

    def disconnectGui(self, tag):
        for connection in self._guis.pop(tag).values():
            connection.signal.disconnect(connection.call)

    def _follower(self, name, connection):
        def follow(*_):
            if not self._writing:
                setattr(self, name, connection.read())

        return follow

    def _show(self, caller, event):
        if self._writing:
            return
        self._writing = True
        try:
            for connections in self._guis.values():
                for name, connection in connections.items():
                    connection.write(getattr(self, name))
        finally:
            self._writing = False


def parameterNodeWrapper(classType):
    """Class decorator: typed access to the entries of a parameter node."""
    hints = get_type_hints(classType, include_extras=True)
    parameters = {name: _Parameter(name, hint, getattr(classType, name, None)) for name, hint in hints.items()}
    body = {name: parameter.property() for name, parameter in parameters.items()}
    return type(
        classType.__name__, (_Wrapper,), {**body, "allParameters": parameters, "__module__": classType.__module__}
    )
