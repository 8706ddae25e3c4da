"""A startup kit is refused unless it is the coordinator's, whole and valid now."""

import json
import shutil
import stat
import subprocess
import sys
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

pytest.importorskip("nvflare", reason="federated training: nvflare is not installed (extra [federated])")

from monai_sr_bundle.__main__ import main
from monai_sr_bundle.errors import InputError
from monai_sr_bundle.federated import startup_kits
from monai_sr_bundle.federated.join import install_kit, join, run_nvflare
from monai_sr_bundle.federated.site_policy import policy_folder
from monai_sr_bundle.federated.site_settings import SETTINGS_FILE
from monai_sr_bundle.federated.startup_kits import check_kit, is_server, kit_expires, kit_name, provision
from monai_sr_bundle.shipped_bundles import configs_dir
from nvflare.lighter.utils import (
    Identity,
    generate_cert,
    generate_keys,
    load_crt,
    load_private_key_file,
    serialize_cert,
    serialize_pri_key,
    sign_folders,
)

from tests.drawn_data import write_radiographs
from tests.federated.conftest import TASK, study


def now() -> datetime:
    return datetime.now(UTC)


def write_project(path: Path, **changes) -> Path:
    project = yaml.safe_load((configs_dir() / "federated" / "policy" / "project.yaml").read_text())
    path.write_text(yaml.safe_dump(project | changes))
    return path


@pytest.fixture(scope="module")
def provisioned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("provisioned")
    return provision(write_project(folder / "project.yaml"), folder / "kits")


@pytest.fixture
def kit(provisioned, tmp_path):
    """A hospital's kit that a test may change."""
    return Path(shutil.copytree(provisioned.folder / "hospital-1", tmp_path / "hospital-1"))


def authority(provisioned):
    folder = provisioned.folder.parent / "ca"
    return load_crt(folder / "rootCA.pem"), load_private_key_file(folder / "rootCA.key")


def reissue(kit, provisioned, **validity) -> None:
    """Give a kit another certificate, signed by the federation's root, and the coordinator's signature again."""
    _, root_key = authority(provisioned)
    key, public = generate_keys()
    certificate = generate_cert(
        Identity("hospital-1", "hospital_1"), Identity("chest_sr"), root_key, public, **validity
    )
    (kit / "startup" / "client.crt").write_bytes(serialize_cert(certificate))
    (kit / "startup" / "client.key").write_bytes(serialize_pri_key(key))
    sign(kit, root_key)


def sign(kit, key) -> None:
    sign_folders(str(kit / "startup"), key, signature_file="signature.json")


def test_one_zip_for_each_participant_and_their_validity_is_stated(provisioned):
    names = sorted(path.stem for path in provisioned.folder.glob("*.zip"))
    assert names == ["coordinator@example.org", "hospital-1", "hospital-2", "server.example.org"]
    assert provisioned.own_keys == ("hospital-3",)
    assert provisioned.root_expires - now() > timedelta(days=1820)
    assert timedelta(days=355) < provisioned.kits_expire - now() < timedelta(days=365)  # NVFlare's own
    assert is_server(provisioned.folder / "server.example.org")
    assert stat.S_IMODE(provisioned.folder.parent.stat().st_mode) == 0o700  # it holds the root's private key


def test_private_keys_are_closed_from_the_first_moment_on(tmp_path, monkeypatch):
    modes = []

    def write_keys(self, project):
        modes.append(stat.S_IMODE((tmp_path / "kits" / "chest_sr").stat().st_mode))
        raise ValueError("stopped by this test")

    monkeypatch.setattr(startup_kits.Provisioner, "provision", write_keys)
    with pytest.raises(InputError, match="stopped by this test"):
        provision(write_project(tmp_path / "project.yaml"), tmp_path / "kits")
    assert modes == [0o700]


def test_the_coordinators_kit_is_accepted(kit, provisioned):
    assert kit_name(kit) == "hospital-1"
    assert kit_expires(kit) >= provisioned.kits_expire
    check_kit(kit, provisioned.fingerprint, now())
    check_kit(provisioned.folder / "server.example.org", provisioned.fingerprint, now())


