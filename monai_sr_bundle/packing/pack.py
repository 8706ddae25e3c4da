"""Make a MONAI bundle that runs by itself: flat texts, weights, card, licence, and the code of all bundles' workflows.

The code keeps its package name, and every bundle carries the same files of it. So whichever copy a process imports
first, that of an installed package or of another bundle, serves all bundles; the packed texts refuse any other.
"""

from __future__ import annotations

import ast
import importlib.metadata
import json
import re
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from monai_sr_bundle import __version__
from monai_sr_bundle.backends.onnx_files import error_bars_onnx, exported_process, onnx_files
from monai_sr_bundle.bundles import (
    ERROR_BARS,
    ERROR_BARS_FOLDER,
    LEARNT_FROM,
    Bundle,
    sha256_of,
)
from monai_sr_bundle.errors import BundleError, OutputError
from monai_sr_bundle.images.staging import require_free, staged
from monai_sr_bundle.images.working_folders import working_folder
from monai_sr_bundle.packing.card import complete_card
from monai_sr_bundle.shipped_bundles import configs_dir, find_bundle
from monai_sr_bundle.training.stages import training_stages
from monai_sr_bundle.uncertainty.calibration import FILE as CALIBRATION_FILE

PACKAGE = "monai_sr_bundle"
LARGEST_BYTES = 25 * 1024**2
"""Size of the largest file that the model zoo takes; a larger one is named in large_files.yml with its address."""
_KINDS_OF_IMAGES = ("train_films", "train_scans", "train_slabs")
"""Texts of training on films or CT as they are, in place of images that are reduced by one operator."""

_SAME_AS = "# {0}.json says the same, for monai.bundle.load, MonaiAlgo and MONAI Label. Change both, or pack again."
_SOURCE_ROOT = "\nbundle_root: .\n"
_PACKED_ROOT = """
# Folder of this bundle: that of the config which MONAI is reading, wherever it was started; else the working directory
bundle_root: "$next((str(root) for root in (each.frame.f_locals['self'].config_root_path.resolve().parent for each in \
inspect.stack(0) if isinstance(each.frame.f_locals.get('self'), monai.bundle.ConfigWorkflow)) \
if (root / 'configs' / 'metadata.json').is_file()), '.')"
"""
_IMPORTS = f"""\
  - $import inspect
  - $import os
  - $import sys
  - $from {PACKAGE}.bundles import require_version
  - $from {PACKAGE}.bundles import require_same_code
  - $from {PACKAGE}.errors import shorten_tracebacks
"""
_INITIALIZE = f"""\
  # MONAI evaluates the imports before it knows the bundle's folder: it is added here, and they are evaluated again.
  - "$os.path.abspath(@bundle_root) in sys.path or sys.path.append(os.path.abspath(@bundle_root))"
  - "$[__local_refs.pop(name) for name in list(__local_refs) if name.startswith('imports::')]"
  - "$shorten_tracebacks()"
  - "$require_version('{__version__}')"
  - "$require_same_code(@bundle_root)"
"""


def pack(name: str, out: Path, *, overwrite: bool = False) -> Path:
    """Pack a bundle of this project as the model zoo wants it.

    ONNX files that the source folder lacks are exported into the packed bundle and compared with PyTorch.

    Args:
        name: name of a bundle, or its source folder.
        out: folder for the packed bundle.
        overwrite: replace an older packed bundle. Default False.

    Returns:
        The packed bundle, ``out/NAME``. The same sources give the same files, byte by byte.

    Raises:
        BundleError: the bundle is unknown, packed already or a variant; it has no card or data licence; its weights are
            missing, damaged, or above 25 MB without a URL; model.yaml and a workflow have the same key.
        OutputError: the folder exists, or is no packed bundle; it cannot be written.
    """
    bundle = find_bundle(name)
    if bundle.is_variant:
        raise BundleError(f"{bundle.name} is a variant, kept for comparison. Pack {bundle.name.split(':')[0]}.")
    if bundle.is_packed:
        raise BundleError(
            f"{bundle.folder} is packed already. Name a bundle of `monai-sr bundles`, or its source folder."
        )
    target = out / bundle.name
    require_replaceable(target, overwrite=overwrite)
    configs, documents = _read_configs(bundle), _read_documents(bundle)
    package = Path(__file__).parents[1]
    modules = needed_modules(_texts_that_name_code(bundle), package)
    with staged(target, overwrite=overwrite) as folder:
        for path, text in (configs | documents).items():
            _write(folder / path, text)
        for module in modules:
            _write(folder / PACKAGE / module, (package / module).read_text(encoding="utf-8"))
        hashes, large_files = _pack_weights(bundle, folder / "models")
        _write(folder / "configs" / "metadata.json", _metadata_text(bundle, hashes))
        for file in (CALIBRATION_FILE, LEARNT_FROM):  # of the error bars
            if (bundle.folder / file).is_file():
                shutil.copyfile(bundle.folder / file, folder / "configs" / file)
        if large_files:
            _write(folder / "large_files.yml", yaml.safe_dump({"large_files": large_files}, sort_keys=False))
        complete_card(bundle, folder)
    return target


