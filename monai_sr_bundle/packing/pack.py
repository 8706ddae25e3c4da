"""Make a MONAI bundle that runs by itself: flat texts, weights, card, licence, and the code its texts name.

The code keeps its package name. Where monai_sr_bundle is installed, or another bundle brought it, that copy is the
one that runs; the packed texts then refuse another version than the one they were packed with.
"""

from __future__ import annotations

import ast
import importlib.metadata
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

import yaml

from monai_sr_bundle import __version__
from monai_sr_bundle.bundles import LARGEST_BYTES, LEARNT_FROM, Bundle, configs_dir, find_bundle
from monai_sr_bundle.errors import BundleError, OutputError
from monai_sr_bundle.images.staging import staged
from monai_sr_bundle.uncertainty.calibration import FILE

PACKAGE = "monai_sr_bundle"


def pack(name: str, out: Path, *, overwrite: bool = False) -> Path:
    """Pack a bundle of this project as the model zoo wants it.

    Args:
        name: a bundle's name, or its source folder.
        out: the folder to make the bundle's folder in.
        overwrite: replace an older packed bundle.

    Returns:
        The bundle's folder, ``out/NAME``. The same sources give the same files, byte by byte.

    Raises:
        BundleError: unknown or already packed; no card or data licence; weights missing, damaged, or above 25 MB
            without a place to get them from; a key that model.yaml and a workflow both have.
        OutputError: the folder exists, or holds something else than a packed bundle; it cannot be written.
    """
    bundle = find_bundle(name)
    if bundle.is_variant:
        raise BundleError(f"{bundle.name} is a variant, kept for comparison. Pack {bundle.name.split(':')[0]}.")
    if bundle.is_packed:
        raise BundleError(
            f"{bundle.folder} is packed already. Name a bundle of `monai-sr bundles`, or its source folder."
        )
    target = out / bundle.name
    if overwrite and target.exists() and not (target / "configs" / "metadata.json").is_file():
        raise OutputError(
            f"{target} holds something else than a packed bundle. Choose another folder, or remove it first."
        )
    texts = _texts(bundle)
    documents = _documents(bundle)
    modules = needed_modules(texts.values(), Path(__file__).parents[1])
    with staged(target, overwrite=overwrite) as folder:
        for path, text in {**texts, **documents}.items():
            _write(folder / path, text)
        _write(folder / "configs" / "metadata.json", (bundle.folder / "metadata.json").read_text(encoding="utf-8"))
        for module in modules:
            _write(folder / PACKAGE / module, (Path(__file__).parents[1] / module).read_text(encoding="utf-8"))
        large = _copy_weights(bundle, folder / "models")
        for file in (FILE, LEARNT_FROM):  # of the error bars
            if (bundle.folder / file).is_file():
                shutil.copyfile(bundle.folder / file, folder / "configs" / file)
        if large:
            _write(folder / "large_files.yml", yaml.safe_dump({"large_files": large}, sort_keys=False))
    return target


def join(model: str, workflow: str, names: tuple[str, str]) -> str:
    """Two YAML texts one after the other, comments and all.

    Args:
        model, workflow: the texts.
        names: of the two, for messages.

    Raises:
        BundleError: a key in both.
    """
    both = sorted(set(yaml.safe_load(model)) & set(yaml.safe_load(workflow)))
    if both:
        raise BundleError(
            f"{names[0]} and {names[1]} both have {', '.join(both)}, expected each key in one of them. "
            "Remove or rename it in one."
        )
    return f"{model.rstrip()}\n\n{workflow.rstrip()}\n"


def duplicate_keys(text: str) -> list[str]:
    """Keys that stand twice in one mapping of a YAML text, of which PyYAML would silently keep the last."""
    found: list[str] = []
    waiting = [yaml.compose(text, Loader=yaml.SafeLoader)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in node.value]
            found += sorted({key for key in keys if keys.count(key) > 1})
            waiting += [value for _, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value
    return found


def needed_modules(texts: Iterable[str], package: Path, *, lazy: bool = True) -> list[Path]:
    """The modules that texts name in `_target_`, `imports` and expressions, and all that these import.

    Found by reading import statements, wherever they stand; nothing is run.

    Args:
        texts: of configs.
        package: folder of monai_sr_bundle.
        lazy: follow import statements inside functions too.

    Returns:
        Files relative to `package`, sorted, with the `__init__.py` of their folders.

    Raises:
        BundleError: a text or module names a module that the package does not have.
    """
    waiting: list[tuple[str, str]] = []
    for text in texts:
        code = re.sub(r"(?m)(^|\s)#.*$", "", text)
        waiting += [(name, "a config") for name in re.findall(rf"\b{PACKAGE}(?:\.\w+)+", code)]
        # A family is found by its name, which is that of its module, and imported by no statement.
        waiting += [(f"{PACKAGE}.families.{name}", "a config") for name in re.findall(r"(?m)^family: *(\w+)", code)]
    found: set[Path] = set()
    while waiting:
        name, where = waiting.pop()
        for module in _files_of(name, package, where) - found:
            found.add(module)
            tree = ast.parse((package / module).read_text(encoding="utf-8"))
            waiting += [
                (imported, str(module)) for imported in imports(tree, lazy=lazy) if imported.split(".")[0] == PACKAGE
            ]
    return sorted(found)


def imports(tree: ast.Module, *, lazy: bool = True) -> list[str]:
    """What the import statements of a module name, as dotted names; `from a import b` gives ``a.b``."""
    nodes: list[ast.AST] = [tree]
    names: list[str] = []
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
        if lazy or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.If):
            nodes += ast.iter_child_nodes(node)
    return names