def test_a_second_run_keeps_the_root_certificate_and_adds_a_hospital(provisioned, tmp_path):
    shutil.copytree(provisioned.folder.parent, tmp_path / "kits" / "chest_sr")
    project = write_project(tmp_path / "project.yaml")
    content = yaml.safe_load(project.read_text())
    content["participants"].append({"name": "hospital-4", "type": "client", "org": "hospital_4"})
    project.write_text(yaml.safe_dump(content))
    extended = provision(project, tmp_path / "kits")
    assert extended.fingerprint == provisioned.fingerprint
    old, new = (each.folder / "hospital-1" / "startup" / "client.key" for each in (provisioned, extended))
    assert old.read_bytes() == new.read_bytes()
    check_kit(extended.folder / "hospital-4", provisioned.fingerprint, now())
    state = tmp_path / "kits" / "chest_sr" / "state" / "cert.json"  # for a new certificate, as the runbook says
    state.write_text(
        json.dumps({key: value for key, value in json.loads(state.read_text()).items() if key != "hospital-1"})
    )
    renewed = provision(project, tmp_path / "kits").folder / "hospital-1" / "startup" / "client.key"
    assert renewed.read_bytes() != old.read_bytes()


def test_a_hospital_can_keep_its_private_key(provisioned, tmp_path, monkeypatch):
    """The two commands of NVFlare, with what `provision` wrote for them."""
    monkeypatch.setenv("HOME", str(tmp_path))
    root, request, signed = provisioned.folder.parent, tmp_path / "request", tmp_path / "hospital-3.signed.zip"
    run_nvflare("cert", "request", "-p", str(root / "hospital-3.participant.yaml"), "--out", str(request))
    run_nvflare(
        *("cert", "approve", str(request / "hospital-3.request.zip"), "-c", str(root / "ca")),
        *("--profile", str(root / "profile.yaml"), "--out", str(signed)),
    )
    installed = install_kit(signed, tmp_path / "kits", provisioned.fingerprint, request=request)
    assert kit_expires(installed) > now() + timedelta(days=1000)
    key = (installed / "startup" / "client.key").read_bytes()
    sent = [path for path in root.rglob("*") if path.is_file() and key in path.read_bytes()]
    assert sent == []  # the coordinator has never seen it
    assert install_kit(installed, tmp_path / "kits", provisioned.fingerprint, request=request) == installed
    # Only a kit that was put together here goes without the coordinator's signature.
    other = next(path for path in provisioned.folder.rglob("hospital-1") if (path / "startup").is_dir())
    with pytest.raises(InputError, match="hospital-1: its private key is not that in .*request"):
        install_kit(other, tmp_path / "kits", provisioned.fingerprint, request=request)


@pytest.mark.parametrize("change", ["changed", "added", "removed"])
def test_a_tampered_kit_is_refused(kit, provisioned, change):
    folder = kit / "startup"
    if change == "changed":
        text = (folder / "fed_client.json").read_text()
        (folder / "fed_client.json").write_text(text.replace("server.example.org", "evil.example.org"))
    elif change == "added":
        (folder / "sitecustomize.py").write_text("")
    else:
        signatures = json.loads((folder / "signature.json").read_text())
        del signatures["fed_client.json"]
        (folder / "signature.json").write_text(json.dumps(signatures))
    with pytest.raises(InputError, match="not those that the coordinator signed"):
        check_kit(kit, provisioned.fingerprint, now())


def test_a_kit_without_a_signature_is_refused_unless_the_hospital_made_its_key(kit, provisioned):
    (kit / "startup" / "signature.json").unlink()
    with pytest.raises(InputError, match="no signature of the coordinator.* --request"):
        check_kit(kit, provisioned.fingerprint, now())
    check_kit(kit, provisioned.fingerprint, now(), signed=False)


def test_join_refuses_a_kit_of_another_federation_with_one_sentence(provisioned, tmp_path, capsys):
    other = provision(write_project(tmp_path / "project.yaml"), tmp_path / "kits")
    (tmp_path / "study.yaml").write_text(json.dumps(TASK))
    arguments = [
        *("federated", "join", str(other.folder / "hospital-1.zip"), "--fingerprint", provisioned.fingerprint),
        *("--study", str(tmp_path / "study.yaml"), "--data", str(tmp_path), "--folder", str(tmp_path / "machine")),
    ]
    assert main(arguments) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("monai-sr: error: hospital-1: its root certificate is SHA256:")
    assert "another federation" in line
    assert not (tmp_path / "machine" / "hospital-1").exists()


