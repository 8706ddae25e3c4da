"""Installing into a Python beside what is there, by real pip: a real environment, drawn wheels, no network.

The environment is made by SUPERRESOLUTION_PYTHON, or the Python that runs the tests: 3.11 or 3.12. The slow test builds
the project's own wheel; the other packages come from the package index that pip is set to here.
"""

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest
from SuperResolutionLib import install
from SuperResolutionLib.install import Installation, explainFailure
from waiting import waitFor

CHECKOUT = Path(__file__).resolve().parents[4]
PYTHON = os.environ.get("SUPERRESOLUTION_PYTHON", sys.executable)
SETTINGS = dict(os.environ)  # this machine's settings, with which the slow test fills its folder
FILL = 'MONAI_SR_WHEEL=viewer python3.12 -m pip wheel --only-binary :all: -w FOLDER ".[dicom]"'
"""How the user page fills a folder."""


def run(*command, **options):
    return subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True, **options)


@pytest.fixture
def python(bare):
    """The Python of an environment that has pip and nothing else, and is like this again afterwards."""
    yield bare
    new = [line.split("==")[0].split(" @")[0] for line in packages(bare)]
    if new:
        run(bare, "-I", "-m", "pip", "uninstall", "-y", *new)


@pytest.fixture
def offline(monkeypatch):
    """pip without the settings of this machine."""
    for name in list(os.environ):
        if name.startswith(("PIP_", "PYTHONP")):
            monkeypatch.delenv(name)
    for name, value in (("CONFIG_FILE", os.devnull), ("RETRIES", "0"), ("NO_CACHE_DIR", "1")):
        monkeypatch.setenv(f"PIP_{name}", value)


def packagesFolder(python):
    return Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").stdout.strip())


def packages(python):
    lines = run(python, "-I", "-m", "pip", "list", "--format=freeze", "--disable-pip-version-check").stdout.splitlines()
    return {line for line in lines if not line.startswith(("pip=", "setuptools="))}


def draw(folder, name, version, needs=(), files=None):
    """A wheel of one module."""
    folder.mkdir(exist_ok=True)
    module = name.replace("-", "_")
    path = folder / f"{module}-{version}-py3-none-any.whl"
    info, files = f"{module}-{version}.dist-info", {f"{module}/__init__.py": "", **(files or {})}
    with zipfile.ZipFile(path, "w") as wheel:
        for file, text in files.items():
            wheel.writestr(file, text)
        needs = "".join(f"Requires-Dist: {need}\n" for need in needs)
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nProvides-Extra: dicom\n{needs}"
        wheel.writestr(f"{info}/METADATA", metadata)
        tags = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        wheel.writestr(f"{info}/WHEEL", tags)
        listed = (*files, f"{info}/METADATA", f"{info}/WHEEL", f"{info}/RECORD")
        wheel.writestr(f"{info}/RECORD", "".join(f"{file},,\n" for file in listed))
    return path


def drawBundle(folder, worker="", version=f"{install.VERSION}+viewer"):
    """A wheel of our package whose worker does what `worker` says, and one of a package that it needs."""
    draw(folder, "helper", "1.0")
    needs = ['helper>=1 ; extra == "dicom"']
    return draw(folder, install.PACKAGE, version, needs, {"monai_sr_bundle/worker.py": worker})


@pytest.fixture
def wheels(tmp_path):
    drawBundle(tmp_path / "wheels")
    return tmp_path / "wheels"


def writeSums(folder, path=None):
    """The hashes of a folder's wheels, as `sha256sum *.whl` prints them."""
    path = path or folder / install.SUMS
    lines = (f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in folder.glob("*.whl"))
    path.write_text("".join(lines))
    return path