def _files_of(name: str, package: Path, where: str) -> set[Path]:
    """The file of the longest part of a dotted name that is a module, and the `__init__.py` above it."""
    parts = name.split(".")[1:]
    files = {Path("__init__.py")}
    folder = Path()
    for number, part in enumerate(parts):
        if (package / folder / part / "__init__.py").is_file():
            folder /= part
            files.add(folder / "__init__.py")
            continue
        if (package / folder / f"{part}.py").is_file():
            files.add(folder / f"{part}.py")
        elif not (number == len(parts) - 1 and (package / folder / "__init__.py").stat().st_size > 0):
            raise BundleError(f"{where} names {name}, but {PACKAGE} has no module {'.'.join(parts[: number + 1])}.")
        break
    return files


def _texts(bundle: Bundle) -> dict[str, str]:
    """Path in the packed bundle to text, for everything that can name code."""
    workflows = configs_dir() / "workflows"
    model = bundle.texts[0].read_text(encoding="utf-8")
    joined, overlays = {name: name for name in bundle.family.workflows}, [*bundle.family.overlays]
    named = bundle.facts.get("training")
    if named:
        first, *later = [named] if isinstance(named, str) else named
        joined["train"] = first
        first_stage = bundle.facts.get("pretraining")
        overlays += [*later, *([first_stage] if first_stage else []), "multi_gpu_train"]
    texts: dict[str, str] = {}
    for packed, workflow in joined.items():
        text = (workflows / f"{workflow}.yaml").read_text(encoding="utf-8")
        names = (f"{bundle.name}/model.yaml", f"workflows/{workflow}.yaml")
        text = _insert(text, "imports", f"$from {PACKAGE}.bundles import require_version", names[1])
        text = _insert(text, "initialize", f"\"$require_version('{__version__}')\"", names[1])
        texts[f"configs/{packed}.yaml"] = join(model, text, names)
    for workflow in overlays:
        text = (workflows / f"{workflow}.yaml").read_text(encoding="utf-8")
        if "initialize" in yaml.safe_load(text):
            text = _insert(text, "initialize", f"\"$require_version('{__version__}')\"", workflow)
        texts[f"configs/{workflow}.yaml"] = text
    return texts


def _insert(text: str, key: str, entry: str, name: str) -> str:
    """The text with `entry` as the first of the list under `key`."""
    changed, count = re.subn(rf"(?m)^{key}:\n", lambda found: f"{found.group()}  - {entry}\n", text)
    assert count == 1, f"{name} has {count} lists called {key}"
    return changed


def _documents(bundle: Bundle) -> dict[str, str]:
    documents = {
        "LICENSE": _licence(),
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


def _licence() -> str:
    checkout = configs_dir().parent / "LICENSE"
    if checkout.is_file():
        return checkout.read_text(encoding="utf-8")
    text = importlib.metadata.distribution("monai-sr-bundle").read_text("licenses/LICENSE")
    assert text is not None, "the wheel carries its licence"
    return text


def _copy_weights(bundle: Bundle, models: Path) -> list[dict[str, str]]:
    """Copy the weights after checking their hashes; return those that are too large for the zoo."""
    large = []
    for name in bundle.metadata.get("weights_sha256", {}):
        path, sha256 = bundle.weights(name)
        if path.stat().st_size <= LARGEST_BYTES:
            models.mkdir(exist_ok=True)
            shutil.copyfile(path, models / name)
            continue
        url = bundle.metadata.get("weights_url", {}).get(name)
        if url is None:
            mebibytes = path.stat().st_size / 1024**2
            raise BundleError(
                f"bundle {bundle.name}: {name} has {mebibytes:.1f} MiB, more than the 25 MiB of a zoo file. "
                "Make it smaller, or state under weights_url in metadata.json where it can be had."
            )
        large.append({"path": f"models/{name}", "url": url, "hash_val": sha256, "hash_type": "sha256"})
    return large


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")
