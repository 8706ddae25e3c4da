"""A viewer's or hospital's installation: the base dependencies alone, no PyTorch, no MONAI, in a real environment."""

import os
import subprocess
import venv
from pathlib import Path

import numpy as np
import pydicom
import pytest
from monai_sr_bundle import enhance
from monai_sr_bundle.datasets.phantom import write_phantom_dicom, write_phantom_png
from PIL import Image
from pydicom.data import get_testdata_file

from tests.test_layers import KNOW_TORCH, MODULES, dotted

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def light(tmp_path_factory):
    """`bin/` of a new environment that was installed from a folder of wheels alone, with no extras."""
    folder = tmp_path_factory.mktemp("light")
    venv.create(folder / "environment", with_pip=True, symlinks=True)
    pip = [str(folder / "environment" / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    for words in (
        ["wheel", "-c", "constraints.txt", "-w", str(folder / "wheels"), "."],
        ["install", "--no-index", "--find-links", str(folder / "wheels"), "monai-sr-bundle"],
    ):
        ended = subprocess.run([*pip, *words], cwd=ROOT, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, f"`pip {words[0]}` failed; it needs the package index:\n{ended.stderr[-2000:]}"
    return folder / "environment" / "bin"


def run(light, *words, cwd):
    # From another folder and without PYTHONPATH: the installed wheel must be what runs, not the checkout.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [str(light / words[0]), *map(str, words[1:])]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", ["torch", "monai"])
def test_the_environment_really_lacks_it(light, tmp_path, name):
    assert "ModuleNotFoundError" in run(light, "python", "-c", f"import {name}", cwd=tmp_path).stderr


def test_every_module_that_does_not_know_pytorch_imports(light, tmp_path):
    """They need the base of pyproject.toml and nothing else."""
    names = [dotted(path) for path in MODULES]
    plain = [name for name in names if not any(f"{name}.".startswith(f"{prefix}.") for prefix in KNOW_TORCH)]
    assert "engine.session" in plain
    plain.remove("cli.ray_cluster")  # needs the extra [cluster]
    code = "import importlib, sys; [importlib.import_module(f'monai_sr_bundle.{name}') for name in sys.argv[1:]]"
    ended = run(light, "python", "-c", code, *plain, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr


def test_it_enlarges_a_picture_to_within_one_step_of_pytorch(light, tmp_path):
    write_phantom_png(tmp_path / "film.png", size=96)
    ended = run(light, "monai-sr", "enhance", "film.png", "out.png", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "| onnx on cpu" in ended.stdout
    pixels = np.asarray(Image.open(tmp_path / "out.png")).astype(int)
    expected = enhance(tmp_path / "film.png", backend="torch").image.pixels[0].astype(int)
    assert np.abs(pixels - expected).max() <= 1
    assert (pixels != expected).mean() < 0.01


def test_it_writes_dicom_with_preview_and_report(light, tmp_path):
    write_phantom_dicom(tmp_path / "film.dcm", size=64)
    ended = run(light, "monai-sr", "enhance", "film.dcm", "out.dcm", "--preview", "--report", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert pydicom.dcmread(tmp_path / "out.dcm").Rows == 256
    assert {path.name for path in tmp_path.glob("out.*")} == {
        "out.dcm",
        "out.preview.png",
        "out.report.json",
        "out.report.html",
    }


def test_lossy_jpeg_of_12_bits_names_the_decoder_it_needs(light, tmp_path):
    ended = run(
        light, "monai-sr", "enhance", get_testdata_file("JPGExtended.dcm", download=False), "out.dcm", cwd=tmp_path
    )
    assert ended.returncode == 3
    assert "pip install -c constraints.txt '.[jpeg]'" in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_it_lists_the_bundles_that_travel_in_the_wheel(light, tmp_path):
    ended = run(light, "monai-sr", "bundles", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    for name in ("bicubic", "chest_ct_blind (default)", "chest_xray_blind (default)"):
        assert name in ended.stdout


def test_asking_for_pytorch_says_what_to_install(light, tmp_path):
    write_phantom_png(tmp_path / "film.png", size=64)
    ended = run(light, "monai-sr", "enhance", "film.png", "out.png", "--backend", "torch", cwd=tmp_path)
    assert ended.returncode == 4
    assert "pip install -c constraints.txt '.[torch]'" in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_it_draws_with_the_bundle_that_is_advised_for_previews(light, tmp_path):
    write_phantom_png(tmp_path / "film.png", size=64)
    words = ("film.png", "out.png", "--bundle", "chest_xray_residual_flow_x4", "--texture", "0.5", "--steps", "1")
    ended = run(light, "monai-sr", "enhance", *words, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr


def test_a_bundle_that_is_compared_alone_says_what_its_onnx_files_need(light, tmp_path):
    write_phantom_png(tmp_path / "film.png", size=64)
    ended = run(light, "monai-sr", "enhance", "film.png", "out.png", "--bundle", "chest_xray_edsr_x4", cwd=tmp_path)
    assert ended.returncode == 4
    assert "has no model.onnx. Run `monai-sr export chest_xray_edsr_x4`, or use --backend torch" in ended.stderr
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "extra"),
    [
        (("train", "NAME", "--data", "."), "torch"),
        (("evaluate", "chest_xray_edsr_x4", "--data", "."), "torch"),
        (("federated", "simulate", "study.yaml", "--data", ".", "--out", "out"), "torch,federated"),
    ],
)
def test_commands_that_need_pytorch_say_so_in_one_line(light, tmp_path, words, extra):
    ended = run(light, "monai-sr", *words, cwd=tmp_path)
    assert ended.returncode == 4
    assert "needs torch" in ended.stderr
    assert f"pip install -c constraints.txt '.[{extra}]'" in ended.stderr
    assert ended.stderr.count("\n") == 1
