"""A packed bundle runs by itself, passes the zoo's checks, and is the same every time."""

import ast
import filecmp
import io
import json
import os
import shutil
import subprocess
import sys
import tokenize
from pathlib import Path

import nibabel
import numpy as np
import pytest
import yaml
from monai.bundle import ConfigWorkflow
from monai_sr_bundle import __version__, enhance
from monai_sr_bundle.bundles import sha256_of
from monai_sr_bundle.datasets.phantom import draw_phantom, write_phantom_png
from monai_sr_bundle.errors import BundleError, OutputError
from monai_sr_bundle.images.one_image import read_one
from monai_sr_bundle.packing import pack
from monai_sr_bundle.packing.verify import verify
from monai_sr_bundle.shipped_bundles import all_bundles, configs_dir, find_bundle

NO_TORCHSCRIPT = "exclude_verify_torchscript_list"
FAST = ("bicubic", "chest_xray_edsr_x4", "chest_xray_residual_flow_x4", "chest_xray_sr3_x4", "chest_ct_throughplane")
"""One bundle of each family."""


def all_of_which_fast(*fast):
    """Every bundle; those that are not named are slow."""
    return [pytest.param(each.name, marks=() if each.name in fast else pytest.mark.slow) for each in all_bundles()]


MOST_FILES, MOST_LINES = 68, 8214
"""Of the code that every bundle carries; docstrings, comments and blank lines are not counted."""

ALONE = """
import runpy, sys
sys.argv = ["monai.bundle", "run", "--config_file", "configs/inference.yaml", *sys.argv[1:]]
try:
    runpy.run_module("monai.bundle", run_name="__main__", alter_sys=True)
except SystemExit as stop:
    assert not stop.code, stop.code
import monai_sr_bundle
print("the code is in", monai_sr_bundle.__file__)
"""


@pytest.fixture
def source(tmp_path):
    """The source folder of a bundle, to change."""
    folder = tmp_path / "source" / "chest_xray_edsr_x4"
    shutil.copytree(configs_dir() / "chest_xray_edsr_x4", folder)
    return folder


@pytest.mark.parametrize("name", all_of_which_fast(*FAST))
def test_every_bundle_passes_every_check_of_the_zoo(packed, name):
    checks = list(verify(packed(name)))
    assert len(checks) == 16
    assert [check for check in checks if not check.passed] == []
    exclusions = {check.exclusion for check in checks if check.exclusion}
    if name == "bicubic":
        assert exclusions == {"exclude_verify_preferred_files_list", NO_TORCHSCRIPT}
    else:
        assert exclusions == ({NO_TORCHSCRIPT} if find_bundle(name).family.name == "diffusion" else set())


# In the fast part, tests/test_every_family.py runs packed bundles of the other families in one process.
@pytest.mark.parametrize("name", all_of_which_fast("chest_xray_residual_flow_x4", "chest_ct_throughplane"))
def test_every_bundle_runs_alone_in_a_fresh_process_and_gives_the_pixels_of_the_engine(packed, tmp_path, name):
    folder = packed(name)
    is_ct = find_bundle(name).modality == "CT"
    picture = tmp_path / ("chest.nii.gz" if is_ct else "chest.png")
    if is_ct:
        chest = np.stack([draw_phantom(40)] * 5, axis=2) * 1400 - 1000
        nibabel.save(nibabel.Nifti1Image(np.rint(chest).astype(np.int16), np.diag([1, 1, 5, 1])), picture)
    else:
        write_phantom_png(picture, 40)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    folders = ["--dataset_dir", str(picture), "--output_dir", str(tmp_path / "out")]
    command = [sys.executable, "-W", "ignore", "-c", ALONE, *folders]
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert f"the code is in {folder.resolve()}" in ran.stdout
    expected = enhance(picture, name, backend="torch").image.pixels
    assert (read_one(tmp_path / "out" / f"chest_sr{''.join(picture.suffixes)}").pixels == expected).all()


def test_packing_twice_gives_the_same_bytes(packed, tmp_path):
    first, second = packed("chest_xray_edsr_x4"), pack.pack("chest_xray_edsr_x4", tmp_path)
    names = sorted(str(path.relative_to(second)) for path in second.rglob("*") if path.is_file())
    assert len(names) > 50
    assert filecmp.cmpfiles(first, second, names, shallow=False)[0] == names


