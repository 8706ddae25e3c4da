"""The extension as Slicer would package it, of which Testing/Slicer stands in for a build: complete once installed."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXTENSION = Path(__file__).resolve().parents[1]
REPOSITORY = EXTENSION.parent


def cmake(*arguments):
    program = shutil.which("cmake", path=Path(sys.executable).parent) or "cmake"
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder of the module in an installation."""
    build, prefix = tmp_path_factory.mktemp("build"), tmp_path_factory.mktemp("a path with spaces")
    standIn = EXTENSION / "Testing" / "Slicer"
    cmake("-S", REPOSITORY, "-B", build, f"-DSlicer_DIR={standIn}", "-DBUILD_TESTING=ON")
    cmake("--install", build, "--prefix", prefix)
    return prefix / "lib" / "Slicer-5.12" / "qt-scripted-modules"


def filesIn(folder):
    present = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(folder).as_posix() for path in present if ".pytest_cache" not in path.parts}


def test_every_file_is_installed_and_the_library_is_complete_without_the_repository(installed):
    expected = filesIn(EXTENSION / "SuperResolution") - {"CMakeLists.txt"}
    expected |= {f"SuperResolutionLib/{name}.py" for name in ("box", "readings", "geometry")}  # of the package
    assert filesIn(installed) == {name for name in expected if not name.startswith("Testing/")}
    names = ", ".join(path.stem for path in (installed / "SuperResolutionLib").glob("[!_]*.py"))
    code = f"import sys; sys.path.insert(0, {str(installed)!r}); from SuperResolutionLib import {names}"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_index_entry_and_the_description_hold_what_slicers_index_asks_for():
    entry = json.loads((EXTENSION / "SuperResolution.json").read_text(encoding="utf-8"))
    text = (REPOSITORY / "CMakeLists.txt").read_text(encoding="utf-8")
    fields = dict(re.findall(r'set\(EXTENSION_(\w+)\s+"(.*?)"\)', text, re.S))
    assert {"$schema", "category", "scm_url"} <= set(entry)
    assert (entry["build_dependencies"], fields["DEPENDS"]) == ([], "NA")
    pictures = [fields["ICONURL"], *fields["SCREENSHOTURLS"].split()]
    assert fields["HOMEPAGE"].startswith(entry["scm_url"].removesuffix(".git") + "/")
    for address in pictures:
        assert (EXTENSION / address.split("/slicer_extension/")[1]).is_file(), address
    homepage = (EXTENSION / "README.md").read_text(encoding="utf-8")
    for words in ("not a medical device", "leaves the machine", "Patents", "Publications"):
        assert words in fields["DESCRIPTION"]
        assert words in homepage
    assert (EXTENSION / "LICENSE.txt").read_bytes() == (REPOSITORY / "LICENSE").read_bytes()
