"""The job for Slicer itself, as far as it can be held against this repository without Slicer."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

EXTENSION = Path(__file__).resolve().parents[1]
REPOSITORY = EXTENSION.parent
WORKFLOW = REPOSITORY / ".github" / "workflows" / "slicer_extension.yml"


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


def test_the_panel_is_tested_on_slicers_own_python_layer_too(steps):
    [script] = [script for script in steps if "python -m pytest" in script]
    assert "MONAI_SR_ORACLE=" in script
    [script] = [script for script in steps if "sparse-checkout set Base/Python CMake Extensions/CMake" in script]
    assert all(release in script for release in ("slicer_5_10_0", "slicer_5_12_3", "slicer_main"))