def test_a_foreign_certificate_under_the_right_root_is_refused(kit, provisioned, tmp_path):
    _, root_key = authority(provisioned)
    other = provision(write_project(tmp_path / "project.yaml"), tmp_path / "kits")
    for name in ("client.crt", "client.key"):
        shutil.copy(other.folder / "hospital-1" / "startup" / name, kit / "startup" / name)
    sign(kit, root_key)
    with pytest.raises(InputError, match="not signed by the federation's root"):
        check_kit(kit, provisioned.fingerprint, now())


def test_a_private_key_of_another_certificate_is_refused(kit, provisioned):
    shutil.copy(provisioned.folder / "hospital-2" / "startup" / "client.key", kit / "startup" / "client.key")
    sign(kit, authority(provisioned)[1])
    with pytest.raises(InputError, match="private key does not belong"):
        check_kit(kit, provisioned.fingerprint, now())


@pytest.mark.parametrize(
    ("begins", "ends", "reason"),
    [(1, 9, "holds from {0:%Y-%m-%d} .* Set the clock"), (-9, -1, "expired on {1:%Y-%m-%d} .* for a new kit")],
    ids=["clock late", "expired"],
)
def test_join_refuses_a_kit_that_does_not_hold_now_and_installs_nothing(
    kit, provisioned, tmp_path, begins, ends, reason
):
    days = [now() + timedelta(days=count) for count in (begins, ends)]
    reissue(kit, provisioned, not_valid_before=days[0], not_valid_after=days[1])
    with pytest.raises(InputError, match=reason.format(*days)):
        join(kit, tmp_path / "machine", provisioned.fingerprint)
    assert [*(tmp_path / "machine").iterdir()] == []


def test_join_starts_nothing_where_the_images_do_not_fit(kit, provisioned, tmp_path):
    data = write_radiographs(tmp_path / "data", size=96, counts=(("train", 3), ("val", 2)))
    (data / "drawn" / "images" / "train1.png").unlink()
    lines = []
    with pytest.raises(InputError, match=r"1 of 3 files of the manifest are missing"):
        join(kit, tmp_path / "machine", provisioned.fingerprint, study=study(), data=data, report=lines.append)
    assert len(lines) == 1  # the kit was accepted
    assert [*(tmp_path / "machine").iterdir()] == []  # and not kept: it holds a private key


def test_a_refused_join_keeps_a_kit_that_was_there(kit, provisioned, tmp_path):
    installed = install_kit(kit, tmp_path / "machine", provisioned.fingerprint)
    with pytest.raises(InputError, match="pass its study with --study"):
        join(installed, tmp_path / "machine", provisioned.fingerprint)
    assert (installed / "startup" / "client.key").is_file()
    assert stat.S_IMODE(installed.stat().st_mode) == 0o700  # its logs may name files


def test_join_refuses_an_impossible_budget(kit, provisioned, tmp_path):
    with pytest.raises(InputError, match="the privacy budget is epsilon 8 and delta 2"):
        join(kit, tmp_path / "machine", provisioned.fingerprint, study=study(), data=tmp_path, budget=(8, 2))
    assert not (tmp_path / "machine" / "hospital-1" / "local" / SETTINGS_FILE).exists()


@pytest.mark.parametrize(
    ("privacy", "policy", "budget", "reason"),
    [
        (None, "ListedOnly", (8, 1e-5), "has a privacy budget, and the study drawn trains without noise"),
        ("difference", "ListedOnly", (8, 1e-5), "asks for noise on the differences"),
        ("difference", "ListedOnly", None, "asks for noise on the differences"),
        (None, "ClipAndNoise", None, "this site has no privacy budget"),
    ],
)
def test_join_refuses_a_study_whose_differences_would_leave_without_their_noise(
    kit, provisioned, tmp_path, privacy, policy, budget, reason
):
    folder = Path(shutil.copytree(policy_folder("site"), tmp_path / "policy"))
    (folder / "privacy.json").write_text((folder / "privacy.json").read_text().replace("ListedOnly", policy))
    of_study = study(privacy={"protect": privacy} if privacy else None)
    with pytest.raises(InputError, match=reason):
        join(
            kit, tmp_path / "machine", provisioned.fingerprint,
            study=of_study, data=tmp_path, policy=folder, budget=budget,
        )  # fmt: skip
    assert [*(tmp_path / "machine").iterdir()] == []


