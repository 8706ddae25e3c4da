"""Installing into a Python beside what is there, by real pip: a real environment, and the project's own wheel.

The environment is made by SUPERRESOLUTION_PYTHON, or the Python that runs the tests: 3.11 or 3.12, with setuptools to
build the wheel. The other packages come once from the package index that pip is set to here.
"""

import dataclasses
import importlib.metadata
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from SuperResolutionLib import install
from SuperResolutionLib.child_process import environmentFor
from SuperResolutionLib.install import Installation, Target, explainFailure, planInstallation, satisfies
from waiting import waitFor

CHECKOUT = Path(os.environ.get("SUPERRESOLUTION_REPOSITORY") or Path(__file__).resolve().parents[4])
PYTHON = os.environ.get("SUPERRESOLUTION_PYTHON", sys.executable)


def run(*command, **options):
    return subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True, **options)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """A folder with the wheel for viewers and all that it needs, filled as a user is told to."""
    copy, folder = tmp_path_factory.mktemp("checkout"), tmp_path_factory.mktemp("wheels")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(CHECKOUT / name, copy)
    leave = shutil.ignore_patterns("__pycache__", "*.pt", "variants")
    for name in ("monai_sr_bundle", "configs", "slicer_extension", "monailabel_app"):
        shutil.copytree(CHECKOUT / name, copy / name, ignore=leave)
    setting, _python, *words = shlex.split(install.FILL_COMMANDS["base"])
    environment = {**os.environ, **dict([setting.split("=")])}
    run(PYTHON, *(folder if word == "FOLDER" else word for word in words), cwd=copy, env=environment)
    return folder


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """The Python of a new environment that has the pip of today and nothing else."""
    folder = tmp_path_factory.mktemp("slicer") / "environment"
    run(PYTHON, "-m", "venv", folder)
    executable = str(folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))
    run(executable, "-m", "pip", "install", "-q", "--upgrade", "pip")
    return executable


@pytest.fixture
def offline(python):
    """Return an environment for pip without the settings of this machine."""
    cleaned = {name: value for name, value in environmentFor(python).items() if not name.startswith("PIP_")}
    return {**cleaned, "PIP_CONFIG_FILE": os.devnull, "PIP_RETRIES": "0"}


@pytest.fixture
def clean(python):
    """Afterwards the environment is as it was before."""
    before = dict(Target.of(python).packages)
    yield before
    after = Target.of(python).packages
    new = [name for name in after if name not in before]
    if new:
        run(python, "-m", "pip", "uninstall", "-y", *new)


def finished(installation, each=lambda event: None):
    """All events of an installation, polled as a timer would."""
    events = []

    def poll():
        for event in installation.poll():
            events.append(event)
            each(event)

    waitFor(
        lambda: events and events[-1]["event"] in ("done", "failed", "cancelled"), poll, "the end of the installation"
    )
    return events


