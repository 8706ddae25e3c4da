"""All packed bundles in one process, in any order, from any folder, with nothing of this project installed."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import torch
from monai_sr_bundle import __version__
from monai_sr_bundle.bundles import code_sha256
from monai_sr_bundle.datasets.phantom import draw_phantom, write_phantom_png
from monai_sr_bundle.datasets.phantom_set import write_phantom_set
from monai_sr_bundle.packing import pack
from monai_sr_bundle.shipped_bundles import all_bundles

from tests.images.dicom_files import radiograph

PACKAGES = sysconfig.get_paths()["purelib"]


def alone(*words, cwd, check=True, **variables):
    """Run Python without the package: no PYTHONPATH, and no .pth file of an editable installation."""
    inherited = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-S", "-W", "ignore", *map(str, words)]
    environment = {**inherited, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1", **variables}
    ran = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert not check or ran.returncode == 0, ran.stdout + ran.stderr
    return ran


MONAI = f"""
import runpy, sys
sys.path.append({PACKAGES!r})
sys.argv[0] = "monai.bundle"
runpy.run_module("monai.bundle", run_name="__main__", alter_sys=True)
"""


@pytest.fixture
def empty(tmp_path):
    """An empty folder to start from, in which the package is not found."""
    folder = tmp_path / "empty"
    folder.mkdir()
    ran = alone("-c", f"import sys; sys.path.append({PACKAGES!r}); import monai_sr_bundle", cwd=folder, check=False)
    if ran.returncode == 0:
        pytest.skip("the package is installed itself, not as a checkout: bundles cannot be tested without it")
    return folder


@pytest.fixture
def picture(tmp_path):
    write_phantom_png(tmp_path / "chest.png", 40)
    return tmp_path / "chest.png"


@pytest.mark.slow
def test_all_bundles_together_load_run_evaluate_train_and_export(empty, packed, tmp_path, capsys):
    images, data = tmp_path / "images", tmp_path / "data"
    images.mkdir()
    write_phantom_png(images / "chest.png", 40)
    chest = np.stack([draw_phantom(40)] * 3, axis=2) * 1400 - 1000
    nibabel.save(nibabel.Nifti1Image(np.rint(chest).astype(np.int16), np.diag([1, 1, 5, 1])), images / "ct.nii.gz")
    names = set()
    for bundle in all_bundles():
        folder = packed(bundle.name)
        for name in set(bundle.facts.get("sets") or ()) - names:
            write_phantom_set(data / name, bundle.modality, size=96 if bundle.modality == "CXR" else 64)
            names.add(name)
    alone(Path(__file__).with_name("run_together.py"), PACKAGES, folder.parent, images, data, tmp_path / "table",
          cwd=empty)  # fmt: skip
    table = (tmp_path / "table").read_text()
    with capsys.disabled():
        print(f"\n{table}")
    assert "FAIL" not in table
    assert table.count("ok") >= 5 * len(list(all_bundles())) - 4  # bicubic learns nothing; no figures along slices


def test_every_bundle_carries_the_same_code(packed):
    first, second = (packed(name) / pack.PACKAGE for name in ("chest_xray_edsr_x4", "bicubic"))
    names = sorted(path.relative_to(first) for path in first.rglob("*.py"))
    assert names == sorted(path.relative_to(second) for path in second.rglob("*.py"))
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in names)


def test_a_bundle_runs_from_an_empty_folder(empty, packed, picture, tmp_path):
    config = packed("chest_xray_edsr_x4") / "configs" / "inference.yaml"
    words = ["run", "--config_file", config, "--dataset_dir", picture, "--output_dir", tmp_path / "out"]
    alone("-c", MONAI, *words, cwd=empty)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["chest_sr.png"]


def test_a_bundle_alone_reads_and_writes_dicom(empty, packed, tmp_path):
    radiograph(tmp_path / "chest.dcm", np.arange(1600, dtype=np.uint16).reshape(40, 40))
    config = packed("chest_xray_edsr_x4") / "configs" / "inference.yaml"
    words = ["run", "--config_file", config, "--dataset_dir", tmp_path / "chest.dcm", "--output_dir", tmp_path / "out"]
    alone("-c", MONAI, *words, cwd=empty)
    assert pydicom.dcmread(tmp_path / "out" / "chest_sr.dcm").pixel_array.shape == (160, 160)


@pytest.mark.slow
def test_what_a_user_can_mend_is_the_last_line_and_comes_before_enlarging(empty, packed, tmp_path):
    write_phantom_png(tmp_path / "chest.png", 40)
    (tmp_path / "chest_sr.png").touch()
    config = packed("chest_xray_edsr_x4") / "configs" / "inference.yaml"
    words = ["run", "--config_file", config, "--dataset_dir", tmp_path / "chest.png", "--output_dir", tmp_path]
    ran = alone("-c", MONAI, *words, cwd=empty, check=False)
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[-1].endswith(
        "exists already. Choose another name, or pass --overwrite (in Python overwrite=True) to replace it."
    )
    assert "Traceback" not in ran.stderr


OTHER_CODE = f"""
import sys
sys.path.append({PACKAGES!r})
from monai.bundle import load
for name in ("chest_xray_edsr_x4", "chest_xray_srcnn_x4"):
    try:
        load(name, bundle_dir=sys.argv[1], workflow_type="inference", device="cpu")
    except RuntimeError as error:
        while error.__cause__:
            error = error.__cause__
        print(name, error)
