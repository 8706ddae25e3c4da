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
import sys
sys.path[:0] = [{tests!r}, {module!r}]
from slicer_application import Application
core = Application()
import contextlib, os, pathlib, slicer, slicerpython, types
from dicomfiles import Database
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
    for panel in opened:
        panel.cleanup()
    sys.stdout.flush()
    os._exit(code)
def importDicom(folder, database):
    environment = {{**os.environ, "PYTHONPATH": {repository!r}}}
    slicer.dicomDatabase = Database(pathlib.Path(folder), "", ({python!r}, environment))
def loadPatientByUID(patient):
    volume = slicer.dicomDatabase.load(core, "film")
    core.views = [SliceView(core, name) for name in ("Red", compare.BEFORE, compare.AFTER)]
    core.views[0].show(volume)
    return [volume.GetID()]
database = types.SimpleNamespace(patients=lambda: ["patient"])
sys.modules["DICOMLib"] = types.SimpleNamespace(DICOMUtils=types.SimpleNamespace(
    importDicom=importDicom, loadPatientByUID=loadPatientByUID,
    TemporaryDICOMDatabase=lambda: contextlib.nullcontext(database),
))
slicer.util.saveScene = lambda path: core.saveScene(path) or True
slicer.util.loadScene = core.loadScene
slicer.util.selectModule, slicer.util.getModuleWidget, slicer.util.exit = selectModule, lambda name: opened[-1], leave
sys.argv = [{script!r}, {wheels!r}]
exec(compile(open({script!r}).read(), {script!r}, "exec"), {{"__name__": "__main__"}})
"""


def runInStandIns(script, folder, python):
    """Run a script as Slicer's option --python-script does, with `folder` as the folder of wheels."""
    module = EXTENSION / "SuperResolution"
    code = STAND_INS.format(
        tests=str(module / "Testing" / "Python"), module=str(module), repository=str(REPOSITORY), python=python,
        script=str(script), wheels=str(folder),
    )  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, timeout=PATIENCE)
    if missing := re.findall("SLICER'S PYTHON LAYER: .*", done.stderr):
        pytest.skip(missing[-1])  # before it stands the line that raised it
    return done


@pytest.fixture(scope="module")
def steps():
    yaml = pytest.importorskip("yaml", reason="PyYAML, which reads the job, is missing")
    jobs = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"]
    return [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]


def test_its_commands_are_those_of_a_shell_and_name_files_that_exist(steps):
    named = set()
    for script in steps:
        script = re.sub(r"\$\{\{.*?\}\}", "value", script)
        subprocess.run(["bash", "-n", "-c", script], check=True)
        named |= {word for word in shlex.split(script) if (REPOSITORY / word.split("/")[0]).is_dir()}
        named |= set(re.findall(r"\$PWD/(slicer_extension[\w/.]*)", script))
    assert named >= {"slicer_extension", "slicer_extension/Testing/Slicer", "slicer_extension/Testing/in_slicer.py"}
    for name in named - {"build", "installed", "wheels"}:
        assert (REPOSITORY / name).exists(), name


@pytest.mark.slow
def test_what_it_runs_in_slicer_holds_on_the_stand_ins(tmp_path):
    python = os.environ.get("SUPERRESOLUTION_PYTHON") or sys.executable
    done = runInStandIns(EXTENSION / "Testing" / "in_slicer.py", tmp_path, python)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The models are installed. Nothing is missing." in done.stdout
    assert "in_slicer: compared, with error bars" in done.stdout
    assert "in_slicer: saved, loaded and removed" in done.stdout
    assert "in_slicer: all of it holds" in done.stdout


def test_the_panel_is_tested_on_slicers_own_python_layer_too(steps):
    [script] = [script for script in steps if "python -m pytest" in script]
    assert "MONAI_SR_ORACLE=" in script
    [script] = [script for script in steps if "sparse-checkout set Base/Python CMake Extensions/CMake" in script]
    assert all(release in script for release in ("slicer_5_10_0", "slicer_5_12_3", "slicer_main"))


def test_a_failure_in_slicer_is_its_exit_code(tmp_path):
    script = tmp_path / "in_slicer.py"
    given = (EXTENSION / "Testing" / "in_slicer.py").read_text(encoding="utf-8")
    script.write_text(given.replace('selectModule("SuperResolution")', 'selectModule("NoSuchModule")'))
    done = runInStandIns(script, tmp_path, sys.executable)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "NoSuchModuleWidget" in done.stderr