def test_an_installed_package_packs_the_same_bundle(packed, tmp_path):
    package = tmp_path / "site-packages" / "monai_sr_bundle"
    checkout = configs_dir().parent
    shutil.copytree(checkout / "monai_sr_bundle", package, ignore=shutil.ignore_patterns("__pycache__", "configs"))
    shutil.copytree(configs_dir(), package / "configs")
    about = package.with_name(f"monai_sr_bundle-{__version__}.dist-info")
    (about / "licenses").mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.4\nName: monai-sr-bundle\nVersion: {__version__}\n")
    shutil.copy(checkout / "LICENSE", about / "licenses")
    command = "import monai_sr_bundle.__main__ as m, sys; sys.exit(m.main(['pack', 'chest_ct_edsr_x4', 'out']))"
    options = {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": str(package.parent)}, "check": False}
    ran = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, **options)
    assert ran.returncode == 0, ran.stderr
    ours, theirs = packed("chest_ct_edsr_x4"), tmp_path / "out" / "chest_ct_edsr_x4"
    names = sorted(str(path.relative_to(ours)) for path in ours.rglob("*") if path.is_file())
    assert filecmp.cmpfiles(ours, theirs, names, shallow=False)[0] == names


def test_a_packed_bundle_holds_the_files_of_the_zoo(packed):
    folder = packed("chest_ct_edsr_x4")
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.parent != folder / pack.PACKAGE}
    overlays = ("inference_trt", "multi_gpu_train", "multi_gpu_evaluate", "multi_gpu_inference")
    assert {f"configs/{name}.yaml" for name in ("inference", "train", "evaluate", *overlays)} < names
    assert {f"configs/{name}.json" for name in ("inference", "train", "evaluate")} < names  # for bundle.load, MonaiAlgo
    assert {"LICENSE", "configs/metadata.json", "configs/logging.conf", "models/model.pt", "models/model.onnx"} < names
    assert {"docs/README.md", "docs/data_license.txt"} < names
    assert "large_files.yml" not in names


def test_a_bundle_without_weights_has_nothing_to_train(packed):
    assert not list((packed("bicubic") / "configs").glob("*train*"))


def test_only_the_code_that_workflows_need_is_packed(packed):
    modules = {path.relative_to(packed("bicubic")) for path in packed("bicubic").rglob("*.py")}
    folders = {module.parts[1] for module in modules}
    assert {"networks", "transforms", "inferers", "losses", "metrics", "training", "families"} < folders
    assert not folders & {"report", "uncertainty", "benchmark", "calibrate", "packing", "cli", "worker", "__main__.py"}
    names = {module.name for module in modules}
    assert not names & {"session.py", "result.py", "onnx_backend.py", "dicom_maps.py", "phantom.py"}


def code_lines(text: str) -> int:
    """Number of lines without docstrings, comments and blank lines."""
    nodes = [*ast.walk(ast.parse(text))]
    strings = [node for node in nodes if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)]
    documentation = {line for node in strings for line in range(node.lineno, node.end_lineno + 1)}
    blank = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    spans = [range(token.start[0], token.end[0] + 1) for token in tokens if token.type not in blank]
    return len({line for span in spans for line in span} - documentation)


def test_the_code_that_every_bundle_carries_does_not_grow(packed):
    modules = [*packed("bicubic").rglob("*.py")]
    assert len(modules) <= MOST_FILES
    assert sum(code_lines(module.read_text()) for module in modules) <= MOST_LINES


def test_comments_survive_the_packing(packed):
    text = (packed("chest_xray_edsr_x4") / "configs" / "inference.yaml").read_text()
    for part in (configs_dir() / "chest_xray_edsr_x4" / "model.yaml", configs_dir() / "workflows" / "inference.yaml"):
        lines = [line for line in part.read_text().splitlines() if "#" in line]
        assert lines
        assert all(line in text for line in lines)


def test_a_packed_bundle_refuses_another_version_of_the_code(packed, tmp_path):
    folder = shutil.copytree(packed("chest_xray_edsr_x4"), tmp_path / "older")
    picture = tmp_path / "chest.png"
    write_phantom_png(picture, 40)
    for name in ("inference", "train", "evaluate"):
        config = folder / "configs" / f"{name}.yaml"
        config.write_text(config.read_text().replace(f"require_version('{__version__}')", "require_version('0.0.1')"))
        workflow = ConfigWorkflow(str(config), logging_file=False, bundle_root=str(folder), dataset_dir=str(picture))
        with pytest.raises(RuntimeError) as raised:
            workflow.initialize()
        assert "packed with monai_sr_bundle 0.0.1" in str(raised.value.__cause__)
    message = r"bundle older: inference\.yaml: this bundle was packed with monai_sr_bundle 0\.0\.1, but .*; pack it"
    with pytest.raises(BundleError, match=message):
        find_bundle(str(folder))


def test_the_overlays_for_several_gpus_ask_for_the_version_too(packed):
    for overlay in (packed("chest_xray_edsr_x4") / "configs").glob("multi_gpu_*.yaml"):
        checks = [f"$require_version('{__version__}')", "$require_same_code(@bundle_root)"]
        assert yaml.safe_load(overlay.read_text())["initialize"][3:5] == checks


