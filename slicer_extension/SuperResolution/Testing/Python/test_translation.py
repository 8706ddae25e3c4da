"""All texts that a user sees go through Slicer's translation, as whole sentences that a translator can move about."""

import ast
import re
import string
from pathlib import Path

import pytest

MODULE = Path(__file__).resolve().parents[2]
CODE = [MODULE / "SuperResolution.py", *sorted((MODULE / "SuperResolutionLib").glob("*.py"))]
NOT_SHOWN = r"(logging|re)\.\w+|ValueError|RuntimeError"  # calls whose texts are for developers
NO_TEXTS = re.compile(r"font-weight|authors$|^No module named|^DICOM SR|^SR region$|^\nimport ")
"""Styles, names, code, and words that are looked for in what a process wrote."""
SOURCES = ("detector plane", "film plane", "Pixel Spacing, detector plane or calibrated", "set in Slicer")
"""Values of an attribute of a volume, which `controller` translates where it shows them."""


@pytest.mark.parametrize("path", CODE, ids=lambda path: path.stem)
def test_every_text_is_translated_and_a_constant_with_named_placeholders(path):
    """lupdate, which collects the texts, reads constants alone, and Slicer refuses other placeholders."""
    nodes, skipped = list(ast.walk(ast.parse(path.read_text(encoding="utf-8")))), set()
    for node in nodes:
        function = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
        if function in ("_", "translate"):
            text = node.args[-1]
            assert isinstance(text, ast.Constant), f"{path.name}:{node.lineno}"
            names = [name for _, name, _, _ in string.Formatter().parse(text.value) if name is not None]
            assert all(name.isidentifier() for name in names), f"{path.name}:{node.lineno}"
        isDocumentation = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if isDocumentation or function in ("_", "translate") or re.fullmatch(NOT_SHOWN, function):
            skipped |= {id(part) for part in ast.walk(node)}
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped:
            words = [word for word in node.value.split() if word.strip(".,:;'()").isalpha()]
            isText = len(words) > 1 and not NO_TEXTS.search(node.value) and node.value not in SOURCES
            assert not isText, f"{path.name}:{node.lineno}: {node.value}"
