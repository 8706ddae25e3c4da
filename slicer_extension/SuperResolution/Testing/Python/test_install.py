"""Installing for a Python into a folder of its own, by real pip: a real environment, drawn wheels, no network.

The slow test builds the project's own wheel; the other packages come from the package index that pip is set to here.
"""

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from SuperResolutionLib import install
from SuperResolutionLib.child_process import packagesOf
from SuperResolutionLib.install import Installation
from SuperResolutionLib.worker_client import workerCommand
from waiting import PATIENCE, waitFor

CHECKOUT = Path(__file__).resolve().parents[4]
PYTHON = os.environ.get("SUPERRESOLUTION_PYTHON", sys.executable)
SETTINGS = dict(os.environ)  # this machine's settings, with which the slow test fills its folder
FILL = 'MONAI_SR_WHEEL=viewer python3.12 -m pip wheel --only-binary :all: -w FOLDER ".[dicom]"'
"""How the user page fills a folder."""
BOTH = {"monai_sr_bundle-0.2.0+viewer", "helper-1.0"}


def run(*command, **options):
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE, **options)


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
    """The user's data, into which packages are installed, by a pip without the settings of this machine."""
    for name in list(os.environ):
        if name.startswith(("PIP_", "PYTHONP")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path / "data" / "monai-sr-bundle"


def installed(python):
    """The names and versions of what is installed for a Python."""
    return {path.name.removesuffix(".dist-info") for path in Path(packagesOf(python)).glob("*.dist-info")}


def draw(folder, name, version, needs="", **modules):
    """A wheel of a package with these modules."""
    folder.mkdir(exist_ok=True)
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    files = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
        **{f"{module}/{stem}.py": text for stem, text in {"__init__": "", **modules}.items()},
    }
    with zipfile.ZipFile(folder / f"{module}-{version}-py3-none-any.whl", "w") as wheel:
        for file, text in files.items():
            wheel.writestr(file, text)


def drawBundle(folder, worker="", version=f"{install.VERSION}+viewer"):
    """A wheel of our package whose worker does what `worker` says, and one of a package that it needs."""
    draw(folder, "helper", "1.0")
    needs = 'Provides-Extra: dicom\nRequires-Dist: helper>=1 ; extra == "dicom"\n'
    draw(folder, install.PACKAGE, version, needs, worker=worker)


@pytest.fixture
def wheels(tmp_path):
    drawBundle(tmp_path / "wheels")
    return tmp_path / "wheels"


def writeSums(folder, name=install.SUMS):
    """The hashes of a folder's wheels, as `sha256sum *.whl` prints them."""
    lines = (f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in folder.glob("*.whl"))
    (folder / name).write_text("".join(lines))


@pytest.fixture
def perform(bare, data):
    """Installs, and agrees when it is asked. Returns the installation, with what it `asked`."""

    def perform(source, each=lambda installation: None, kind="base"):
        installation = Installation(kind, bare, source and str(source))
        installation.asked = ""

        while installation.step():
            each(installation)
            if installation.question:
                installation.asked, installation.question = installation.question, ""
                installation.confirm()
            time.sleep(0.002)
        leftOver = f"sr-*/{Path(packagesOf(bare)).name}"
        waitFor(
            lambda: len(list(data.glob("sr-*"))) == len(list(data.glob(leftOver))), what="the removal of its folder"
        )
        return installation

    return perform


def assertUnchanged(python, failed):
    assert failed.text.endswith("Nothing was changed.")
    assert not os.path.lexists(packagesOf(python))


def test_it_is_made_for_the_version_and_the_pythons_of_the_package():
    version = re.search(r'__version__ = "(.+)"', (CHECKOUT / "monai_sr_bundle" / "__init__.py").read_text())[1]
    assert version == install.VERSION
    assert 'requires-python = ">=3.11,<3.13"' in (CHECKOUT / "pyproject.toml").read_text()
    assert FILL in (CHECKOUT / "docs" / "slicer.md").read_text()