def require_replaceable(target: Path, *, overwrite: bool) -> None:
    """Refuse to write a packed bundle where something else is, or an older one that may not be replaced.

    Raises:
        OutputError: it may not.
    """
    if overwrite and target.exists() and not (target / "configs" / "metadata.json").is_file():
        raise OutputError(f"{target} is not a packed bundle. Choose another folder, or remove it first.")
    require_free(target, overwrite=overwrite)


def join(model: str, workflow: str, names: tuple[str, str]) -> str:
    """Join two YAML texts, comments and all.

    Args:
        model: text of model.yaml.
        workflow: text of a workflow.
        names: names of the two texts, for messages.

    Raises:
        BundleError: both texts have the same key.
    """
    duplicates = sorted(set(yaml.safe_load(model)) & set(yaml.safe_load(workflow)))
    if duplicates:
        raise BundleError(
            f"{names[0]} and {names[1]} both have {', '.join(duplicates)}, expected each key in one of them. "
            "Remove or rename it in one."
        )
    return f"{model.rstrip()}\n\n{workflow.rstrip()}\n"


def lay_over(config: dict[str, Any], overlay: dict[str, Any]) -> None:
    """Change a config as MONAI does with a second file whose keys, such as ``train#dataset``, replace parts of it."""
    for key, value in overlay.items():
        *parents, name = key.split("#")
        part = config
        for parent in parents:
            part = part[parent]
        part[name] = value


def duplicate_keys(text: str) -> list[str]:
    """Return the keys that occur twice in one mapping of a YAML text; PyYAML would silently keep the last."""
    duplicates: list[str] = []
    nodes = [yaml.compose(text, Loader=yaml.SafeLoader)]
    while nodes:
        node = nodes.pop()
        if isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in node.value]
            duplicates += sorted({key for key in keys if keys.count(key) > 1})
            nodes += [value for _, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            nodes += node.value
    return duplicates


def needed_modules(texts: Iterable[str], package: Path) -> list[Path]:
    """Return the modules that configs name in `_target_`, `imports` and expressions, and all that these import.

    What a module imports inside a function is left out: it is for those who have the whole package. Nothing is run.

    Args:
        texts: texts of configs.
        package: folder of monai_sr_bundle.

    Returns:
        Files relative to `package`, sorted, with the `__init__.py` of their folders.

    Raises:
        BundleError: a text or module names a module that the package does not have.
    """
    names: list[tuple[str, str]] = []  # of modules, and who names them
    for text in texts:
        code = re.sub(r"(?m)(^|\s)#.*$", "", text)
        names += [(name, "a config") for name in re.findall(rf"\b{PACKAGE}(?:\.\w+)+", code)]
        # A family is found by its name, which is that of its module, and imported by no statement.
        names += [(f"{PACKAGE}.families.{name}", "a config") for name in re.findall(r"(?m)^family: *(\w+)", code)]
    modules: set[Path] = set()
    while names:
        name, source = names.pop()
        for module in _module_files(name, package, source) - modules:
            modules.add(module)
            tree = ast.parse((package / module).read_text(encoding="utf-8"))
            names += [(name, str(module)) for name in imports(tree) if name.split(".")[0] == PACKAGE]
    return sorted(modules)


def imports(tree: ast.Module) -> list[str]:
    """Return the dotted names that are imported with a module; `from a import b` gives ``a.b``."""
    nodes: list[ast.AST] = [tree]
    names: list[str] = []
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.If):
            nodes += ast.iter_child_nodes(node)
    return names


