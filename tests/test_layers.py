"""Imports go down, never up or sideways; only some rooms know PyTorch. docs/architecture.md shows the same picture."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "monai_sr_bundle"

# From the bottom up. A room is a folder or a module of the package; it may import rooms of lower layers.
LAYERS = (
    {"errors", "degradation", "networks", "_compat"},
    {"images", "losses", "table"},
    {"inferers", "boxes", "metrics"},
    {"families", "datasets"},
    {"bundles"},
    {"shipped_bundles"},
    {"backends", "training", "transforms"},
    {"uncertainty"},
    {"report"},
    {"engine"},
    {"calibrate"},
    {"benchmark", "packing"},
    {"federated"},
    {"cli"},
    {"worker"},
    {"__main__"},
)
KNOW_TORCH = {
    "networks", "losses", "metrics", "transforms", "training", "benchmark", "packing.onnx_export", "packing.release",
    "backends.torch_networks", "backends.torch_backend", "engine.monai_inferer", "engine.tensorrt_parts", "calibrate",
    "federated",
}  # fmt: skip
HEAVY = {"torch", "monai", "ignite"}
NO_OWNER = {"utils", "util", "helpers", "helper", "common", "misc"}

MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def room(name: str) -> str:
    return name.split(".")[0]


def layer(name: str) -> int:
    levels = [level for level, rooms in enumerate(LAYERS) if room(name) in rooms]
    assert levels, f"{name} stands in no layer: put it where it belongs in LAYERS and in docs/architecture.md"
    return levels[0]


def imported(path: Path, *, at_import_time: bool) -> set[str]:
    """Dotted names in a module's import statements; all of them, or those that run when it is imported."""
    names: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            # boxes.readings alone, which is also a file of the Slicer extension and has its own `box` beside it there
            assert node.level == (dotted(path) == "boxes.readings" and node.module == "box"), (
                f"{dotted(path)} imports relatively: name the package"
            )
            module = "monai_sr_bundle.boxes.box" if node.level else node.module
            names |= {f"{module}.{alias.name}" for alias in node.names}
        if not (at_import_time and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)):
            waiting += ast.iter_child_nodes(node)
    return names


def ours(names: set[str]) -> set[str]:
    """Names of this package's modules among imported names: `monai_sr_bundle.images.image.Image` is images.image."""
    modules = set()
    for name in names:
        parts = name.split(".")
        if parts[0] != "monai_sr_bundle":
            continue
        for end in range(len(parts), 1, -1):
            inner = Path(*parts[1:end])
            if (PACKAGE / inner).with_suffix(".py").is_file():
                modules.add(".".join(inner.parts))
                break
    return modules


def test_imports_go_down():
    upward = [
        f"{name} imports {other}, which is not below it"
        for name, path in ((dotted(path), path) for path in MODULES)
        for other in sorted(ours(imported(path, at_import_time=False)))
        if room(name) != room(other) and layer(other) >= layer(name)
    ]
    assert upward == []


def test_modules_do_not_import_each_other_in_a_circle():
    below = {dotted(path): ours(imported(path, at_import_time=False)) - {dotted(path)} for path in MODULES}
    while leaves := {name for name, others in below.items() if not others & below.keys()}:
        below = {name: others for name, others in below.items() if name not in leaves}
    assert below == {}


def test_only_some_rooms_know_torch():
    names = {dotted(path): imported(path, at_import_time=True) for path in MODULES}
    know_torch = {name for name in names if any(f"{name}.".startswith(f"{prefix}.") for prefix in KNOW_TORCH)}
    heavy = {name: {other.split(".")[0] for other in names[name]} & HEAVY for name in names.keys() - know_torch}
    assert {name: packages for name, packages in heavy.items() if packages} == {}


def test_a_network_knows_nothing_but_torch_and_monai_blocks():
    for path in sorted((PACKAGE / "networks").glob("[a-z]*.py")):
        names = imported(path, at_import_time=False)
        assert {name.split(".")[0] for name in names} <= {"torch", "monai", "monai_sr_bundle", "typing", "math"}, (
            path.name
        )
        assert ours(names) <= {"networks.bicubic", "networks.edsr", "networks.noise_unet", "networks.srgan"}, path.name
        assert all(name.startswith("monai.networks") for name in names if name.split(".")[0] == "monai"), path.name


def test_the_package_itself_imports_nothing_heavy():
    assert ours(imported(PACKAGE / "__init__.py", at_import_time=True)) <= {"engine.session"}  # for mypy
    heavy = {name.split(".")[0] for name in imported(PACKAGE / "__init__.py", at_import_time=True)}
    assert heavy <= {"os", "typing", "monai_sr_bundle"}


def test_no_module_is_without_an_owner():
    names = {part for path in PACKAGE.rglob("*.py") for part in path.relative_to(PACKAGE).with_suffix("").parts}
    assert names & NO_OWNER == set()


def test_every_layer_names_rooms_that_exist():
    assert set().union(*LAYERS) == {room(dotted(path)) for path in MODULES}


def test_the_picture_in_the_docs_has_the_same_layers():
    text = (PACKAGE.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    picture = text.split("## Who imports whom")[1].split("```")[1]
    lines = [line.split("   ")[0].replace("/", "").split() for line in picture.strip().splitlines()]
    assert [set(line) for line in reversed(lines)] == [set(rooms) - {"_compat"} for rooms in LAYERS]
