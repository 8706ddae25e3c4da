"""A hospital's policy may be stricter than the shipped one and never weaker."""

import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("nvflare", reason="federated training: nvflare is not installed (extra [federated])")

from monai_sr_bundle.errors import InputError
from monai_sr_bundle.federated.job import SERVER_CLASSES, SITE_CLASSES
from monai_sr_bundle.federated.site_policy import check_policy, install_policy, policy_folder
from nvflare.apis.filter import Filter
from nvflare.fuel.sec.authz import AuthzContext, Person, parse_policy_config
from nvflare.fuel.utils.class_loader import load_class
from nvflare.security.security import COMMAND_CATEGORIES


@pytest.fixture
def policy(tmp_path):
    """A policy that a hospital may edit."""
    return Path(shutil.copytree(policy_folder("site"), tmp_path / "policy"))


def edit(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def allows(role: str, right: str, *, at: str = "site", org: str = "university") -> bool:
    """Return whether NVFlare lets a user do something at the hospital_1 or at the server of the university."""
    policy, error = parse_policy_config(
        json.loads((policy_folder(at) / "authorization.json").read_text()), COMMAND_CATEGORIES
    )
    assert error == ""
    user = Person("coordinator@example.org", org, role)
    return policy.evaluate("hospital_1" if at == "site" else "university", AuthzContext(right, user, user))[0]


@pytest.mark.parametrize("role", ["site", "server"])
def test_every_allowed_class_is_one_class_and_exists(role):
    listed = json.loads((policy_folder(role) / "resources.json").read_text())["class_allow_list"]
    for name in listed:
        assert isinstance(load_class(name), type), name
    commands = [name for name in listed if "ClientAPIExecutor" in name or "script_runner" in name]
    assert commands == []  # a job could give them any command


def test_the_jobs_of_this_project_are_allowed():
    for role, classes in (("site", SITE_CLASSES), ("server", SERVER_CLASSES)):
        listed = json.loads((policy_folder(role) / "resources.json").read_text())["class_allow_list"]
        assert set(classes) <= set(listed)


@pytest.mark.parametrize("role", ["project_admin", "lead", "org_admin", "member"])
@pytest.mark.parametrize("right", ["byoc", "cat", "ls", "grep", "head", "tail", "server-predeployed-flwr"])
def test_nobody_brings_code_or_reads_files(role, right):
    assert not allows(role, right)
    assert not allows(role, right, at="server")


def test_the_coordinator_starts_and_stops_jobs_but_not_the_hospitals_software():
    assert allows("project_admin", "submit_job")
    assert allows("project_admin", "abort_job")
    assert not allows("project_admin", "shutdown")
    assert allows("org_admin", "shutdown", org="hospital_1")
    assert allows("project_admin", "disable_client", at="server")


def test_the_shipped_policy_is_installed(tmp_path):
    install_policy(tmp_path / "local", "server")
    storage = str((tmp_path / "storage").resolve())
    text = (tmp_path / "local" / "resources.json").read_text()
    assert f"{storage}/jobs" in text
    assert f"{storage}/snapshots" in text
    assert "/tmp/nvflare" not in text  # NVFlare's own place, which a restart of the machine empties
    assert json.loads((tmp_path / "local" / "log_config.json").read_text())["version"] == 1


def test_the_weights_of_one_bundle_alone_may_leave_a_site(tmp_path):
    install_policy(tmp_path / "local", "site", bundle="chest_xray_srcnn_x4")
    (scope,) = json.loads((tmp_path / "local" / "privacy.json").read_text())["scopes"]
    (each,) = scope["task_result_filters"]
    assert each["args"] == {"bundle": "chest_xray_srcnn_x4"}
    assert isinstance(load_class(each["path"])(**each["args"]), Filter)


def test_a_stricter_policy_is_installed(policy, tmp_path):
    edit(
        policy / "resources.json",
        class_allow_list=json.loads((policy / "resources.json").read_text())["class_allow_list"][:1],
    )
    install_policy(tmp_path / "local", "site", policy)
    assert len(json.loads((tmp_path / "local" / "resources.json").read_text())["class_allow_list"]) == 1


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("resources.json", {"class_list_enforcement_mode": "warn"}, "must be enforce"),
        ("resources.json", {"class_allow_list": ["*"]}, r"class_allow_list has \*"),
        ("resources.json", {"class_allow_list": ["monai_sr_bundle."]}, "class_allow_list has monai_sr_bundle"),
        ("resources.json", {"class_allow_list": None}, "class_allow_list has no list"),
        ("resources.json", {"allow_log_streaming": True}, "Logs can name files and patients"),
        ("authorization.json", {"permissions": {"project_admin": "any"}}, "role project_admin has the right byoc"),
        ("authorization.json", {"permissions": {"lead": {"shell_commands": "any"}}}, "role lead has the right shell"),
        (
            "authorization.json",
            {"permissions": {"lead": {"shell_commands": "none", "cat": "any"}}},
            "has the right cat",
        ),
        ("authorization.json", {"permissions": {"lead": None}}, "role lead has the right byoc"),
        ("authorization.json", {"permissions": {"lead": [{}]}}, "role lead has the right byoc"),
        ("privacy.json", {"default_scope": ""}, "must have one scope"),
        ("privacy.json", {"scopes": [{"name": "site"}, {"name": "other"}]}, "must have one scope"),
        ("privacy.json", {"scopes": [{"name": "site", "task_result_filters": []}]}, "the last of task_result_filters"),
    ],
)
def test_a_weaker_policy_is_refused(policy, tmp_path, file, changes, message):
    edit(policy / file, **changes)
    with pytest.raises(InputError, match=message):
        install_policy(tmp_path / "local", "site", policy)
    assert not (tmp_path / "local").exists()


def test_a_right_that_nobody_has_is_no_weaker_policy(policy):
    edit(policy / "authorization.json", permissions={"lead": {"cat": "none"}})
    check_policy(policy, "site")


def test_a_policy_that_cannot_be_read_is_refused(policy):
    (policy / "privacy.json").write_text("[]")
    with pytest.raises(InputError, match="holds no keys"):
        check_policy(policy, "site")
    (policy / "authorization.json").unlink()
    with pytest.raises(InputError, match="cannot be read"):
        check_policy(policy, "site")
