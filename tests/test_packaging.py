"""The wheels: the package with its configs, and nothing that needs an unpinned version."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import monai_sr_bundle
import pytest
from monai_sr_bundle.backends.onnx_files import onnx_files
from monai_sr_bundle.shipped_bundles import all_bundles, is_default

from tests.test_layers import MODULES, dotted, imported

ROOT = Path(__file__).parent.parent
SHIPPED = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "NOTICE")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    return built(tmp_path_factory.mktemp("a path with spaces"))


def built(copy: Path, **environment: str) -> zipfile.ZipFile:
    """A wheel of a copy of the project, built with these variables set."""
    for name in SHIPPED:
        shutil.copy(ROOT / name, copy)
    for folder in ("monai_sr_bundle", "configs", "slicer_extension", "monailabel_app", "tests"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    build = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(copy / "dist"), str(copy)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    assert build.returncode == 0, build.stdout + build.stderr
    return zipfile.ZipFile(next((copy / "dist").glob("*.whl")))


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_configs_but_the_variants_and_some_onnx(wheel):
    compared_alone = "chest_ct_edsr_x4", "chest_ct_residual_flow_x4", "chest_xray_edsr_x4"
    left_out = {path for name in compared_alone for path in (ROOT / "configs" / name).glob("*.onnx")}
    assert len(left_out) == 5
    expected = {path.relative_to(ROOT).as_posix() for path in config_files() - left_out}
    assert {name.removeprefix("monai_sr_bundle/") for name in wheel.namelist() if "/configs/" in name} == expected


@pytest.mark.slow
def test_the_wheel_has_at_most_80_megabytes(wheel):
    assert Path(str(wheel.filename)).stat().st_size <= 80e6


def test_what_a_viewer_offers_has_onnx_files():
    defaults = {bundle.name for bundle in all_bundles() if is_default(bundle)}
    assert len(defaults) == 2
    flows = {"chest_xray_residual_flow_x4", "chest_ct_residual_flow_x4"}
    expected = {"bicubic", "chest_ct_edsr_x4", "chest_xray_edsr_x4", "chest_ct_throughplane", *flows, *defaults}
    assert {path.parent.name for path in (ROOT / "configs").rglob("*.onnx")} == expected
    assert {bundle.name for bundle in all_bundles() if all(map(bundle.has_file, onnx_files(bundle)))} == expected


def config_files() -> set[Path]:
    """Return the files of the configs that an installation needs: all but those of variants."""
    files = {path for path in (ROOT / "configs").rglob("*") if path.is_file()}
    assert any("variants" in path.parts for path in files)
    return {path for path in files if "variants" not in path.parts}


@pytest.mark.slow
def test_the_wheel_holds_every_module_and_no_test(wheel):
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "monai_sr_bundle").rglob("*.py")}
    app = [*(ROOT / "monailabel_app").glob("*.py"), *(ROOT / "monailabel_app" / "labelling").rglob("*.py")]
    modules |= {f"monai_sr_bundle/{path.relative_to(ROOT).as_posix()}" for path in app}
    assert {name for name in wheel.namelist() if name.endswith(".py")} == modules


@pytest.mark.slow
def test_the_wheel_carries_the_version_and_the_licence(wheel):
    metadata = wheel.read(f"monai_sr_bundle-{monai_sr_bundle.__version__}.dist-info/METADATA").decode()
    assert f"\nVersion: {monai_sr_bundle.__version__}\n" in metadata
    assert "\nLicense-Expression: Apache-2.0\n" in metadata
    assert any(name.endswith("/licenses/LICENSE") for name in wheel.namelist())


@pytest.mark.slow
def test_the_base_needs_neither_torch_nor_a_copyleft_decoder(wheel):
    metadata = wheel.read(f"monai_sr_bundle-{monai_sr_bundle.__version__}.dist-info/METADATA").decode()
    base = [line for line in metadata.splitlines() if line.startswith("Requires-Dist:") and "extra ==" not in line]
    assert base
    assert not re.search(r"\b(torch|monai|simpleitk|pylibjpeg-libjpeg)\b", "\n".join(base), re.IGNORECASE)


@pytest.mark.slow
def test_the_wheel_for_viewers_leaves_out_what_only_pytorch_reads(tmp_path):
    left = tmp_path / "build" / "lib" / "monai_sr_bundle" / "configs" / "left_by_another_build.pt"
    left.parent.mkdir(parents=True)
    left.touch()
    viewer = built(tmp_path, MONAI_SR_WHEEL="viewer")
    assert Path(str(viewer.filename)).name.startswith(f"monai_sr_bundle-{monai_sr_bundle.__version__}+viewer-")
    files = config_files()
    expected = {path.relative_to(ROOT).as_posix() for path in files if path.suffix != ".pt"}
    assert {name.removeprefix("monai_sr_bundle/") for name in viewer.namelist() if "/configs/" in name} == expected
    assert {path.suffix for path in files} >= {".pt", ".onnx"}


def test_every_package_that_the_tests_need_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    needed = ("torch", "metrics", "dev", "label", "labeltest")
    requirements = [*project["dependencies"], *(requirement for name in needed for requirement in extras[name])]
    pins = re.findall(r"^([\w.-]+)==\S+$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    pinned = {_normal(name) for name in pins}
    assert {_normal(re.split(r"[\[<>=;~! ]", requirement)[0]) for requirement in requirements} <= pinned


DISTRIBUTIONS = {"PIL": "pillow", "yaml": "pyyaml", "ignite": "monai", "cryptography": "nvflare"}
"""What brings a module of another name, directly or as its own dependency."""
EXTRAS = {
    "backends.openvino_backend": "openvino",
    "benchmark.paired": "benchmark",
    "benchmark.plots": "benchmark",
    "benchmark.sheet": "benchmark",
    "benchmark.unmodified": "benchmark",
    "boxes.dicom_report_write": "dicom",
    "cli.evaluate": "benchmark",
    "cli.label": "label",
    "cli.ray_cluster": "cluster",
    "federated": "federated",
    "images.dicom_maps": "dicom",
    "inferers.processes": "diffusion",
    "metrics.lpips": "metrics",
    "packing.signing": "signing",
    "training.private_step": "federated",
    "uncertainty.blobs": "benchmark",
}
"""Rooms and modules that need more than the base and the extra [torch], and the extra that they need."""


def test_what_a_module_imports_comes_with_the_base_or_its_extra():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    core = {_normal(re.split(r"[\[<>=;~! ]", each)[0]) for each in project["dependencies"]}
    extras = {
        name: {_normal(re.split(r"[\[<>=;~! ]", each)[0]) for each in requirements}
        for name, requirements in project["optional-dependencies"].items()
    }
    missing = []
    for path in MODULES:
        name = dotted(path)
        extra = next((extra for room, extra in EXTRAS.items() if f"{name}.".startswith(f"{room}.")), "torch")
        brought = core | extras["torch"] | extras[extra]
        tops = {each.split(".")[0] for each in imported(path, at_import_time=False)} - {"monai_sr_bundle"}
        foreign = {_normal(DISTRIBUTIONS.get(top, top)) for top in tops - set(sys.stdlib_module_names)}
        missing += [f"{name} imports {each}" for each in sorted(foreign - brought)]
    assert missing == []


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