def test_a_folder_is_planned_with_its_size_installed_and_then_nothing_is_missing(bare, perform, wheels):
    before = run(bare, "-m", "pip", "freeze", "--all").stdout
    size = sum(path.stat().st_size for path in wheels.iterdir()) / 1e6
    done, names = perform(wheels), "monai-sr-bundle 0.2.0+viewer, helper 1.0"
    assert f"2 packages would be installed from {wheels} into {packagesOf(bare)}, {size:.0f} MB: {names}." in done.asked
    assert done.text == f"The models are installed: {names}."
    assert done.isInstalled
    assert perform(None).text == "The models are installed. Nothing is missing."
    assert installed(bare) == BOTH
    assert run(bare, "-m", "pip", "freeze", "--all").stdout == before


@pytest.mark.parametrize(("name", "source"), [(install.SUMS, ""), ("hospital.txt", "hospital.txt")])
def test_wheels_are_installed_by_the_hashes_that_were_given_for_them(bare, perform, wheels, name, source):
    writeSums(wheels, name)
    drawBundle(wheels, "print('another one')")
    failed = perform(wheels / source)
    assert failed.text.startswith("The wheel of monai-sr-bundle 0.2.0+viewer has the SHA-256 ")
    assert f"which {wheels / name} does not give. Copy the folder again" in failed.text
    assertUnchanged(bare, failed)
    writeSums(wheels, name)
    assert perform(wheels / source).isInstalled


def test_a_wheel_that_is_exchanged_after_the_question_is_refused(bare, perform, wheels):
    def exchange(installation):
        if installation.question:
            drawBundle(wheels, "print('another one')")

    failed = perform(wheels, each=exchange)
    assert failed.text.startswith("pip has failed: THESE PACKAGES DO NOT MATCH THE HASHES")
    assertUnchanged(bare, failed)