def _texts_that_name_code(bundle: Bundle) -> list[str]:
    """Return the texts that name the code of every packed bundle: the workflows, and their keys of each model.yaml.

    Other keys of model.yaml are for those who have the package.
    """
    workflows = [path.read_text(encoding="utf-8") for path in sorted(configs_dir().glob("workflows/*.yaml"))]
    used = {"family", *re.findall(r"@(\w+)", "".join(workflows))}
    texts = [_IMPORTS, *workflows]
    for model in {*configs_dir().glob("*/model.yaml"), bundle.texts[0]}:
        facts = yaml.safe_load(model.read_text(encoding="utf-8"))
        texts.append(yaml.safe_dump({key: value for key, value in facts.items() if key in used}))
    return texts


def _module_files(name: str, package: Path, source: str) -> set[Path]:
    """Return the file of the longest part of a dotted name that is a module, and the `__init__.py` above it."""
    parts = name.split(".")[1:]
    files = {Path("__init__.py")}
    folder = Path()
    for number, part in enumerate(parts):
        if (package / folder / part).is_dir():
            folder /= part
            if _has_code(package / folder / "__init__.py"):  # Python finds modules in a folder without one
                files.add(folder / "__init__.py")
            continue
        if (package / folder / f"{part}.py").is_file():
            files.add(folder / f"{part}.py")
        elif not (number == len(parts) - 1 and _has_code(package / folder / "__init__.py")):
            raise BundleError(f"{source} names {name}, but {PACKAGE} has no module {'.'.join(parts[: number + 1])}.")
        break
    return files


def _read_configs(bundle: Bundle) -> dict[str, str]:
    """Return the text of every config of a packed bundle, by its path."""
    workflows = configs_dir() / "workflows"
    model = bundle.texts[0].read_text(encoding="utf-8")
    joined = {"inference": "inference", "evaluate": "evaluate"}
    overlays = ["multi_gpu_inference", "multi_gpu_evaluate", "inference_trt"]
    stages = [*training_stages(bundle).values()]
    laid_over: list[str] = []  # what train.json has of the texts that are laid over train.yaml
    if stages:
        joined["train"], laid_over = stages[-1][0], json_overlays(bundle)
        overlays += dict.fromkeys(name for texts in stages for name in texts[1:])
        overlays += ["multi_gpu_train", "fine_tune", "federated", "federated_filters"]
    texts: dict[str, str] = {}
    for packed, workflow in joined.items():
        text = (workflows / f"{workflow}.yaml").read_text(encoding="utf-8")
        names = (f"{bundle.name}/model.yaml", f"workflows/{workflow}.yaml")
        text = _insert(text, "imports", _IMPORTS, names[1])
        text = _insert(text, "initialize", _INITIALIZE, names[1])
        assert text.count(_SOURCE_ROOT) == 1, f"{names[1]} has no {_SOURCE_ROOT.strip()}"
        text = join(model, text.replace(_SOURCE_ROOT, _PACKED_ROOT), names)
        texts[f"configs/{packed}.yaml"] = f"{_SAME_AS.format(packed)}\n{text}"
        # MONAI's `load` and `MonaiAlgo` look for JSON alone, MONAI Label looks for it first.
        config = yaml.safe_load(text)
        for overlay in laid_over if packed == "train" else ():
            lay_over(config, yaml.safe_load((workflows / f"{overlay}.yaml").read_text(encoding="utf-8")))
        texts[f"configs/{packed}.json"] = f"{json.dumps(config, indent=4)}\n"
    for workflow in overlays:
        text = (workflows / f"{workflow}.yaml").read_text(encoding="utf-8")
        if "initialize" in yaml.safe_load(text):
            text = _insert(text, "initialize", _INITIALIZE, workflow)
        texts[f"configs/{workflow}.yaml"] = text
    return texts


