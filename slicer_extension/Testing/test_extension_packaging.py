"""The extension as Slicer would package it: configured, installed, and complete where it was installed.

Slicer itself is not needed: Testing/Slicer stands in for a build of it. Run with a Python that has slicer-core and
pytest: ``python -m pytest slicer_extension/Testing``.
"""

import json
import re
import shlex
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

EXTENSION = Path(__file__).resolve().parents[1]
REPOSITORY = EXTENSION.parent
SCHEMA = {
    "$schema": str, "category": str, "scm_url": str, "scm_revision": str, "scm_type": str, "build_dependencies": list,
    "dicom_support_rule": str, "build_subdirectory": str, "enabled": bool, "tier": int,
}  # fmt: skip
"""Keys and types of https://github.com/Slicer/Slicer/blob/main/Schemas/slicer-extension-catalog-entry-schema-v1.0.2.json,
which allows no others."""
REQUIRED = {"$schema", "category", "scm_url"}


def cmake(*arguments):
    beside_python = shutil.which("cmake", path=Path(sys.executable).parent)
    command = [beside_python or "cmake", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder of the module in an installation."""
    build, prefix = tmp_path_factory.mktemp("build"), tmp_path_factory.mktemp("a path with spaces")
    standIn = EXTENSION / "Testing" / "Slicer"
    done = cmake("-S", REPOSITORY, "-B", build, "-D", f"Slicer_DIR={standIn}", "-D", "BUILD_TESTING=ON")
    assert done.returncode == 0, done.stderr
    done = cmake("--install", build, "--prefix", prefix)
    assert done.returncode == 0, done.stderr
    return prefix / "lib" / "Slicer-5.12" / "qt-scripted-modules"


@pytest.fixture(scope="module")
def fields():
    """The EXTENSION_* fields of CMakeLists.txt."""
    text = (REPOSITORY / "CMakeLists.txt").read_text(encoding="utf-8")
    return dict(re.findall(r'set\(EXTENSION_(\w+)\s+"(.*?)"\)', text, re.S))


def test_every_file_of_the_module_is_installed(installed):
    def files(folder):
        present = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        return {path.relative_to(folder).as_posix() for path in present if ".pytest_cache" not in path.parts}

    expected = files(EXTENSION / "SuperResolution") - {"CMakeLists.txt"}
    expected |= {f"SuperResolutionLib/{name}.py" for name in ("box", "readings", "geometry")}  # of the package
    assert files(installed) == {name for name in expected if not name.startswith("Testing/")}


def test_the_installed_library_is_complete_without_the_repository(installed):
    names = sorted(path.stem for path in (installed / "SuperResolutionLib").glob("[!_]*.py"))
    code = f"""
import importlib, sys
sys.path.insert(0, {str(installed)!r})
for name in {names}:
    assert importlib.import_module("SuperResolutionLib." + name).__file__.startswith({str(installed)!r})
"""
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_index_entry_is_valid_and_names_the_same_place_as_the_description(fields):
    entry = json.loads((EXTENSION / "SuperResolution.json").read_text(encoding="utf-8"))
    assert set(SCHEMA) >= set(entry) >= REQUIRED
    assert {name: type(value) for name, value in entry.items()}.items() <= SCHEMA.items()
    assert entry["scm_type"] in ("git", "local")
    assert 1 <= entry["tier"] <= 5
    assert (entry["build_dependencies"], fields["DEPENDS"]) == ([], "NA")
    assert all(fields.values())
    assert set(fields) >= {"HOMEPAGE", "CONTRIBUTORS", "DESCRIPTION", "ICONURL", "SCREENSHOTURLS"}
    pictures = [fields["ICONURL"], *fields["SCREENSHOTURLS"].split()]
    for address in [fields["HOMEPAGE"], *pictures]:
        assert address.startswith(entry["scm_url"].removesuffix(".git") + "/")
    for address in pictures:
        assert (EXTENSION / address.split("/slicer_extension/")[1]).is_file(), address


def test_description_and_homepage_say_what_the_index_asks_for(fields):
    homepage = (EXTENSION / "README.md").read_text(encoding="utf-8")
    for text, words in (
        (fields["DESCRIPTION"], ("not a medical device", "no data leaves the machine", "Patents:", "Publications:")),
        (homepage, ("LICENSE.txt", "Patents", "Publications", "not a medical device", "leaves the machine")),
    ):
        assert [one for one in words if one not in text] == []


def test_the_icon_is_a_square_of_128_pixels_and_the_licence_the_repositorys():
    for icon in ("SuperResolution.png", "SuperResolution/Resources/Icons/SuperResolution.png"):
        header = (EXTENSION / icon).read_bytes()[:24]
        assert header.startswith(b"\x89PNG")
        assert struct.unpack(">II", header[16:24]) == (128, 128)
    assert (EXTENSION / "LICENSE.txt").read_bytes() == (REPOSITORY / "LICENSE").read_bytes()


def test_the_commands_of_the_job_for_slicer_are_those_of_a_shell_and_name_files_that_exist():
    yaml = pytest.importorskip("yaml", reason="PyYAML, which reads the job, is missing")
    workflow = REPOSITORY / ".github" / "workflows" / "slicer_extension.yml"
    jobs = yaml.safe_load(workflow.read_text(encoding="utf-8"))["jobs"]
    named = set()
    for script in (step["run"] for job in jobs.values() for step in job["steps"] if "run" in step):
        script = re.sub(r"\$\{\{.*?\}\}", "value", script)
        subprocess.run(["bash", "-n", "-c", script], check=True)
        named |= {word for word in shlex.split(script) if (REPOSITORY / word.split("/")[0]).is_dir()}
        named |= set(re.findall(r"\$PWD/(slicer_extension[\w/.]*)", script))
    assert named >= {"slicer_extension", "slicer_extension/Testing/Slicer", "slicer_extension/Testing/in_slicer.py"}
    for name in named - {"build", "installed", "wheels"}:
        assert (REPOSITORY / name).exists(), name
