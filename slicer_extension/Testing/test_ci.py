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
WORKFLOW = REPOSITORY / ".github" / "workflows" / "slicer_extension.yml"
STAND_INS = """
import sys, types
sys.path[:0] = [{tests!r}, {module!r}]
from application import Application
core = Application()
import slicer, slicerpython
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
    job = yaml.safe_load(text)["jobs"]["in_slicer"]
    return job["strategy"]["matrix"]["include"], [step["run"] for step in job["steps"] if "run" in step]


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


def test_what_it_runs_in_slicer_holds_on_the_stand_ins(tmp_path):
    tests, module = EXTENSION / "SuperResolution" / "Testing" / "Python", EXTENSION / "SuperResolution"
    python = os.environ.get("SUPERRESOLUTION_PYTHON") or sys.executable
    code = STAND_INS.format(
        tests=str(tests), module=str(module), python=python, wheels=str(tmp_path),
        script=str(EXTENSION / "Testing" / "in_slicer.py"),
    )  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "is installed. Nothing is missing." in done.stdout
    assert "in_slicer: all of it holds" in done.stdout


def test_a_failure_in_slicer_is_its_exit_code(tmp_path):
    script = tmp_path / "in_slicer.py"
    given = (EXTENSION / "Testing" / "in_slicer.py").read_text(encoding="utf-8")
    script.write_text(given.replace('selectModule("SuperResolution")', 'selectModule("NoSuchModule")'))
    tests, module = EXTENSION / "SuperResolution" / "Testing" / "Python", EXTENSION / "SuperResolution"
    code = STAND_INS.format(
        tests=str(tests), module=str(module), python=sys.executable, wheels=str(tmp_path), script=str(script)
    ).replace("opened[-1].cleanup()", "")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "NoSuchModuleWidget" in done.stderr
