"""The limits of the library: it runs inside Slicer 5.10 to 5.13, which have little installed."""

import ast
import sys
from pathlib import Path

import pytest

LIBRARY = Path(__file__).resolve().parents[2] / "SuperResolutionLib"
MAY_IMPORT = {"numpy", "vtk", "vtkITK", "pydicom", "slicer", "SuperResolutionLib", "__future__"}


@pytest.mark.parametrize("path", sorted(LIBRARY.glob("*.py")), ids=lambda path: path.stem)
def test_a_module_is_python_3_9_and_imports_only_what_slicer_has(path):
    tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 9))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            imported.add(node.module.split(".")[0])
    assert imported - MAY_IMPORT <= set(sys.stdlib_module_names)