@pytest.fixture
def perform(python, offline, tmp_path, monkeypatch):
    """Installs, and agrees when it is asked. Returns the installation, with what it `asked`."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def perform(source, each=lambda installation, step: None):
        installation = Installation("base", python, source and str(source))
        installation.asked = ""

        def isOver():
            isRunning = installation.step()
            each(installation, installation._step)
            if installation.question:
                installation.asked, installation.question = installation.question, ""
                installation.confirm()
            return not isRunning

        waitFor(isOver, what="the end of the installation")
        waitFor(lambda: not list(tmp_path.glob("sr-*")), what="the removal of what was downloaded")
        return installation

    return perform


def cancelAt(step):
    """Cancel at a step, or instead of an answer to the question, which is the step "ask"."""

    def cancel(installation, now):
        if now == step:
            installation.question = ""
            installation.cancel()

    return cancel


def assertUnchanged(python, failed):
    assert not failed.isInstalled
    assert failed.text.endswith(" Nothing was changed.")
    assert packages(python) == set()


def test_it_is_made_for_the_version_and_the_pythons_of_the_package():
    version = re.search(r'__version__ = "(.+)"', (CHECKOUT / "monai_sr_bundle" / "__init__.py").read_text())[1]
    assert version == install.VERSION
    assert 'requires-python = ">=3.11,<3.13"' in (CHECKOUT / "pyproject.toml").read_text()
    assert FILL in (CHECKOUT / "docs" / "slicer.md").read_text()


def test_a_folder_is_planned_with_its_size_installed_and_then_nothing_is_missing(python, perform, wheels):
    texts = set()
    done = perform(wheels, each=lambda installation, step: texts.add(installation.text))
    size = sum(path.stat().st_size for path in wheels.iterdir()) / 1e6
    assert done.asked == (
        f"2 packages would be installed from {wheels}, {size:.0f} MB: monai-sr-bundle 0.2.0+viewer, helper 1.0.\n"
        "Nothing that Slicer or another extension has installed is replaced."
    )
    assert any(text.endswith("(2/2)") for text in texts)
    assert done.text == "The models are installed: monai-sr-bundle 0.2.0+viewer, helper 1.0."
    assert done.isInstalled
    installed = packages(python)
    assert len(installed) == 2
    assert perform(None).text == "The models are installed. Nothing is missing."
    assert packages(python) == installed


@pytest.mark.parametrize("isBeside", [True, False])
def test_wheels_are_installed_by_the_hashes_that_were_given_for_them(python, perform, wheels, isBeside):
    sums = writeSums(wheels, None if isBeside else wheels / "hospital.txt")
    source = wheels if isBeside else sums
    drawBundle(wheels, "print('another one')")
    failed = perform(source)
    assert failed.text.startswith("The wheel of monai-sr-bundle 0.2.0+viewer has the SHA-256 ")
    assert f"which {sums} does not give. Copy the folder again" in failed.text
    assertUnchanged(python, failed)
    writeSums(wheels, sums)
    assert perform(source).isInstalled


def test_a_wheel_that_is_exchanged_after_the_question_is_refused(python, perform, wheels):
    def exchange(installation, step):
        if step == "ask":
            drawBundle(wheels, "print('another one')")

    failed = perform(wheels, each=exchange)
    assert failed.text.startswith("pip has failed: THESE PACKAGES DO NOT MATCH THE HASHES")
    assertUnchanged(python, failed)


def test_what_is_installed_is_not_replaced_but_our_own_package(python, perform, wheels, tmp_path):
    run(python, "-m", "pip", "install", "--no-index", draw(tmp_path / "old", "helper", "0.5"))
    before = packages(python)
    assert perform(wheels).text == (
        'monai-sr-bundle[dicom] 0.2.0+viewer needs helper>=1; extra == "dicom", but helper 0.5 is installed, which is '
        "not replaced: Slicer or another extension needs it. Use a newer Slicer (5.10 or later); if you have installed "
        "helper yourself, update it first. Nothing was changed."
    )
    assert packages(python) == before
    run(python, "-m", "pip", "install", "--no-index", "--upgrade", wheels / "helper-1.0-py3-none-any.whl",
        drawBundle(tmp_path / "old", version="0.1.0"))  # fmt: skip
    assert perform(wheels).text == "The models are installed: monai-sr-bundle 0.2.0+viewer."


def test_what_slicer_has_without_a_record_is_kept(python, perform, wheels):
    """A pydicom that pip does not know."""
    draw(wheels, "pydicom", "3.0.1")
    draw(wheels, "helper", "1.0", ["pydicom"])
    hidden = packagesFolder(python) / "pydicom"
    hidden.mkdir()
    (hidden / "__init__.py").write_text("# Slicer's")
    try:
        assert perform(wheels).isInstalled
        assert (hidden / "__init__.py").read_text() == "# Slicer's"
        assert not any(line.startswith("pydicom") for line in packages(python))
    finally:
        shutil.rmtree(hidden)


@pytest.mark.parametrize("step", ["inspect", "resolve", "ask", "download"])
def test_cancelled_before_anything_is_installed_it_leaves_nothing(python, perform, wheels, step):
    assert perform(wheels, each=cancelAt(step)).text == "Nothing was changed."
    assert packages(python) == set()


def test_what_does_not_run_is_told(perform, tmp_path):
    drawBundle(tmp_path / "wheels", "raise SystemExit('libgomp.so is missing')")
    failed = perform(tmp_path / "wheels")
    assert failed.text == "The installed packages do not run (libgomp.so is missing). Update Slicer, or report this."
    assert not failed.isInstalled


def test_our_package_comes_from_the_release_and_never_by_its_name_from_an_index(python, perform, wheels, monkeypatch):
    assert perform(None).text == (
        "There is no release to download yet. Choose a folder of wheels; the user page says how to fill it. Nothing "
        "was changed."
    )
    draw(wheels.parent / "index", install.PACKAGE, "0.2.0+other")
    monkeypatch.setenv("PIP_INDEX_URL", (wheels.parent / "index").as_uri())
    monkeypatch.setattr(install, "RELEASE", wheels.as_uri())
    done = perform(None)
    assert f"would be installed from {wheels.as_uri()}, " in done.asked
    assert done.text == "The models are installed: monai-sr-bundle 0.2.0+viewer, helper 1.0."


def test_too_little_room_is_told_before_anything_is_downloaded(python, perform, wheels, monkeypatch):
    monkeypatch.setattr(install, "UNPACKED", 1e15)
    failed = perform(wheels)
    assert "GB are free in" in failed.text
    assert failed.text.endswith(" Make room there. Nothing was changed.")
    assertUnchanged(python, failed)


def test_a_folder_of_packages_that_cannot_be_written_to_is_told_before_pip_is_asked(tmp_path):
    installation = Installation("base", sys.executable, str(tmp_path))
    with pytest.raises(install.InputError, match="/slicer cannot be written to. Install Slicer into a folder of"):
        installation._check({"isWritable": False, "folder": "/slicer"})


def test_closed_while_it_looks_it_leaves_no_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    installation = Installation("base", sys.executable, str(tmp_path))
    installation.step()
    assert len(list(tmp_path.glob("sr-*"))) == 1
    installation.close()
    assert list(tmp_path.glob("sr-*")) == []


@pytest.mark.parametrize(("output", "words"), [
    ("ERROR: [Errno 28] No space left on device", "pip has failed: [Errno 28] No space left on device."),
    ("ERROR: No matching distribution found for x>=1", "/wheels has no wheel of x>=1 for this Python, or cannot be"),
    ("", "pip has failed: ?."),
])  # fmt: skip
def test_what_pip_says_is_told_in_words(output, words):
    assert explainFailure(output.splitlines(), "/wheels").startswith(words)


@pytest.fixture
def fault(python):
    """Let every Python of the environment do something when it writes a file of this name."""
    hook = packagesFolder(python) / "fault.pth"

    def fault(end, deed):
        words = f"name == 'open' and str(args[0]).endswith({end!r}) and 'w' in str(args[1]) and {deed}"
        hook.write_text(f"import os, sys; sys.addaudithook(lambda name, args: {words})\n")

    fault.heal = lambda: hook.unlink(missing_ok=True)
    yield fault
    fault.heal()


KILL, FAIL = "os.kill(os.getpid(), 9)", "os.write(-1, b'')"
HALF = "Packages may be half installed. Press Install… again, which repairs them."


@pytest.mark.parametrize(("end", "deed"), [
    ("helper/__init__.py", KILL),  # a folder that Slicer might have brought
    ("helper-1.0.dist-info/WHEEL", FAIL),  # pip takes it for installed, and cannot remove it
    ("viewer.dist-info/RECORD", KILL),
])  # fmt: skip
def test_a_half_installation_is_told_and_the_next_repairs_it(python, perform, wheels, fault, end, deed, monkeypatch):
    monkeypatch.setattr(install, "BUNDLED_WITH_SLICER", ("helper",))
    fault(end, deed)
    failed = perform(wheels)
    assert failed.text.startswith("pip has failed: ")
    assert failed.text.endswith(HALF)
    fault.heal()

    if end.startswith("viewer"):
        assert perform(wheels, each=cancelAt("ask")).text == HALF
    assert perform(wheels).isInstalled
    assert packages(python) == {"helper==1.0", "monai-sr-bundle==0.2.0+viewer"}
    folder = packagesFolder(python)
    assert (folder / "helper" / "__init__.py").exists()
    assert (folder / "monai_sr_bundle" / "worker.py").exists()
    run(python, "-m", "pip", "uninstall", "-y", "helper", install.PACKAGE)  # which needs complete records
    assert not list(folder.glob("helper*")) + list(folder.glob("monai*"))


def test_what_pip_has_begun_to_install_is_not_cancelled_and_that_is_told(python, perform, wheels):
    canceled = perform(wheels, each=cancelAt("install"))
    assert canceled.text == "The packages are installed. Press Install… again to try them."
    assert packages(python) == {"helper==1.0", "monai-sr-bundle==0.2.0+viewer"}
    assert perform(None).text == "The models are installed. Nothing is missing."


@pytest.mark.slow
def test_the_base_from_a_folder_that_was_filled_as_told_runs(python, perform, tmp_path):
    copy, folder = tmp_path / "checkout", tmp_path / "wheels"
    copy.mkdir()
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(CHECKOUT / name, copy)
    leave = shutil.ignore_patterns("__pycache__", "*.pt", "variants")
    for name in ("monai_sr_bundle", "configs", "slicer_extension", "monailabel_app"):
        shutil.copytree(CHECKOUT / name, copy / name, ignore=leave)
    setting, _python, *words = shlex.split(FILL)
    environment = {**SETTINGS, **dict([setting.split("=")])}
    run(PYTHON, *(folder if word == "FOLDER" else word for word in words), cwd=copy, env=environment)
    writeSums(folder)
    done = perform(folder)
    assert done.isInstalled, done.text
    for name in ("monai-sr-bundle 0.2.0+viewer", "numpy ", "onnxruntime ", "pydicom "):
        assert name in done.text
    size = sum(path.stat().st_size for path in folder.glob("*.whl"))
    print(f"first installation: {size / 1e6:.0f} MB to download")
    answer = run(python, "-m", "monai_sr_bundle.worker", input='{"do": "bundles"}\n', cwd=tmp_path)
    assert '"event": "bundles"' in answer.stdout
    assert "chest_xray_residual_flow_x4" in answer.stdout
