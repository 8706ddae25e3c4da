"""Check a bundle before a federated job trains it: the bundle that the study pinned, and no code in its texts.

A text of a bundle is a program to MONAI: `_target_` names any class, `$` begins any expression. A hospital in a study
has agreed to one bundle, by its hash; and whatever the hash, all of a text is read before anything of it is executed:
`_target_` against a list of classes, expressions by their syntax tree, against a list of names. Both lists hold what
the trainings of this project need. What is not on them is refused; nothing is evaluated.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from monai_sr_bundle.bundles import Bundle, combined_sha256, sha256_of
from monai_sr_bundle.errors import BundleError

CLASSES = (
    *(f"monai_sr_bundle.{group}." for group in ("inferers", "losses", "metrics", "networks", "training", "transforms")),
    *("monai.losses.", "monai.networks.", "torch.nn.", "torch.optim."),
)
"""Beginnings of the names of classes that a text may build."""
SINGLE_CLASSES = {
    *("CacheDataset", "CheckpointLoader", "CheckpointSaver", "Compose", "DataLoader", "Dataset", "EnsureTyped"),
    *("IgniteMetricHandler", "RandFlipd", "RandRotate90d", "SelectItemsd", "SimpleInferer", "SupervisedEvaluator"),
    *("SupervisedTrainer", "TensorBoardStatsHandler", "ignite.metrics.Average", "torch.utils.data.DataLoader"),
    "monai_sr_bundle.engine.monai_inferer.TiledInferer",
}
"""Single classes that a text may build; MONAI finds its own by their names alone."""
MODULE_NAMES = {
    *("torch.bfloat16", "torch.channels_last", "torch.cuda.is_available", "torch.device"),
    *("monai.handlers.from_engine", "monai.utils.set_determinism"),
}
"""Names that an expression may take from the modules that a text imports."""
IMPORTS = {
    "monai_sr_bundle.bundles": {"released_weights"},
    "monai_sr_bundle.degradation": {"Degradation", "along_slices", "at_scale"},
    "monai_sr_bundle.training.weights": {"bfloat16_pays", "iterations_so_far", "latest_checkpoint", "start_from"},
    "monai_sr_bundle.transforms.pairs": {"boxes_repeated", "pair_items"},
    "monai_sr_bundle.transforms.slabs": {"image_names", "image_pairs", "volume_items"},
}
"""Functions and classes that a text may import, by module."""
BUILTINS = {"bool", "float", "int", "len", "list", "max", "min", "range", "round", "str", "sum", "tuple"}
ATTRIBUTES = {
    *("averaged", "iterations", "metrics", "network", "parameters", "parse", "run", "scale", "state", "to", "type"),
}
"""Attributes of what another part of the text builds."""
_NAMES = BUILTINS.union(*IMPORTS.values())
_REFERENCE = re.compile(r"@\w+(?:(?:::|#)\w+)*")
"""Another part of the text, as `@train#dataset`."""
_STANDS_FOR_REFERENCE = "_reference"
_SYNTAX = (
    *(ast.Expression, ast.expr_context, ast.operator, ast.unaryop, ast.boolop, ast.cmpop, ast.keyword, ast.arguments),
    *(ast.arg, ast.comprehension, ast.Attribute, ast.BinOp, ast.BoolOp, ast.Call, ast.Compare, ast.Constant, ast.Dict),
    *(ast.GeneratorExp, ast.IfExp, ast.Lambda, ast.List, ast.ListComp, ast.Name, ast.Slice, ast.Starred, ast.Subscript),
    *(ast.Tuple, ast.UnaryOp),
)


def bundle_sha256(bundle: Bundle, stage: str | None = None) -> str:
    """Return one SHA-256 of all texts that decide how a stage of a bundle is trained; weights are not among them.

    Raises:
        BundleError: no such stage.
    """
    texts = _training_texts(bundle, stage)
    return combined_sha256({f"{number}_{text.name}": sha256_of(text) for number, text in enumerate(texts)})


def check_bundle(bundle: Bundle, stage: str | None, sha256: str) -> None:
    """Refuse a bundle that is not the one of the study, or whose texts hold code. Nothing of it is executed.

    Args:
        bundle: bundle at this site.
        stage: stage of its training; None for the first.
        sha256: hash that the study states, see `bundle_sha256`.

    Raises:
        BundleError: no such stage; another hash; a class or an expression that is not on the lists of this module.
    """
    actual = bundle_sha256(bundle, stage)
    if actual != sha256:
        raise BundleError(
            f"bundle {bundle.name} has SHA-256 {actual[:12]}... here, but the study is for {sha256[:12]}.... Install "
            "the version of monai-sr-bundle that the coordinator has."
        )
    for text in _training_texts(bundle, stage):
        check_text(text)


def _training_texts(bundle: Bundle, stage: str | None) -> list[Path]:
    from monai_sr_bundle.training.training import stage_workflows

    models = [text for text in bundle.texts if text.suffix == ".yaml"]
    return [*models, *stage_workflows(bundle, stage)]


def check_text(path: Path) -> None:
    """Refuse a YAML text that builds or evaluates anything but what this module lists.

    Raises:
        BundleError: it does; the message names the key and what stands there.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, OSError) as error:
        raise BundleError(f"{path.name} cannot be read ({' '.join(str(error).split())}).") from error
    for key, value in _plain_values(content):
        if not isinstance(value, str):
            continue
        try:
            if key.split("#")[-1] == "_target_":
                if not value.startswith(CLASSES) and value not in SINGLE_CLASSES:
                    raise ValueError("it is a class that is not on the list")
            elif value.startswith(("$import ", "$from ")):
                _check_import(value[1:])
            elif value.startswith("$"):
                _check_expression(value[1:])
            elif value.startswith("%"):
                raise ValueError("it takes a part of another file")
        except (SyntaxError, ValueError) as error:
            reason = "it is not Python" if isinstance(error, SyntaxError) else error
            raise BundleError(
                f"{path.name}: {key} is {value!r}, and {reason}. No federated job runs it; nothing was executed."
            ) from error


