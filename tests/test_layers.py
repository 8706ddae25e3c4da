"""Imports go down, never up or sideways; only some parts know PyTorch. docs/architecture.md shows the same picture."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "monai_sr_bundle"

# From the bottom up. A part may import parts of lower layers, and a folder its own modules.
LAYERS = (
    {"errors", "geometry", "provenance", "degradation", "networks", "drawing", "_compat", "report_schema",
     "metadata_schema"},
    {"images", "bundles", "inferers.tiled", "inferers.process", "inferers.device", "inferers.interpolate",
     "inferers.consistency", "inferers.slices", "losses", "phantom"},
    {"inferers.flow", "inferers.through_plane", "inferers.removed"},
    {"datasets", "metrics", "inferers.sampling", "preview"},
    {"inferers.denoiser"},
    {"backends", "inferers.sliding", "transforms", "training"},
    {"trust"},
    {"report_page"},
    {"engine", "report", "export", "benchmark", "estimate"},
    {"jobs", "console", "pack", "box_files", "view"},
    {"demo", "verify", "worker"},
    {"__main__"},
)  # fmt: skip
KNOW_TORCH = {
    "networks", "losses", "metrics", "transforms", "training", "benchmark", "export", "inferers.sliding",
    "inferers.device", "inferers.denoiser", "trust.cases", "trust.train", "trust.training_inputs", "trust.calibrate",
    "backends.torch_backend",
}  # fmt: skip
HEAVY = {"torch", "monai", "ignite"}
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


def test_imports_go_down():
    upward = [
        f"{name} imports {other}, which is not below it"
        for name, path in ((dotted(path), path) for path in MODULES)
        for other in sorted(ours(imported(path, at_import_time=False)))
        if not (part(name) == part(other) and "." in name) and layer(other) >= layer(name)
    ]
    assert upward == []


def test_only_some_parts_know_torch():
    names = {dotted(path): imported(path, at_import_time=True) for path in MODULES}
    know_torch = {name for name in names if any(f"{name}.".startswith(f"{known}.") for known in KNOW_TORCH)}
    heavy = {name: {other.split(".")[0] for other in names[name]} & HEAVY for name in names.keys() - know_torch}
    assert {name: packages for name, packages in heavy.items() if packages} == {}


def test_a_network_knows_nothing_but_torch_and_monai_blocks():
    for path in sorted((PACKAGE / "networks").glob("[a-z]*.py")):
        names = imported(path, at_import_time=False)
        assert {name.split(".")[0] for name in names} <= {"torch", "monai", "monai_sr_bundle", "typing"}, path.name
        assert ours(names) <= {"networks.bicubic", "networks.noise_unet"}, path.name
        assert all(name.startswith("monai.networks") for name in names if name.split(".")[0] == "monai"), path.name


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
