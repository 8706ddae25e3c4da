"""A pull request laid out by `pack --zoo` passes the model zoo's own CI, and `verify` says what that says."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from monai_sr_bundle.__main__ import main
from monai_sr_bundle.packing.metadata_schema import SCHEMA
from monai_sr_bundle.packing.verify import ZOO_CHECKS, verify
from monai_sr_bundle.packing.zoo import unit_test
from monai_sr_bundle.shipped_bundles import configs_dir, find_bundle

ORACLE = Path(os.environ.get("MONAI_SR_ORACLE", Path(__file__).parents[3] / "shared" / "oracle")) / "model_zoo"
needs_the_zoo = pytest.mark.skipif(
    not ORACLE.is_dir(), reason="the model zoo's own CI on packed bundles: its files are not in ../shared/oracle"
)
NAMES = (
    *("chest_xray_blind", "chest_ct_blind", "chest_ct_throughplane", "chest_xray_residual_flow_x4"),
    *("chest_xray_edsr_x4", "chest_ct_runet_x2", "chest_xray_sr3_x4"),
)
"""What is offered to the zoo."""

RUN_CI = """
import json, sys
sys.path.insert(0, "ci")
import verify_bundle
verdicts = {}
for name in sys.argv[1:]:
    try:
        verify_bundle.verify(name)
        verdicts[name] = ""
    except Exception as error:
        verdicts[name] = str(error) or type(error).__name__
    # The zoo has a process for each bundle: the next one brings code of its own.
    for module in [module for module in sys.modules if module.partition(".")[0] == "monai_sr_bundle"]:
        del sys.modules[module]
print("VERDICTS", json.dumps(verdicts))
"""


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    """A checkout of the zoo with the bundles that are offered to it, and what the command printed."""
    folder = tmp_path_factory.mktemp("zoo")
    shutil.copytree(ORACLE / "ci", folder / "ci")
    (folder / "models").mkdir()
    (folder / "models" / "model_info.json").write_text("{}")
    assert main(["pack", "--zoo", str(folder), *NAMES]) == 0
    return folder


def run(zoo, *command, launcher=()):
    environment = {**os.environ, "PYTHONPATH": str(zoo), "PYTHONDONTWRITEBYTECODE": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"  # torchrun
    command = [sys.executable, "-W", "ignore", *launcher, *command]
    return subprocess.run(command, cwd=zoo, env=environment, capture_output=True, text=True, check=False)


def verdicts(zoo, *names):
    """Run the zoo's ci/verify_bundle.py, as it is, and return what each bundle is refused for."""
    for name in names:  # as the zoo's ci/prepare_schema.py, which downloads the schema
        (zoo / "models" / name / "eval").mkdir(exist_ok=True)
        (zoo / "models" / name / "eval" / "schema.json").write_text(json.dumps(SCHEMA))
    ran = run(zoo, "-c", RUN_CI, *names)
    (line,) = [line for line in ran.stdout.splitlines() if line.startswith("VERDICTS")]
    return json.loads(line.removeprefix("VERDICTS")), ran.stdout


@needs_the_zoo
@pytest.mark.slow
def test_the_zoo_accepts_a_pull_request_with_its_list_entries_and_refuses_what_verify_names_without(zoo):
    refused, _ = verdicts(zoo, *NAMES)
    exclusions = {
        name: {check.exclusion for check in verify(zoo / "models" / name, only=ZOO_CHECKS) if check.exclusion}
        for name in NAMES
    }
    assert {name for name in NAMES if refused[name]} == {name for name in NAMES if exclusions[name]}
    assert exclusions["chest_xray_sr3_x4"] == {"exclude_verify_torchscript_list"}
    subprocess.run(["patch", "-p1", "-i", "bundle_custom_data.diff"], cwd=zoo, check=True)
    assert verdicts(zoo, *NAMES)[0] == dict.fromkeys(NAMES, "")


DAMAGES = {
    "preferred files": lambda at: (at / "models" / "model.pt").unlink(),
    "necessary files": lambda at: (at / "LICENSE").unlink(),
    "version in the changelog": lambda at: change(at, version="9.9.9"),
    "metadata format": lambda at: change(at, authors=None),
    "shapes in and out": lambda at: change(at, channels=3),
    "TorchScript": lambda at: (at / "models" / "model.pt").write_bytes(b"no weights"),
}


def change(folder, *, channels=1, **changes):
    path = folder / "configs" / "metadata.json"
    metadata = json.loads(path.read_text()) | changes
    metadata["network_data_format"]["outputs"]["pred"]["num_channels"] = channels
    path.write_text(json.dumps({key: value for key, value in metadata.items() if value is not None}))


@needs_the_zoo
@pytest.mark.slow
def test_what_the_zoo_refuses_is_what_verify_refuses(zoo):
    names = {check: f"chest_xray_broken_{number}" for number, check in enumerate(DAMAGES)}
    for check, name in names.items():
        DAMAGES[check](Path(shutil.copytree(zoo / "models" / "chest_xray_edsr_x4", zoo / "models" / name)))
        failed = [each.name for each in verify(zoo / "models" / name, only=ZOO_CHECKS) if not each.passed]
        assert failed[0] == check
    refused, printed = verdicts(zoo, *names.values())
    assert all(refused.values()), refused
    # The zoo stops at the first: it said of the bundle what came before.
    last_steps = {
        "preferred files": "", "necessary files": "", "version in the changelog": "directory",
        "metadata format": "version", "shapes in and out": "properties", "TorchScript": "data shape",
    }  # fmt: skip
    reports = printed.split("start verifying ")[1:]
    for (check, name), report in zip(names.items(), reports, strict=True):
        assert report.startswith(name)
        steps = [line for line in report.splitlines() if "verified correctly" in line]
        assert (steps[-1] if steps else "").startswith(last_steps[check])
        shutil.rmtree(zoo / "models" / name)