def _plain_values(content: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value that is neither dict nor list, with its key as MONAI writes it: `train#trainer#_target_`."""
    if isinstance(content, dict | list):
        for name, value in content.items() if isinstance(content, dict) else enumerate(content):
            yield from _plain_values(value, f"{key}#{name}" if key else str(name))
    else:
        yield key, content


def _check_import(line: str) -> None:
    """Raise an error unless a line of `imports` is on the list."""
    (statement,) = ast.parse(line).body
    if isinstance(statement, ast.ImportFrom):
        listed = IMPORTS.get(str(statement.module), set())
    else:
        listed = {name.split(".")[0] for name in MODULE_NAMES}
    names = statement.names if isinstance(statement, ast.Import | ast.ImportFrom) else []
    if not names or any(alias.asname or alias.name not in listed for alias in names):
        raise ValueError("it is an import that is not on the list")


def _check_expression(text: str) -> None:
    """Raise an error unless everything in an expression is on the lists."""
    tree = ast.parse(_REFERENCE.sub(_STANDS_FOR_REFERENCE, text).strip(), mode="eval")
    nodes = list(ast.walk(tree))
    names = _NAMES | {_STANDS_FOR_REFERENCE} | {node.arg for node in nodes if isinstance(node, ast.arg)}
    names |= {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    _ExpressionCheck(names).visit(tree)


class _ExpressionCheck(ast.NodeVisitor):
    def __init__(self, names: set[str]) -> None:
        self.names = names

    def generic_visit(self, node: ast.AST) -> None:
        if not isinstance(node, _SYNTAX):
            raise ValueError(f"{type(node).__name__} is not allowed")
        super().generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if ast.unparse(node) in MODULE_NAMES:
            return
        if node.attr not in ATTRIBUTES:
            raise ValueError(f"{node.attr} is not on the list")
        self.visit(node.value)

    def visit_Name(self, node: ast.Name) -> None:
        if node.id not in self.names:  # a module by itself is not: only what is listed of it
            raise ValueError(f"{node.id} is not on the list")

    def visit_Constant(self, node: ast.Constant) -> None:
        # MONAI puts quotes of its own in place of a reference, inside a quoted text too.
        if isinstance(node.value, str) and _STANDS_FOR_REFERENCE in node.value:
            raise ValueError("a reference inside a quoted text is not allowed")