def handmade(folder, name, version, content=""):
    """A wheel of one empty module."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{name}/__init__.py", content)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        tags = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        wheel.writestr(f"{info}/WHEEL", tags)
        files = (f"{name}/__init__.py", f"{info}/METADATA", f"{info}/WHEEL", f"{info}/RECORD")
        wheel.writestr(f"{info}/RECORD", "".join(f"{file},,\n" for file in files))
    return path


def megabytes(folder):
    return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file()) / 1e6


def test_it_is_made_for_the_version_and_the_needs_of_the_package():
    """pyproject.toml is the truth."""
    text = (CHECKOUT / "pyproject.toml").read_text()
    listed = re.search(r"^dependencies = \[(.*?)^\]", text, re.DOTALL | re.MULTILINE)[1]
    requirements = dict(re.findall(r'"([\w-]+)([^"]*)"', listed))
    dicom = re.search(r"^dicom = \[(.*?)\]", text, re.MULTILINE)[1]
    requirements.update(re.findall(r'"([\w-]+)([^"]*)"', dicom))
    assert install.PACKAGES["base"] == {**requirements, install.PACKAGE: f"=={install.VERSION}"}
    version = re.search(r'__version__ = "(.+)"', (CHECKOUT / "monai_sr_bundle" / "__init__.py").read_text())[1]
    assert version == install.VERSION
    listed = re.search(r"^torch = \[(.*?)^\]", text, re.DOTALL | re.MULTILINE)[1]
    requirements.update(re.findall(r'"([\w-]+)(?:\[[\w,]+\])?([^"]*)"', listed))
    assert install.PACKAGES["full"] == {**requirements, install.PACKAGE: f"=={install.VERSION}"}
    assert 'requires-python = ">=3.11,<3.13"' in text
    assert install.PYTHONS == ((3, 11), (3, 12))


TARGET = Target("/slicer/PythonSlicer", (3, 12), {"pip": "24.0", "numpy": "2.0.1", "pydicom": "3.0.1"}, (), os.getcwd())
EMPTY = dataclasses.replace(TARGET, packages={"pip": "24.0"})


def test_a_plan_says_what_would_come_and_the_space_it_takes():
    plan = planInstallation("base", EMPTY)
    assert plan.problems == ()
    assert not plan.isInstalled
    assert plan.missing == tuple(install.PACKAGES["base"])
    assert plan.summary.startswith(
        "13 packages would be installed from the package index, with those that they need: monai-sr-bundle, highdicom, "
    )
    assert plan.summary.endswith(
        "This takes up to 1 GB and some minutes. Nothing that Slicer or another extension has installed is replaced."
    )
    folder = dataclasses.replace(plan, kind="full", wheelFolder="wheels")
    assert "up to 3 GB" in folder.summary
    if sys.platform == "linux":
        assert "up to 10 GB" in dataclasses.replace(folder, wheelFolder=None).summary


def test_what_slicer_has_is_not_counted():
    names = planInstallation("base", TARGET).missing
    assert "numpy" not in names
    assert "pydicom" not in names
    assert "onnxruntime" in names
    hidden = dataclasses.replace(TARGET, withoutRecord=("simpleitk",))
    assert "SimpleITK" not in planInstallation("full", hidden).missing


@pytest.mark.parametrize(
    ("changes", "options", "words"),
    [
        (
            {"version": (3, 9)}, {},
            "Slicer's Python is 3.9, and monai-sr-bundle runs on 3.11 and 3.12. Use Slicer 5.10 or newer.",
        ),
        (
            {"packages": {"pip": "24.0", "pydicom": "2.4.4"}}, {},
            "monai-sr-bundle needs pydicom>=3.0.1,<4, but pydicom 2.4.4 is installed, which is not replaced: Slicer or "
            "another extension needs it. Use a newer Slicer (5.10 or later); if you have installed pydicom yourself, "
            "update it first.",
        ),
        ({"packages": {}}, {}, "pip is not there in /slicer/PythonSlicer, expected 22.2 or newer. Run once: "),
        ({"packages": {"pip": "21.1"}}, {}, "pip 21.1 in /slicer/PythonSlicer, expected 22.2 or newer."),
        ({"folder": "/proc"}, {}, "0.0 GB are free in /proc, and 1 GB are needed. Make room"),
        ({"folder": "/nowhere"}, {}, "/nowhere cannot be written to. Install Slicer into a folder of your own, or"),
        ({}, {"wheelFolder": "/proc"}, "/proc holds no wheels (*.whl). Choose the folder that they were downloaded"),
    ],
)  # fmt: skip
def test_what_stands_in_the_way_is_told_before_anything_is_done(changes, options, words):
    plan = planInstallation("base", dataclasses.replace(TARGET, **changes), **options)
    assert any(words in problem for problem in plan.problems)
    assert words in plan.summary
    with pytest.raises(ValueError, match=re.escape(plan.problems[0])):
        Installation(plan)


def test_the_python_that_runs_this_is_inspected_without_another_process():
    here = Target.here()
    assert here.version == sys.version_info[:2]
    assert here.packages["pytest"] == importlib.metadata.version("pytest")
    assert os.path.isdir(here.folder)


@pytest.mark.parametrize(
    ("version", "needs", "right"),
    [
        ("3.0.2", ">=3.0.1,<4", True), ("3.0", ">=3.0.1,<4", False), ("4.0.0", ">=3.0.1,<4", False),
        ("2.13.0+cpu", ">=2.11", True), ("0.1.0+viewer", "==0.1.0", True), ("10.3", ">=10.3", True), ("1", "", True),
    ],
)  # fmt: skip
def test_versions_are_compared_by_their_numbers(version, needs, right):
    assert satisfies(version, needs) is right


@pytest.mark.slow
def test_a_folder_without_the_wheels_is_told_with_how_to_fill_it(python, offline, tmp_path, clean):
    handmade(tmp_path / "wheels", "unrelated", "1.0")
    plan = planInstallation("base", Target.of(python), wheelFolder=str(tmp_path / "wheels"))
    *_, last = finished(Installation(plan, offline, str(tmp_path)))
    assert (last["event"], last["kind"]) == ("failed", "missing")
    folder = tmp_path / "wheels"
    assert last["message"].startswith(f"The folder {folder} has no wheel of monai-sr-bundle==0.2.0 for Python 3.")
    advice = (
        f"Fill a folder from a checkout of monai-sr-bundle, on a machine with network: {install.FILL_COMMANDS['base']}"
    )
    assert last["message"].endswith(f"Nothing was changed. {advice}")
    assert Target.of(python).packages == clean


def test_closed_while_pip_looks_it_leaves_no_folder(tmp_path):
    (tmp_path / "wheels").mkdir()
    (tmp_path / "downloads").mkdir()
    handmade(tmp_path / "wheels", "unrelated", "1.0")
    target = dataclasses.replace(EMPTY, python=sys.executable)
    plan = planInstallation("base", target, wheelFolder=str(tmp_path / "wheels"))
    installation = Installation(plan, temporaryFolder=str(tmp_path / "downloads"))
    (folder,) = (tmp_path / "downloads").iterdir()
    assert folder.name.startswith(f"sr-{os.getpid()}-")  # so that another session removes what a killed one leaves
    installation.close()
    assert list((tmp_path / "downloads").iterdir()) == []


@pytest.mark.slow
def test_a_conflict_that_only_pip_finds_is_told_in_words(python, offline, wheels, tmp_path, clean):
    old = handmade(tmp_path / "old", "pydicom", "2.4.4")
    run(python, "-m", "pip", "install", "--no-index", old)
    plan = planInstallation("base", Target.of(python), wheelFolder=str(wheels))
    assert len(plan.problems) == 1
    *_, last = finished(Installation(dataclasses.replace(plan, problems=()), offline, str(tmp_path)))
    assert (last["event"], last["kind"]) == ("failed", "conflict")
    needs = "monai-sr-bundle 0.2.0+viewer needs pydicom<4 and >=3.0.1"
    assert last["message"].startswith(f"{needs}, but pydicom 2.4.4 is installed, which is not replaced: Slicer or")
    assert last["message"].endswith("Nothing was changed.")
    assert Target.of(python).packages == {**clean, "pydicom": "2.4.4"}


@pytest.mark.slow
def test_an_index_that_cannot_be_reached_is_told(python, offline, tmp_path, clean):
    environment = {
        **offline,
        "PIP_INDEX_URL": "https://index.test/simple",
        "PIP_RETRIES": "1",
        "HTTPS_PROXY": "http://127.0.0.1:9",
    }
    *_, last = finished(Installation(planInstallation("base", Target.of(python)), environment, str(tmp_path)))
    assert (last["event"], last["kind"]) == ("failed", "network")
    assert last["message"].startswith("The package index cannot be reached (")
    assert "set HTTPS_PROXY=http://host:port before Slicer starts; without network, choose a folder" in last["message"]


@pytest.mark.slow
def test_cancelled_before_anything_is_installed_it_leaves_nothing(python, offline, tmp_path, clean):
    handmade(tmp_path / "wheels", "monai_sr_bundle", install.VERSION)
    plan = planInstallation("base", Target.of(python), wheelFolder=str(tmp_path / "wheels"))
    installation = Installation(plan, offline, str(tmp_path))
    events = finished(installation, each=lambda event: event.get("step") == "download" and installation.cancel())
    assert [event["step"] for event in events if event["event"] == "step"] == ["resolve", "download"]
    assert events[-1] == {"event": "cancelled", "text": "Nothing was changed."}
    assert Target.of(python).packages == clean
    waitFor(lambda: len(list(tmp_path.iterdir())) == 1, what="the removal of what was downloaded")


@pytest.mark.slow
def test_what_slicer_has_without_a_record_is_kept_and_what_does_not_run_is_removed_again(
    python, offline, wheels, tmp_path, clean
):
    """A pydicom that pip does not know, and that is no pydicom."""
    hidden = Path(Target.of(python).folder) / "pydicom"
    hidden.mkdir()
    (hidden / "__init__.py").write_text("raise ImportError('of Slicer', name='pydicom')")
    try:
        plan = planInstallation("base", Target.of(python), wheelFolder=str(wheels))
        assert plan.target.withoutRecord == ("pydicom",)
        events = finished(Installation(plan, offline, str(tmp_path)))
    finally:
        assert (hidden / "__init__.py").read_text().startswith("raise ImportError")
        shutil.rmtree(hidden)
    assert "pydicom: Slicer's own version is kept" in [event.get("text") for event in events]
    assert [event["step"] for event in events if event["event"] == "step"] == [
        "resolve", "download", "install", "check", "undo",
    ]  # fmt: skip
    last = events[-1]
    assert (last["event"], last["kind"]) == ("failed", "check")
    assert last["message"].startswith("The installed packages do not run (")
    assert "pydicom" in last["message"]
    assert last["message"].endswith("The new packages have been removed again.")
    assert Target.of(python).packages == clean


@pytest.mark.slow
def test_cancelled_while_pip_installs_it_is_removed_again(python, offline, wheels, tmp_path, clean):
    plan = planInstallation("base", Target.of(python), wheelFolder=str(wheels))
    installation = Installation(plan, offline, str(tmp_path))
    events = finished(installation, each=lambda event: event.get("step") == "install" and installation.cancel())
    assert [event["step"] for event in events if event["event"] == "step"][-2:] == ["install", "undo"]
    assert events[-1] == {"event": "cancelled", "text": "The new packages have been removed again."}
    assert Target.of(python).packages == clean


@pytest.mark.slow
def test_the_base_from_a_folder_runs_and_takes_the_space_that_was_told(python, offline, wheels, tmp_path, clean):
    folder = Target.of(python).folder
    before = megabytes(folder)
    plan = planInstallation("base", Target.of(python), wheelFolder=str(wheels))
    events = finished(Installation(plan, offline, str(tmp_path)))
    assert events[-1]["event"] == "done", events[-1]
    assert any(re.fullmatch(r"Processing .+ \(1 of \d+\)", event["text"]) for event in events)
    for name in ("monai-sr-bundle 0.2.0+viewer", "numpy ", "onnxruntime ", "pydicom "):
        assert name in events[-1]["text"]
    after = megabytes(folder)
    downloaded = megabytes(wheels)
    print(f"first installation: {downloaded:.0f} MB to download, {after - before:.0f} MB on disk")
    assert 0.3 < (downloaded + after - before) / 1000 < install.SPACE_GB["base"]
    secondPlan = planInstallation("base", Target.of(python))
    assert secondPlan.isInstalled
    assert secondPlan.summary == "monai-sr-bundle 0.2.0+viewer is installed. Nothing is missing."
    installed, again = Target.of(python).packages, Installation(secondPlan, offline, str(tmp_path))
    events = finished(again, each=lambda event: event.get("step") == "check" and again.cancel())
    assert events[-1] == {"event": "cancelled", "text": "Nothing was changed."}
    assert Target.of(python).packages == installed
    answer = run(python, "-m", "monai_sr_bundle.worker", input='{"do": "bundles"}\n', cwd=tmp_path)
    assert '"event": "bundles"' in answer.stdout
    assert "chest_xray_residual_flow_x4" in answer.stdout


@pytest.mark.parametrize(
    ("output", "kind", "words"),
    [
        ("ERROR: Could not install packages: [Errno 28] No space left on device", "disk", "The disk is full. Nothing"),
        ("ERROR: Could not install packages: [Errno 13] Permission denied: '/x'", "rights", "pip may not write to"),
        ("/slicer/PythonSlicer: No module named pip", "pip", "There is no pip in /slicer/PythonSlicer. Run once:"),
        ("ERROR: No matching distribution found for x>=1", "missing", "The package index does not answer, or"),
        ("ERROR: something new", "pip", "pip has failed: something new. Nothing was changed."),
        ("", "pip", "pip has failed: without a message. Nothing was changed."),
    ],
)  # fmt: skip
def test_what_pip_says_is_told_in_words(output, kind, words):
    failure, message = explainFailure(output.splitlines(), planInstallation("base", TARGET))
    assert failure == kind
    assert message.startswith(words)