def test_join_changes_nothing_of_a_kit_that_runs(kit, provisioned, tmp_path):
    """Its policy and settings are those of the study that it trains."""
    installed = install_kit(kit, tmp_path / "machine", provisioned.fingerprint)
    with subprocess.Popen(
        [sys.executable, "-c", "input()", str(installed.resolve())], stdin=subprocess.PIPE
    ) as supervisor:
        (installed / "daemon_pid.fl").write_text(str(supervisor.pid))
        before = sorted(installed.rglob("*"))
        try:
            with pytest.raises(InputError, match="runs already"):
                join(kit, tmp_path / "machine", provisioned.fingerprint, study=study(), data=tmp_path)
            assert sorted(installed.rglob("*")) == before
        finally:
            supervisor.kill()


def test_a_kit_with_a_program_of_its_own_is_refused_though_it_is_signed(kit, provisioned):
    script = kit / "startup" / "sub_start.sh"
    script.write_text(script.read_text().replace("start_python() {", "start_python() {\n  id"))
    sign(kit, authority(provisioned)[1])
    with pytest.raises(InputError, match="not the script of NVFlare"):
        check_kit(kit, provisioned.fingerprint, now())


def test_a_kit_whose_settings_build_classes_is_refused_though_it_is_signed(kit, provisioned):
    settings = kit / "startup" / "fed_client.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"components": []}))
    sign(kit, authority(provisioned)[1])
    with pytest.raises(InputError, match="has components"):
        check_kit(kit, provisioned.fingerprint, now())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"participants": None}, "no list of participants"),
        ({"participants": [{"name": "a", "type": "client", "org": "a-b"}]}, "letters, digits and _ only"),
        (
            {"participants": [{"name": "a.b", "type": "server", "org": "ab", "own_key": True}]},
            "own_key is for hospitals",
        ),
        ({"participants": [{"name": "a", "type": "client", "org": "ab"}]}, "missing server"),
        (
            {"participants": [{"name": "a.b", "type": "server", "org": "ab", "fed_learn_port": "x"}]},
            "port of a.b is 'x'",
        ),
        ({"name": "../other"}, "name is '../other', expected letters"),
        ({"api_version": 9}, "API version"),
    ],
)
def test_a_project_file_that_cannot_be_used_is_refused(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        provision(write_project(tmp_path / "project.yaml", **changes), tmp_path / "kits")


def test_a_damaged_zip_is_refused_in_a_sentence_and_leaves_nothing(tmp_path):
    source, folder = tmp_path / "kit.zip", tmp_path / "kits"
    with zipfile.ZipFile(source, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("kit/startup/start.sh", "echo\n" * 200)
    content = bytearray(source.read_bytes())
    start = 30 + len("kit/startup/start.sh")
    content[start : start + 8] = b"\xff" * 8  # of the compressed data
    source.write_bytes(content)
    with pytest.raises(InputError, match=r"kit\.zip cannot be unpacked .+ Ask the coordinator"):
        install_kit(source, folder, "")
    assert list(folder.iterdir()) == []


def test_a_zip_changes_no_file_beside_its_folder(tmp_path):
    other = tmp_path / "other.txt"
    other.touch(0o600)
    member = zipfile.ZipInfo("../../other.txt")
    member.external_attr = 0o100777 << 16
    with zipfile.ZipFile(tmp_path / "kit.zip", "w") as archive:
        archive.writestr(member, "text")
    with pytest.raises(InputError, match="holds 0 kits"):
        install_kit(tmp_path / "kit.zip", tmp_path / "kits", "")
    assert (other.stat().st_mode & 0o777, other.read_text()) == (0o600, "")
