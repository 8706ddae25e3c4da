"""The job for Slicer itself, as far as it can be held against this repository without Slicer."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

EXTENSION = Path(__file__).resolve().parents[1]
REPOSITORY = EXTENSION.parent
PATIENCE = 1800
"""Seconds; only what hangs takes as long."""
WORKFLOW = REPOSITORY / ".github" / "workflows" / "slicer_extension.yml"
STAND_INS = r"""
import sys, types
sys.path[:0] = [{tests!r}, {module!r}]
from slicer_application import Application
core = Application()
import numpy, pathlib, pydicom, slicer, slicerpython, types
from sliceview import SliceView
from SuperResolutionLib import compare
slicerpython.start(core)
slicer.app.userSettings().setValue("SuperResolution/Python", {python!r})
module = slicerpython.openModule({module!r} + "/SuperResolution.py")
opened = []
def selectModule(name):
    opened.append(getattr(module, name + "Widget")())
    opened[-1].enter()
def leave(code):
    opened[-1].cleanup()
    sys.stdout.flush()
    __import__("os")._exit(code)
class DICOMUtils:
    class TemporaryDICOMDatabase:
        def __enter__(self):
            slicer.dicomDatabase = self
            opened[-1].logic.enhancer._database = self
            return self
        def __exit__(self, *error):
            pass
        def patients(self):
            return ["patient"]
        def fileForInstance(self, uid):
            return str(self.file)
        def fileValue(self, file, tag):
            value = self.read.get(tuple(int(part, 16) for part in tag.split(",")))
            several = isinstance(value and value.value, (list, pydicom.multival.MultiValue))
            return "" if value is None else "\\".join(map(str, value.value)) if several else str(value.value)
    @staticmethod
    def importDicom(folder, database):
        [database.file] = pathlib.Path(folder).iterdir()
        database.read = pydicom.dcmread(database.file)
    @staticmethod
    def loadPatientByUID(patient):
        read = slicer.dicomDatabase.read
        volume = core.addVolume(read.pixel_array[None], numpy.diag([-1.6, -1.6, 1.0, 1.0]), "film")
        volume.SetAttribute("DICOM.instanceUIDs", read.SOPInstanceUID)
        named = slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMSeriesModalityAttributeName()
        core.subjectHierarchy.SetItemAttribute(core.subjectHierarchy.GetItemByDataNode(volume), named, read.Modality)
        views = {{name: SliceView(core, name) for name in ("Red", compare.BEFORE, compare.AFTER)}}
        views["Red"].show(volume)
        opened[-1].viewing._rendererOf = lambda name: views[name].renderer
        return [volume.GetID()]
sys.modules["DICOMLib"] = types.SimpleNamespace(DICOMUtils=DICOMUtils)
slicer.util.saveScene = lambda path: core.saveScene(path) or True
slicer.util.loadScene = core.loadScene
slicer.util.selectModule, slicer.util.getModuleWidget, slicer.util.exit = selectModule, lambda name: opened[-1], leave
sys.argv = [{script!r}, {wheels!r}]
exec(compile(open({script!r}).read(), {script!r}, "exec"), {{"__name__": "__main__"}})
"""


@pytest.fixture(scope="module")
def text():
    return WORKFLOW.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def steps(text):
    yaml = pytest.importorskip("yaml", reason="PyYAML, which reads the job, is missing")
    jobs = yaml.safe_load(text)["jobs"]
    run = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    return jobs["in_slicer"]["strategy"]["matrix"]["include"], run


def test_the_job_names_the_slicers_that_the_extension_is_made_for(steps):
    matrix, _ = steps
    assert [entry["slicer"] for entry in matrix] == ["5.8", "5.10", "5.12", "5.13"]
    for entry in matrix:
        named = re.search(r"version=([\d.]+)", entry["query"])
        assert named is None or named[1].startswith(entry["slicer"])


def test_its_commands_are_those_of_a_shell_and_name_files_that_exist(steps):
    named = set()
    for script in steps[1]:
        script = re.sub(r"\$\{\{.*?\}\}", "value", script)
        subprocess.run(["bash", "-n", "-c", script], check=True)
        named |= {word for word in shlex.split(script) if (REPOSITORY / word.split("/")[0]).is_dir()}
        named |= set(re.findall(r"\$PWD/(slicer_extension[\w/.]*)", script))
    assert named >= {"slicer_extension", "slicer_extension/Testing/Slicer", "slicer_extension/Testing/in_slicer.py"}
    for name in named - {"build", "installed", "wheels"}:
        assert (REPOSITORY / name).exists(), name


@pytest.mark.slow
def test_what_it_runs_in_slicer_holds_on_the_stand_ins(tmp_path):
    tests, module = EXTENSION / "SuperResolution" / "Testing" / "Python", EXTENSION / "SuperResolution"
    python = os.environ.get("SUPERRESOLUTION_PYTHON") or sys.executable
    code = STAND_INS.format(
        tests=str(tests), module=str(module), python=python, wheels=str(tmp_path),
        script=str(EXTENSION / "Testing" / "in_slicer.py"),
    )  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=PATIENCE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "is installed. Nothing is missing." in done.stdout
    assert "in_slicer: compared, with error bars" in done.stdout
    assert "in_slicer: saved, loaded and removed" in done.stdout
    assert "in_slicer: all of it holds" in done.stdout


def test_the_panel_is_tested_on_slicers_own_python_layer_too(steps):
    [script] = [script for script in steps[1] if "SUPERRESOLUTION_SLICER_PYTHON=" in script]
    assert 'python -m pytest slicer_extension -k "panel or slicers_python"' in script
    assert any("sparse-checkout set Base/Python" in script for script in steps[1])


def test_a_failure_in_slicer_is_its_exit_code(tmp_path):
    script = tmp_path / "in_slicer.py"
    given = (EXTENSION / "Testing" / "in_slicer.py").read_text(encoding="utf-8")
    script.write_text(given.replace('selectModule("SuperResolution")', 'selectModule("NoSuchModule")'))
    tests, module = EXTENSION / "SuperResolution" / "Testing" / "Python", EXTENSION / "SuperResolution"
    code = STAND_INS.format(
        tests=str(tests), module=str(module), python=sys.executable, wheels=str(tmp_path), script=str(script)
    ).replace("opened[-1].cleanup()", "")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=PATIENCE)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "NoSuchModuleWidget" in done.stderr