def json_overlays(bundle: Bundle) -> list[str]:
    """Return the texts laid over train.yaml in train.json: of the stage with the bundle's own kind of images."""
    return next((texts[1:] for texts in training_stages(bundle).values() if texts[-1] in _KINDS_OF_IMAGES), [])


def _insert(text: str, key: str, lines: str, name: str) -> str:
    """Insert `lines` at the head of the list under `key`."""
    changed, count = re.subn(rf"(?m)^{key}:\n", lambda match: f"{match.group()}{lines}", text)
    assert count == 1, f"{name} has {count} lists called {key}"
    return changed


def _read_documents(bundle: Bundle) -> dict[str, str]:
    documents = {
        "LICENSE": _read_licence(),
        "configs/logging.conf": (configs_dir() / "workflows" / "logging.conf").read_text(encoding="utf-8"),
    }
    for source, packed, what in (
        ("card.md", "docs/README.md", "the model card"),
        ("data_license.txt", "docs/data_license.txt", "the terms of the training data"),
    ):
        file = bundle.folder / source
        if file.is_file():
            documents[packed] = file.read_text(encoding="utf-8")
        elif source == "card.md" or bundle.parameters:
            raise BundleError(
                f"bundle {bundle.name}: {source} ({what}) is missing in {bundle.folder}. Write it before packing."
            )
    return documents


def _read_licence() -> str:
    checkout = configs_dir().parent / "LICENSE"
    if checkout.is_file():
        return checkout.read_text(encoding="utf-8")
    text = importlib.metadata.distribution("monai-sr-bundle").read_text("licenses/LICENSE")
    assert text is not None, "the wheel carries its licence"
    return text


def _pack_weights(bundle: Bundle, models: Path) -> tuple[dict[str, str], list[dict[str, str]]]:
    """Copy the weights after checking their hashes, and export the ONNX files that the bundle lacks.

    Returns:
        The SHA-256 of every weights file, and the entries of those that are too large for the zoo.
    """
    files = {name: bundle.weights(name)[0] for name in bundle.metadata["weights_sha256"] if bundle.has_file(name)}
    onnx_names = []
    for scaled in map(bundle.at_scale, bundle.scales):
        onnx_names += [*onnx_files(scaled), *([error_bars_onnx(scaled)] if scaled.has_file(ERROR_BARS) else [])]
    with working_folder(Path(tempfile.gettempdir())) as exported:
        if not all(bundle.has_file(name) for name in onnx_names):
            from monai_sr_bundle.packing.onnx_export import export_bundle

            export_bundle(bundle, exported)
            files |= {name: exported / name for name in onnx_names if not bundle.has_file(name)}
        hashes = {name: sha256_of(path) for name, path in files.items()}
        large_files = []
        for name, path in files.items():
            target = models / (ERROR_BARS_FOLDER if name.startswith(Path(ERROR_BARS).stem) else "") / name
            if path.stat().st_size <= LARGEST_BYTES:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
                continue
            url = bundle.metadata.get("weights_url", {}).get(name)
            if url is None:
                mebibytes = path.stat().st_size / 1024**2
                raise BundleError(
                    f"bundle {bundle.name}: {name} has {mebibytes:.1f} MiB, more than the 25 MiB of a zoo file. "
                    "Make it smaller, or state its URL under weights_url in metadata.json."
                )
            packed_path = f"models/{target.relative_to(models).as_posix()}"
            large_files.append({"path": packed_path, "url": url, "hash_val": hashes[name], "hash_type": "sha256"})
    return hashes, large_files


def _metadata_text(bundle: Bundle, hashes: dict[str, str]) -> str:
    """Return the metadata of the packed bundle: the source's, with what tells of exported files."""
    text = (bundle.folder / "metadata.json").read_text(encoding="utf-8")
    if hashes == bundle.metadata["weights_sha256"]:
        return text
    content = {**json.loads(text), "weights_sha256": hashes, **exported_process(bundle)}
    return f"{json.dumps(content, indent=4)}\n"


def _has_code(module: Path) -> bool:
    """Return whether a module is there and holds more than text."""
    return module.is_file() and any(
        not isinstance(statement, ast.Expr) for statement in ast.parse(module.read_text(encoding="utf-8")).body
    )


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")
