"""The extension against Slicer's own sources: its CMake functions, and what its releases know by name.

The sources are looked for in ../shared/oracle, or where MONAI_SR_ORACLE says.
"""

import ast
import os
import re
import sys
from pathlib import Path

import pytest
from test_extension_packaging import EXTENSION, REPOSITORY, cmake

ORACLE = Path(os.environ.get("MONAI_SR_ORACLE") or REPOSITORY.parent / "shared" / "oracle")
RELEASES = ("slicer_5_10_0", "slicer_5_12_3", "slicer_main")
OLDEST = RELEASES[0]
LIBRARY = sorted((EXTENSION / "SuperResolution" / "SuperResolutionLib").glob("*.py"))
CODE = [EXTENSION / "SuperResolution" / "SuperResolution.py", EXTENSION / "Testing" / "in_slicer.py", *LIBRARY]
MAY_IMPORT = {"numpy", "vtk", "vtkITK", "pydicom", "slicer", "SuperResolutionLib", "__future__"}
KITS = {
    "vtkMRML": "mrml", "vtkCodedEntry": "mrml", "vtkSegmentation": "vtkSegmentationCore", "vtkITK": "vtkITK",
    "vtkTeem": "vtkTeem", "qMRML": "qMRMLWidgetsPythonQt", "qSlicer": "qSlicerBaseQTCorePythonQt",
}  # fmt: skip
"""Beginnings of the names of classes, and the kit that brings them. `vtkSlicer...` comes with Slicer's own modules."""
OLDER = {
    "GenerateUniqueName", "SnapSliceOffsetToIJK", "AdjustWindowLevel", "ViewTransform", "ShowSmallBasic",
    "RulerTypeNone", "RulerTypeThin", "UseManualScalarRange", "OrientationMarkerTypeNone", "OrientationMarkerTypeAxes",
}  # fmt: skip
"""Methods and values of enumerations that all releases here have, and that are not in their lists of methods."""
SET_BY_THE_APPLICATION = {"app", "mrmlScene", "modules", "moduleNames", "selfTests", "dicomDatabase"}


@pytest.fixture(scope="module")
def sources():
    if not ORACLE.is_dir():
        pytest.skip(f"SLICER'S OWN SOURCES: {ORACLE} is not there, so its CMake functions and names were not asked")
    return {name: ORACLE / name for name in RELEASES}


@pytest.mark.parametrize("release", RELEASES)
def test_the_root_is_configured_by_slicers_own_functions(release, sources, tmp_path, monkeypatch):
    origin = {"COUNT": "1", "KEY_0": "remote.origin.url", "VALUE_0": "https://example.org/monai-sr-bundle.git"}
    for name, value in origin.items():  # where Slicer's index has cloned the repository from
        monkeypatch.setenv(f"GIT_CONFIG_{name}", value)
    standIn = EXTENSION / "Testing" / "SlicerSources"
    options = f"-DSlicer_DIR={standIn}", f"-DSLICER_SOURCES={sources[release]}", "-DBUILD_TESTING=ON"
    assert "CMake Warning" not in cmake("-S", REPOSITORY, "-B", tmp_path, *options).stderr
    text = (tmp_path / "SuperResolution.s4ext").read_text(encoding="utf-8")
    written = dict(re.findall(r'set\(EXTENSION_(\w+)\s+"(.*?)"\)', (REPOSITORY / "CMakeLists.txt").read_text(), re.S))
    for name in ("DESCRIPTION", "HOMEPAGE", "CONTRIBUTORS", "ICONURL", "SCREENSHOTURLS", "DEPENDS"):
        assert f"{name.lower()} {written[name]}\n" in text  # to the last word
    cmake("--install", tmp_path, "--prefix", tmp_path / "installed")
    modules = tmp_path / "installed" / "lib" / "Slicer" / "qt-scripted-modules"
    assert (modules / "SuperResolutionLib" / "readings.py").is_file()  # of the package


def test_the_library_imports_only_what_slicer_has():
    lines = "".join(path.read_text(encoding="utf-8") for path in LIBRARY)
    imported = set(re.findall(r"^ *(?:import|from) (\w+)", lines, re.M))
    assert imported - MAY_IMPORT <= set(sys.stdlib_module_names)


def attributes(path):
    """Yield all attributes ``x.y.name`` of a file: the words before the last dot, the name, and the line."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            yield ast.unparse(node.value), node.attr, node.lineno


@pytest.mark.parametrize("release", RELEASES)
def test_the_application_has_every_name_of_slicer_that_is_used(release, sources):
    base = sources[release] / "Base" / "Python"
    text = (base / "CMakeLists.txt").read_text(encoding="utf-8")
    kits = set(re.findall(r"'(\w+)'", text.split("Slicer_PYTHON_MODULES_CONFIG", 1)[1].split(")", 1)[0]))
    names = {path.stem for path in (base / "slicer").iterdir()} | SET_BY_THE_APPLICATION
    beginnings = ("vtkSlicer", *(beginning for beginning, kit in KITS.items() if kit in kits))
    assert "vtkITK" not in beginnings  # what this test is for: only the wheel of Slicer's core has `slicer.vtkITK...`
    unknown = [
        f"{path.name}:{line} slicer.{name}"
        for path in CODE for words, name, line in attributes(path)
        if words == "slicer" and name not in names and not name.startswith(beginnings)
    ]  # fmt: skip
    assert unknown == []


def test_the_oldest_release_has_every_method_that_is_called(sources):
    import vtk

    if not (sources[OLDEST] / "methods.txt").is_file():
        pytest.skip(f"THE METHODS OF SLICER'S HEADERS: {sources[OLDEST]} has no list of them, so none was looked up")
    methods = set((sources[OLDEST] / "methods.txt").read_text(encoding="utf-8").split()) | OLDER
    for name in (sources[OLDEST] / "macro_properties.txt").read_text(encoding="utf-8").split():
        methods |= {f"Get{name}", f"Set{name}", f"{name}On", f"{name}Off", f"Get{name}MinValue", f"Get{name}MaxValue"}
    methods = methods.union(*(dir(each) for each in vars(vtk).values() if isinstance(each, type)))
    modules = {path.stem for path in CODE} | sys.stdlib_module_names | MAY_IMPORT - {"slicer"} | {"qt", "SampleData"}
    unknown = [
        f"{path.name}:{line} {words}.{name}"
        for path in CODE for words, name, line in attributes(path)
        if re.match("[A-Z][a-z]", name) and not name.endswith("Event") and words.split(".")[0] not in modules
        and name not in methods
    ]  # fmt: skip
    assert unknown == []