def test_what_is_in_slicers_python_neither_stops_nor_serves_the_models(bare, perform, wheels):
    """An older package that the models need is not seen, and PyTorch does not make the models for PyTorch."""
    folder = Path(run(bare, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").stdout.strip())
    for name, version in ("helper", "0.5"), ("torch", "2.0"):
        draw(wheels.parent, name, version, old="")
    run(bare, "-m", "pip", "install", "--no-index", *wheels.parent.glob("*.whl"))
    drawBundle(wheels, f"import os, helper; assert not helper.__file__.startswith({str(folder)!r}), helper.__file__")
    try:
        done = perform(wheels)
        assert done.isInstalled, done.text
        assert (folder / "helper" / "old.py").exists()
        worker = run(*workerCommand(bare), env={**os.environ, "PYTHONPATH": str(folder)})  # as Slicer's launcher does
        assert worker.stderr == ""
        full = perform(wheels, kind="full")
        assert full.text.startswith(f"{wheels} has no wheel of monai-sr-bundle[dicom,torch]===0.2.0 for this Python")
        assert not full.isInstalled
    finally:
        run(bare, "-m", "pip", "uninstall", "-y", "helper", "torch")


@pytest.mark.parametrize("step", ["Looking at", "Looking for", "2 packages would", "Installing", "Trying"])
def test_cancelled_it_leaves_nothing(bare, perform, wheels, step):
    def cancel(installation):
        if (installation.question or installation.text).startswith(step):
            installation.question = ""
            installation.cancel()

    canceled = perform(wheels, each=cancel)
    assert canceled.text == "Nothing was changed."
    assertUnchanged(bare, canceled)


def test_what_does_not_run_does_not_come_into_the_place_of_what_does_and_is_replaced_itself(bare, perform, wheels):
    drawBundle(wheels, version="0.1.9")
    run(bare, "-m", "pip", "install", "--no-index", "--no-deps", "--target", packagesOf(bare), *wheels.glob("*0.1.9*"))
    drawBundle(wheels, "raise SystemExit('libgomp.so is missing')")
    failed = perform(wheels)
    assert failed.text.startswith("The packages do not run (libgomp.so is missing). Update Slicer, or report this.")
    assert installed(bare) == {"monai_sr_bundle-0.1.9"}
    drawBundle(wheels)
    assert perform(wheels).isInstalled
    Path(packagesOf(bare), "monai_sr_bundle", "worker.py").write_text("raise SystemExit('damaged')")
    assert perform(wheels).text.startswith("The models are installed: monai-sr-bundle")
    assert run(*workerCommand(bare)).stderr == ""


def test_packages_come_from_the_release_whatever_an_index_or_the_settings_of_pip_say(
    bare, perform, wheels, monkeypatch, tmp_path
):
    assert perform(None).text.startswith("There is no release to download yet. Choose a folder of wheels")
    index, settings = tmp_path / "index", tmp_path / "pip.conf"
    draw(index, install.PACKAGE, "0.2.0+zother")
    draw(index, "helper", "1.1")
    settings.write_text(f"[global]\nfind-links = {index}\n[install]\nuser = true\n")
    for name, value in (("CONFIG_FILE", settings), ("INDEX_URL", index.as_uri()), ("FIND_LINKS", index)):
        monkeypatch.setenv(f"PIP_{name}", str(value))
    monkeypatch.setattr(install, "RELEASE", wheels.as_uri())
    assert f"would be installed from {wheels.as_uri()} into " in perform(None).asked
    assert installed(bare) == BOTH


@pytest.mark.parametrize("isStuck", [False, True])
def test_files_that_another_slicer_has_open_stay(bare, perform, wheels, monkeypatch, isStuck):
    """Windows refuses to rename a folder with an open file."""

    def refuse(path, target):
        if path.name == "packages" or (isStuck and path.parent.name.startswith("sr-")):
            raise PermissionError(13, "Access is denied")
        return rename(path, target)

    Path(packagesOf(bare), "older").mkdir(parents=True)
    rename = Path.rename
    monkeypatch.setattr(Path, "rename", refuse)
    monkeypatch.setattr(install, "SCANNED_WITHIN", 0.0)
    done = perform(wheels)
    assert done.text.startswith(f"{packagesOf(bare)} is in use (Access is denied). Close every other Slicer")
    assert done.text.endswith("That puts back what was installed." if isStuck else "Nothing was changed.")
    assert Path(packagesOf(bare)).exists() != isStuck
    monkeypatch.setattr(Path, "rename", rename)
    second = Installation("base", bare, str(wheels))
    second.step()
    second.close()
    assert Path(packagesOf(bare), "older").is_dir()


@pytest.mark.slow
def test_the_base_from_a_folder_that_was_filled_as_told_runs(bare, perform, tmp_path):
    copy, folder = tmp_path / "checkout", tmp_path / "wheels"
    leave = shutil.ignore_patterns("__pycache__", "*.pt", "variants")
    for name in ("monai_sr_bundle", "configs", "slicer_extension", "monailabel_app"):
        shutil.copytree(CHECKOUT / name, copy / name, ignore=leave)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(CHECKOUT / name, copy)
    setting, _python, *words = shlex.split(FILL.replace("FOLDER", str(folder)))
    run(PYTHON, *words, cwd=copy, env={**SETTINGS, **dict([setting.split("=")])})
    writeSums(folder)
    done = perform(folder)
    assert done.isInstalled, done.text
    for name in ("monai-sr-bundle 0.2.0+viewer", "numpy ", "onnxruntime ", "pydicom "):
        assert name in done.text
    size = sum(path.stat().st_size for path in folder.glob("*.whl"))
    print(f"first installation: {size / 1e6:.0f} MB to download")
    answer = run(*workerCommand(bare), input='{"do": "bundles"}\n', cwd=tmp_path)
    assert '"event": "bundles"' in answer.stdout
    assert "chest_xray_residual_flow_x4" in answer.stdout