"""


def test_a_checkout_with_other_line_ends_has_the_same_code(tmp_path):
    for name, ends in (("unix", b"\n"), ("windows", b"\r\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "module.py").write_bytes(b"first = 1\nsecond = 2\n".replace(b"\n", ends))
    unix, windows = (code_sha256(tmp_path / name, ["module.py"]) for name in ("unix", "windows"))
    assert unix == windows
    (tmp_path / "windows" / "module.py").write_bytes(b"first = 1\r\nsecond = 3\r\n")
    assert code_sha256(tmp_path / "windows", ["module.py"]) != unix


@pytest.mark.slow
def test_the_network_is_exported_from_another_folder_as_the_card_says(empty, packed, tmp_path):
    folder = packed("chest_xray_srcnn_x4")
    files = {"config_file": "inference.yaml", "meta_file": "metadata.json"}
    words = ["ckpt_export", "--net_id", "network_def", "--filepath", tmp_path / "model.ts"]
    words += ["--ckpt_file", folder / "models" / "model.pt"]
    for key, name in files.items():
        words += [f"--{key}", folder / "configs" / name]
    assert alone("-c", MONAI, *words, cwd=empty, check=False).returncode == 1
    alone("-c", MONAI, *words, cwd=empty, PYTHONPATH=str(folder))
    assert torch.jit.load(tmp_path / "model.ts")(torch.rand(1, 1, 8, 8)).shape == (1, 1, 32, 32)
    assert (
        "From another folder, set PYTHONPATH to that of this bundle first"
        in (folder / "docs" / "README.md").read_text()
    )


@pytest.mark.slow
def test_other_code_of_the_same_version_is_refused(empty, packed, tmp_path):
    for name in ("chest_xray_edsr_x4", "chest_xray_srcnn_x4"):
        shutil.copytree(packed(name), tmp_path / "both" / name)
    with (tmp_path / "both" / "chest_xray_srcnn_x4" / pack.PACKAGE / "networks" / "bicubic.py").open("a") as module:
        module.write("# changed\n")
    line = alone("-c", OTHER_CODE, tmp_path / "both", cwd=empty).stdout.splitlines()[-1]
    assert line.startswith(f"chest_xray_srcnn_x4 this bundle carries monai_sr_bundle {__version__} with SHA-256 ")
    assert f" is imported from {tmp_path / 'both' / 'chest_xray_edsr_x4'}" in line


def test_what_only_the_package_has_says_so(empty, packed):
    code = f"import sys; sys.path.append({str(packed('bicubic'))!r}); sys.path.append({PACKAGES!r}); "
    ran = alone("-c", f"{code}import monai_sr_bundle; monai_sr_bundle.enhance", cwd=empty, check=False)
    assert "monai_sr_bundle.enhance needs the package monai-sr-bundle" in ran.stderr.splitlines()[-1]
