"""All texts that a user sees go through Slicer's translation, as whole sentences that a translator can move about."""

import ast
import re
import string
from pathlib import Path

import phantom_volumes
import pytest

MODULE = Path(__file__).resolve().parents[2]
CODE = [MODULE / "SuperResolution.py", *sorted((MODULE / "SuperResolutionLib").glob("*.py"))]
NO_TEXTS = re.compile(r"font-weight|authors$|^No module named|^DICOM SR|^SR region$|^\nimport ")
"""Styles, names, code, and words that are looked for in what a process wrote."""
SOURCES = ("detector plane", "film plane", "Pixel Spacing, detector plane or calibrated", "set in Slicer")
"""Values of an attribute of a volume, which `controller` translates where it shows them."""


def isTranslation(node):
    return isinstance(node, ast.Call) and ast.unparse(node.func) in ("_", "translate")


def texts(tree):
    """Yield the texts of a file in which words stand, but for documentation, log entries and our own mistakes."""
    skipped = set()
    for node in ast.walk(tree):
        if isinstance(getattr(node, "body", None), list):
            skipped |= {id(line.value) for line in node.body if isinstance(line, ast.Expr)}
        isCall = isinstance(node, ast.Call)
        if isCall and (
            isTranslation(node) or re.match(r"(logging|re)\.|(Value|Runtime)Error$", ast.unparse(node.func))
        ):
            skipped |= {id(part) for part in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in skipped or not isinstance(node, (ast.JoinedStr, ast.Constant)):
            continue
        parts = node.values if isinstance(node, ast.JoinedStr) else [node]
        skipped |= {id(part) for part in ast.walk(node)}
        text = "".join(part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str))
        if len([word for word in text.split() if word.strip(".,:;'()").isalpha()]) > 1:
            yield node.lineno, text


@pytest.mark.parametrize("path", CODE, ids=lambda path: path.stem)
def test_every_text_can_be_translated(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    glued = [(line, text) for line, text in texts(tree) if not NO_TEXTS.search(text) and text not in SOURCES]
    assert glued == []


@pytest.mark.parametrize("path", CODE, ids=lambda path: path.stem)
def test_what_is_translated_is_a_constant_with_named_placeholders(path):
    """lupdate, which collects the texts, reads constants alone, and Slicer refuses other placeholders."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isTranslation(node):
            text = node.args[-1]
            assert isinstance(text, ast.Constant), f"{path.name}:{node.lineno}"
            names = [name for _, name, _, _ in string.Formatter().parse(text.value) if name is not None]
            assert all(name.isidentifier() for name in names), f"{path.name}:{node.lineno}"
        if isinstance(node, ast.FunctionDef):
            inside = list(ast.walk(node))
            isUsed = any(isTranslation(part) and ast.unparse(part.func) == "_" for part in inside)
            stored = [part for part in inside if isinstance(part, ast.Name) and part.id == "_"]
            assert not (isUsed and any(isinstance(part.ctx, ast.Store) for part in stored)), f"{path.name}: {node.name}"


def test_slicers_own_function_translates_by_file_names_and_labels_of_one_word_too(
    application, module, source, monkeypatch
):
    import slicer
    from SuperResolutionLib import compare, display, result_nodes, volumes

    contexts = []
    monkeypatch.setattr(slicer.app, "translate", lambda context, text: contexts.append(context) or f"« {text} »")
    with pytest.raises(ValueError, match="« No volume is chosen"):
        volumes.check(None)
    assert contexts == ["SuperResolutionLib.volumes"]
    result = phantom_volumes.addResult(source)
    result_nodes.addTrustMask(result, 20.0)
    result_nodes.addDifference(result)
    names = [node.GetName().removeprefix(result.GetName()) for node in result_nodes.derivedNodes(result)]
    names += re.findall('name="viewlabel".*?>(.*?)<', compare.layoutText())
    colors = display.colors(application.scene, "Mask")
    names += [colors.GetColorName(n) for n in range(2)]
    assert len(names) == 7
    assert [name for name in names if not name.strip().startswith("«")] == []
