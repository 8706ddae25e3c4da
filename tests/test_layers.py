"""Imports go down, never up or sideways; only some parts know PyTorch. docs/architecture.md shows the same picture."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "monai_sr_bundle"

# From the bottom up. A part may import parts of lower layers, and a folder its own modules.
LAYERS = (
    {"errors", "geometry", "provenance", "degradation", "networks", "drawing", "_compat", "report_schema",
     "metadata_schema"},
    {"images", "bundles", "table", "inferers.tiled", "inferers.process", "inferers.device", "inferers.interpolate",
     "inferers.consistency", "inferers.slices", "losses", "phantom"},
    {"boxes", "inferers.flow", "inferers.through_plane", "inferers.removed"},
    {"datasets", "metrics", "inferers.sampling", "preview"},
    {"inferers.denoiser"},
    {"backends", "inferers.sliding", "transforms", "training"},
    {"trust"},
    {"report_page"},
    {"engine", "report", "export", "benchmark", "estimate"},
    {"jobs", "console", "pack", "view"},
    {"demo", "verify", "worker"},
    {"__main__"},
)  # fmt: skip
KNOW_TORCH = {
    "networks", "losses", "metrics", "transforms", "training", "benchmark", "export", "inferers.sliding",
    "inferers.device", "inferers.denoiser", "trust.cases", "trust.train", "trust.training_inputs", "trust.calibrate",
    "backends.torch_backend",
}  # fmt: skip
NO_OWNER = {"utils", "util", "helpers", "helper", "common", "misc"}

MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def part(name: str) -> str:
    """The row of the picture a module belongs to: itself if it is named there, else its folder."""
    named = set().union(*LAYERS)
    return name if name in named else name.split(".")[0]


def layer(name: str) -> int:
    found = [level for level, parts in enumerate(LAYERS) if part(name) in parts]
    assert found, f"{name} stands in no layer: put it where it belongs in LAYERS and in docs/architecture.md"
    return found[0]


def imported(path: Path, *, at_import_time: bool) -> set[str]:
    """Dotted names in a module's import statements; all of them, or those that run when it is imported."""
    names: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{dotted(path)} imports relatively: name the package"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        if not (at_import_time and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)):
            waiting += ast.iter_child_nodes(node)
    return names


def ours(names: set[str]) -> set[str]:
    """Names of this package's modules among imported names: `monai_sr_bundle.images.image.Image` is images.image."""
    found = set()
    for name in names:
        parts = name.split(".")
        if parts[0] != "monai_sr_bundle":
            continue
        for end in range(len(parts), 1, -1):
            inner = Path(*parts[1:end])
            if (PACKAGE / inner).with_suffix(".py").is_file():
                found.add(".".join(inner.parts))
                break
    return found


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_imports_go_down(path):
    name = dotted(path)
    for other in ours(imported(path, at_import_time=False)):
        same_folder = part(name) == part(other) and "." in name
        assert same_folder or layer(other) < layer(name), f"{name} imports {other}, which is not below it"


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_only_some_parts_know_torch(path):
    name = dotted(path)
    heavy = {other.split(".")[0] for other in imported(path, at_import_time=True)} & {"torch", "monai", "ignite"}
    if not any(name == known or name.startswith(f"{known}.") for known in KNOW_TORCH):
        assert heavy == set()


@pytest.mark.parametrize("path", sorted((PACKAGE / "networks").glob("[a-z]*.py")), ids=dotted)
def test_a_network_knows_nothing_but_torch_and_monai_blocks(path):
    names = imported(path, at_import_time=False)
    assert {name.split(".")[0] for name in names} <= {"torch", "monai", "monai_sr_bundle", "typing"}
    assert ours(names) <= {"networks.bicubic", "networks.noise_unet"}
    assert all(name.startswith("monai.networks") for name in names if name.split(".")[0] == "monai")


def test_the_package_itself_imports_nothing_heavy():
    assert ours(imported(PACKAGE / "__init__.py", at_import_time=True)) <= {"engine"}  # under TYPE_CHECKING only
    heavy = {name.split(".")[0] for name in imported(PACKAGE / "__init__.py", at_import_time=True)}
    assert heavy <= {"typing", "monai_sr_bundle"}


def test_no_module_is_without_an_owner():
    names = {part for path in PACKAGE.rglob("*.py") for part in path.relative_to(PACKAGE).with_suffix("").parts}
    assert names & NO_OWNER == set()


def test_every_layer_names_parts_that_exist():
    existing = {dotted(path) for path in MODULES} | {path.name for path in PACKAGE.iterdir() if path.is_dir()}
    assert set().union(*LAYERS) <= existing


def test_the_picture_in_the_docs_names_every_part():
    text = (PACKAGE.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    parts = set().union(*LAYERS) - {"_compat", "drawing", "report_schema", "metadata_schema", "report_page", "weights"}
    assert [name for name in sorted(parts) if name.replace(".", "/") not in text] == []