def test_an_onnx_file_that_a_wheel_goes_without_is_exported(source, tmp_path):
    for name in ("model.onnx", "error_bars.onnx"):
        (source / name).unlink()
    packed = find_bundle(str(pack.pack(str(source), tmp_path / "out")))
    for name in ("model.onnx", "error_bars.onnx"):
        path, sha256 = packed.weights(name)
        assert path.is_relative_to(packed.folder)
        assert sha256 == sha256_of(path)
        assert not (source / name).exists()


def test_a_key_in_both_texts_is_refused(source, tmp_path):
    with (source / "model.yaml").open("a") as text:
        text.write("device: cpu\n")
    with pytest.raises(BundleError, match=r"model\.yaml and workflows/inference\.yaml both have device"):
        pack.pack(str(source), tmp_path)
    assert not (tmp_path / source.name).exists()


@pytest.mark.parametrize(
    ("file", "what"), [("card.md", "model card"), ("data_license.txt", "terms of the training data")]
)
def test_a_bundle_without_its_papers_is_not_packed(source, tmp_path, file, what):
    (source / file).unlink()
    with pytest.raises(BundleError, match=rf"{file} \(the {what}\) is missing"):
        pack.pack(str(source), tmp_path)


def test_a_packed_bundle_is_not_packed_again(packed, tmp_path):
    with pytest.raises(BundleError, match="is packed already"):
        pack.pack(str(packed("bicubic")), tmp_path)


def test_an_older_packed_bundle_is_replaced_only_when_asked(tmp_path):
    pack.pack("bicubic", tmp_path)
    (tmp_path / "bicubic" / "left over").touch()
    with pytest.raises(OutputError, match="exists already"):
        pack.pack("bicubic", tmp_path)
    pack.pack("bicubic", tmp_path, overwrite=True)
    assert not (tmp_path / "bicubic" / "left over").exists()


def test_a_folder_of_something_else_is_never_replaced(tmp_path):
    (tmp_path / "bicubic").mkdir()
    (tmp_path / "bicubic" / "thesis.txt").touch()
    with pytest.raises(OutputError, match="is not a packed bundle. Choose another folder, or remove it first"):
        pack.pack("bicubic", tmp_path, overwrite=True)
    assert (tmp_path / "bicubic" / "thesis.txt").exists()


def test_weights_too_large_for_the_zoo_need_a_place_to_get_them_from(source, tmp_path, monkeypatch):
    monkeypatch.setattr(pack, "LARGEST_BYTES", 1_453_000)
    with pytest.raises(BundleError, match=r"model\.onnx has 1\.4 MiB, more than .* state its URL under weights_url"):
        pack.pack(str(source), tmp_path)
    metadata = json.loads((source / "metadata.json").read_text())
    metadata["weights_url"] = {"model.onnx": "https://example.org/model.onnx"}
    (source / "metadata.json").write_text(json.dumps(metadata))
    folder = pack.pack(str(source), tmp_path)
    assert {path.name for path in (folder / "models").iterdir()} == {"model.pt", "error_bars"}
    assert {path.name for path in (folder / "models" / "error_bars").iterdir()} == {"error_bars.pt", "error_bars.onnx"}
    (entry,) = yaml.safe_load((folder / "large_files.yml").read_text())["large_files"]
    assert entry["path"] == "models/model.onnx"
    assert entry["hash_val"] == metadata["weights_sha256"]["model.onnx"]


def test_a_config_that_names_code_that_is_not_there_is_refused_but_not_a_comment():
    package = Path(pack.__file__).parents[1]
    magic = "monai_sr_bundle.networks.magic.Net"
    with pytest.raises(BundleError, match=rf"a config names {magic}, but .* no module networks\.magic"):
        pack.needed_modules([f"_target_: {magic}"], package)
    assert Path("errors.py") in pack.needed_modules(
        [f"# {magic}\n_target_: monai_sr_bundle.errors.InputError"], package
    )


def test_a_key_twice_is_found_at_any_depth():
    assert pack.duplicate_keys("a: 1\nb: [{c: 1, d: 2, c: 3}]\na: 2\n") == ["a", "c"]
    assert pack.duplicate_keys("a: 1\nb: {a: 1}\n") == []


def test_the_packages_stated_are_those_tested():
    lines = (Path(__file__).parents[2] / "constraints.txt").read_text().splitlines()
    pins = dict(line.lower().split("==") for line in lines if "==" in line and line[0] != "#")
    for bundle in all_bundles():
        metadata = bundle.metadata
        versions = {
            name: metadata[f"{key}_version"] for name, key in (("monai",) * 2, ("torch", "pytorch"), ("numpy",) * 2)
        }
        versions |= metadata["required_packages_version"]
        assert {name: pins[name.lower()] for name in versions} == versions