@needs_the_zoo
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_unit_test_of_a_bundle_runs_as_the_zoo_runs_it(zoo, name):
    ran = run(zoo, "ci/unit_tests/runner.py", "--b", name)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    tests = [
        "train",
        "infer",
        *(["evaluate"] if (zoo / "models" / name / "configs" / "evaluate.yaml").is_file() else []),
    ]
    assert f"Ran {len(tests)} tests" in ran.stderr


@needs_the_zoo
@pytest.mark.slow
@pytest.mark.parametrize("name", ["chest_xray_edsr_x4"])
def test_its_twin_for_several_gpus_runs_as_the_zoo_runs_it(zoo, name):
    launcher = ("-m", "torch.distributed.run")
    ran = run(zoo, "ci/unit_tests/runner.py", "--b", name, "--dist", "True", launcher=launcher)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "Ran 2 tests" in ran.stderr


@pytest.mark.slow
def test_without_a_checkout_the_entries_are_written_line_by_line(tmp_path, capsys):
    assert main(["pack", "--zoo", str(tmp_path), "chest_ct_sr3_x8"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "ci/bundle_custom_data.py: chest_ct_sr3_x8 into exclude_verify_torchscript_list" in lines
    assert (tmp_path / "bundle_custom_data.txt").read_text() == "exclude_verify_torchscript_list: chest_ct_sr3_x8\n"
    tests = {path.name for path in (tmp_path / "ci" / "unit_tests").iterdir()}
    assert tests == {"test_chest_ct_sr3_x8.py", "test_chest_ct_sr3_x8_dist.py"}
    for name in tests:
        compile((tmp_path / "ci" / "unit_tests" / name).read_text(), name, "exec")


@pytest.mark.slow
def test_a_checkout_without_the_list_is_refused(tmp_path, capsys):
    (tmp_path / "ci").mkdir()
    (tmp_path / "ci" / "bundle_custom_data.py").write_text("exclude_verify_shape_list = []\n")
    assert main(["pack", "--zoo", str(tmp_path), "chest_ct_sr3_x8"]) == 4
    assert "has no list exclude_verify_torchscript_list. Lay the pull request out" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["ci"]


@pytest.mark.parametrize("name", ["chest_xray_blind", "chest_ct_throughplane"])
def test_code_and_unit_tests_are_formatted_as_the_black_and_isort_of_the_zoo_do(packed, tmp_path, name):
    bundle, folder = find_bundle(name), packed(name)
    for distributed in (False, True):
        text = unit_test(bundle, folder, distributed=distributed)
        (tmp_path / f"test_{name}_{distributed}.py").write_text(text)
    ruff, width = [sys.executable, "-m", "ruff"], ["--line-length", "120", "--isolated", "--no-cache"]
    # The zoo calls black with --skip-magic-trailing-comma; the formatter of this project knows the same option.
    black = [*ruff, "format", "--diff", *width, "--config", "format.skip-magic-trailing-comma=true"]
    # Its isort takes nothing but the folder of all bundles for its own.
    settings = "lint.isort={known-first-party=['models'], detect-same-package=false}"
    isort = [*ruff, "check", "--select", "I", *width, "--config", settings]
    for command in (black, isort):
        ran = subprocess.run(
            [*command, str(folder / "monai_sr_bundle"), str(tmp_path)], cwd=tmp_path, capture_output=True, text=True
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr


def test_what_learns_nothing_is_not_offered(tmp_path, capsys):
    assert main(["pack", "--zoo", str(tmp_path), "bicubic"]) == 4
    assert "bicubic is not offered to the zoo: it learns nothing" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_that_the_zoo_would_refuse_stops_those_before_it_too(tmp_path, capsys):
    source = shutil.copytree(configs_dir() / "chest_xray_srcnn_x4", tmp_path / "chest_xray_mine_x4")
    metadata = json.loads((source / "metadata.json").read_text())
    (source / "metadata.json").write_text(json.dumps(metadata | {"changelog": {}}))
    (tmp_path / "zoo" / "models").mkdir(parents=True)
    assert main(["pack", "--zoo", str(tmp_path / "zoo"), "chest_xray_edsr_x4", str(source)]) == 4
    refusal = "chest_xray_mine_x4: the zoo's CI would refuse it (version in the changelog: version"
    assert refusal in capsys.readouterr().err
    assert [*(tmp_path / "zoo").rglob("*")] == [tmp_path / "zoo" / "models"]


def test_what_is_published_already_is_refused(tmp_path, capsys):
    (tmp_path / "models").mkdir()
    version = find_bundle("chest_xray_srcnn_x4").version
    published = json.dumps({f"chest_xray_srcnn_x4_v{version}": {}})
    (tmp_path / "models" / "model_info.json").write_text(published)
    assert main(["pack", "--zoo", str(tmp_path), "chest_xray_srcnn_x4"]) == 4
    assert f"version {version} is published already" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["bicubic"], ["bicubic", "chest_xray_edsr_x4", "OUT"]])
def test_pack_takes_one_bundle_and_a_folder(words, capsys):
    assert main(["pack", *words]) == 3
    assert "pack takes NAME OUT" in capsys.readouterr().err
