"""`monai-sr label` and its commands; and MONAI Label's own command."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
import requests
from drawn_readings import box, reading
from labelling.access import User, find_user, has_tokens
from labelling.box_store import BoxStore
from labelling.context import STORE_FILE, open_context
from labelling.errors import ConflictError
from monai_sr_bundle.__main__ import main
from monai_sr_bundle.cli import label
from processes import ROOT, START_SECONDS, free_port, wait_for


def run(capsys, *arguments):
    code = main(["label", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out.strip(), captured.err.strip()


def test_a_token_is_shown_once_and_only_its_hash_is_stored(tmp_path, capsys):
    code, token, _ = run(capsys, "--store", tmp_path, "token", "ada", "--role", "admin")
    assert (code, len(token) > 30) == (0, True)
    assert all(token.encode() not in file.read_bytes() for file in tmp_path.iterdir())
    assert run(capsys, "--store", tmp_path, "token", "ada", "--revoke")[1] == "ada: 1 tokens revoked"


def test_a_server_whose_last_token_is_revoked_lets_nobody_in(tmp_path, capsys):
    _, token, _ = run(capsys, "--store", tmp_path, "token", "ada", "--role", "admin")
    assert find_user(BoxStore(tmp_path / STORE_FILE), token) == User("ada", "admin")
    assert run(capsys, "--store", tmp_path, "token", "ada", "--revoke")[1] == "ada: 1 tokens revoked"
    store = BoxStore(tmp_path / STORE_FILE)
    assert (find_user(store, token), has_tokens(store)) == (None, True)
    assert run(capsys, "--store", tmp_path, "token", "ada", "--revoke")[1] == "ada: 0 tokens revoked"


@pytest.mark.parametrize("name", ["../ada", "consensus", "local", "", "a b"])
def test_some_names_are_no_readers(tmp_path, capsys, name):
    code, _, error = run(capsys, "--store", tmp_path, "token", name)
    assert (code, "cannot be the name of a reader" in error) == (3, True)


def test_backup_and_restore(tmp_path, capsys):
    store = BoxStore(tmp_path / "store" / STORE_FILE)
    store.save(reading("ada", box()), actor="ada", based_on=0)
    assert run(capsys, "backup", tmp_path / "b.sqlite", "--store", tmp_path / "store")[0] == 0  # of a store in use
    assert (tmp_path / "b.sqlite").stat().st_mode & 0o777 == 0o600
    store.save(reading("ada", box(1, 2, 3, 4)), actor="ada", based_on=1)
    store.close()
    code, output, _ = run(capsys, "restore", tmp_path / "b.sqlite", "--store", tmp_path / "store")
    assert (code, "what was there is boxes.sqlite." in output) == (0, True)
    assert len(BoxStore(tmp_path / "store" / STORE_FILE).history("chest.png")) == 1
    assert (tmp_path / "store" / STORE_FILE).stat().st_mode & 0o777 == 0o600
    code, _, error = run(capsys, "backup", tmp_path / "b.sqlite", "--store", tmp_path / "store")
    assert (code, "exists already" in error) == (5, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--studies is missing"),
        (("--studies", "missing"), "is neither a folder nor the address of DICOMweb"),
        (("--studies", ".", "--bundles", "nothing"), "bundle 'nothing' is unknown"),
        (("--studies", ".", "--port", "65536"), "expected a number from 0 to 65535"),
        (("--studies", ".", "--host", "0.0.0.0"), "Make tokens first"),
        (("backup", "x.sqlite"), "holds no boxes"),
        (("restore", "missing.sqlite"), "is not a file"),
    ],
)
def test_wrong_commands_say_what_to_do(tmp_path, capsys, arguments, message):
    code, _, error = run(capsys, "--port", 0, "--store", tmp_path / "store", *arguments)
    assert (code, message in error) == (4 if "--bundles" in arguments else 3, True), error


@pytest.mark.parametrize("arguments", [("--studies", "."), ("token", "ada"), ("restore", "b.sqlite")])
def test_a_store_that_cannot_be_made_is_one_sentence(tmp_path, capsys, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    code, _, error = run(capsys, "--port", 0, "--store", "file/store", *arguments)
    message = "the store store cannot be made (Not a directory). Name another folder with --store."
    assert (code, error) == (5, f"monai-sr: error: {message}")


@pytest.mark.parametrize("arguments", [("token", "ada"), ("backup", "b.sqlite"), ("--studies", ".", "--host", "::")])
def test_a_damaged_store_is_one_sentence(tmp_path, capsys, arguments):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / STORE_FILE).write_bytes(b"no database" * 100)
    code, _, error = run(capsys, "--port", 0, "--store", tmp_path / "store", *arguments)
    assert (code, "the store of boxes is damaged. Restore it from a backup." in error) == (3, True), error


def test_a_port_that_is_taken_is_said_before_the_store_of_the_other_server_is_touched(tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, output, error = run(capsys, "--studies", tmp_path, "--store", tmp_path / "store", "--port", port)
    assert (code, output, f"port {port} is in use: choose another with --port." in error) == (3, "", True), error
    assert not (tmp_path / "store").exists()


def test_two_servers_do_not_share_a_store(tmp_path):
    """The second would call the trainings of the first interrupted, and clear away its images."""
    studies, conf = str(tmp_path), {"store": str(tmp_path / "store"), "bundles": "chest_xray_edsr_x4"}
    context = open_context(studies, conf)
    context.store.set_record("training", "job", {"state": "training"})
    with pytest.raises(ConflictError, match="a server has the store store open. Stop it"):
        open_context(studies, conf)
    assert context.store.record("training", "job") == {"state": "training"}
    context.close()
    open_context(studies, conf).close()


@pytest.mark.skipif(not os.path.exists("/proc/net/if_inet6"), reason="no IPv6 on this machine")
def test_a_port_that_is_taken_of_ipv4_alone_is_free_of_ipv6():
    with socket.create_server(("127.0.0.1", 0)) as other:
        label._require_free_port("::", other.getsockname()[1])


def test_monai_labels_own_command_starts_the_server_behind_the_guard(tmp_path):
    shutil.copytree(ROOT / "monailabel_app", tmp_path / "monailabel_app", ignore=shutil.ignore_patterns("tests"))
    (tmp_path / "studies").mkdir()
    PIL.Image.fromarray(np.zeros((16, 16), np.uint8)).save(tmp_path / "studies" / "a.png")
    port, log = free_port(), tmp_path / "log.txt"
    command = [
        sys.executable, "-m", "monailabel.main", "start_server", "--app", "monailabel_app", "--studies", "studies",
        "--uvicorn_app", "monailabel_app.server:app", "--host", "127.0.0.1", "--port", str(port),
        "--conf", "store", str(tmp_path / "store"), "--conf", "bundles", "chest_xray_edsr_x4",
    ]  # fmt: skip
    environment = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    with log.open("wb") as stream:
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=stream, stderr=stream)

    def info():
        assert process.poll() is None, log.read_text()
        try:
            return requests.get(f"http://127.0.0.1:{port}/info/", timeout=60).json()
        except requests.ConnectionError:
            return None

    try:
        content = wait_for(info, START_SECONDS, log)
        assert list(content["models"]) == ["boxes", "chest_xray_edsr_x4"]
        assert content["datastore"]["total"] == 1
        assert requests.post(f"http://127.0.0.1:{port}/reload", timeout=60).status_code == 404
        assert requests.get(f"http://127.0.0.1:{port}/", headers={"Host": "x.example"}, timeout=60).status_code == 401
    finally:
        process.terminate()
        process.wait(60)


def test_the_app_does_not_run_in_monai_labels_server(tmp_path):
    program = (
        "import labelling.compatibility\n"
        "from monailabel.interfaces.utils.app import app_instance\n"
        f"app_instance({str(ROOT / 'monailabel_app')!r}, {str(tmp_path)!r}, {{'store': {str(tmp_path / 'store')!r}}})\n"
    )
    path = os.pathsep.join([str(ROOT / "monailabel_app"), str(ROOT)])
    environment = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": path}
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert ended.returncode == 1
    assert "does not run in MONAI Label's own server" in ended.stderr
    assert not (tmp_path / "store").exists()
