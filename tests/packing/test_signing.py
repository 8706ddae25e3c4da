"""A signature covers all files of a bundle, and nothing of a bundle runs whose signature does not fit."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from monai_sr_bundle.__main__ import main
from monai_sr_bundle.errors import BundleError, InputError
from monai_sr_bundle.packing.signing import LARGEST_SIGNATURE, SIGNATURE, check_signature, sign

pytest.importorskip("model_signing", reason="signatures: model-signing is not installed (extra [signing])")

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

PASSWORD = "correct horse"


def write_keys(folder: Path, name: str, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> tuple[Path, Path]:
    """A private key and its public key, as files."""
    private, public = folder / name, folder / f"{name}.pub"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_keys(tmp_path_factory.mktemp("keys"), "release", ec.generate_private_key(ec.SECP256R1()))


@pytest.fixture
def folder(packed: Callable[[str], Path], keys: tuple[Path, Path], tmp_path: Path) -> Path:
    """A packed bundle that is signed."""
    copy = Path(shutil.copytree(packed("bicubic"), tmp_path / "bicubic"))
    assert sign(copy, keys[0]) == copy / SIGNATURE
    check_signature(copy, keys[1])
    return copy


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda at: (at / "configs/inference.yaml").write_text("run: []\n"), "Hash mismatch for 'configs/inference."),
        (lambda at: (at / "LICENSE").unlink(), "Missing files in model 'bicubic': LICENSE"),
        (lambda at: (at / "monai_sr_bundle/__pycache__").mkdir() or (at / "monai_sr_bundle/__pycache__/a.pyc").touch(),
         "Extra files found in model 'bicubic': monai_sr_bundle/__pycache__/a.pyc"),
        (lambda at: (at / ".git").mkdir() or (at / ".git/config").write_text("[core]\n"), ".git/config"),
        (lambda at: (at / ".gitattributes").write_text("* text\n"), ".gitattributes"),
        (lambda at: (at / "LICENSE").unlink() or (at / "LICENSE").symlink_to(at / "configs/metadata.json"), "LICENSE"),
    ],
)  # fmt: skip
def test_a_bundle_whose_files_changed_is_refused(folder, keys, change, message):
    change(folder)
    with pytest.raises(BundleError) as refused:
        check_signature(folder, keys[1])
    assert message in str(refused.value)
    assert "Run nothing of this bundle" in str(refused.value)


def test_a_clone_is_signed_with_the_files_of_git_and_through_a_link(folder, keys, tmp_path):
    (folder / ".gitattributes").write_text("* text\n")
    (tmp_path / "current").symlink_to(folder)
    sign(tmp_path / "current", keys[0])
    check_signature(tmp_path / "current", keys[1])
    (folder / ".gitattributes").unlink()
    with pytest.raises(BundleError, match="gitattributes"):
        check_signature(folder, keys[1])


def test_a_bundle_that_another_key_has_signed_is_refused(folder, tmp_path):
    _, other = write_keys(tmp_path, "other", ec.generate_private_key(ec.SECP256R1()))
    with pytest.raises(BundleError, match="Key mismatch"):
        check_signature(folder, other)


def test_a_signature_with_the_hint_of_the_right_key_and_other_bytes_is_refused(folder, keys, tmp_path):
    other, _ = write_keys(tmp_path, "other", ec.generate_private_key(ec.SECP256R1()))
    right = json.loads((folder / SIGNATURE).read_text())
    sign(folder, other)
    wrong = json.loads((folder / SIGNATURE).read_text())
    wrong["verificationMaterial"] = right["verificationMaterial"]
    (folder / SIGNATURE).write_text(json.dumps(wrong))
    with pytest.raises(BundleError, match="InvalidSignature: other key or content"):
        check_signature(folder, keys[1])


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b"\xff\xfe", b"[" * 100_000, b"1" * 5000, b" " * (LARGEST_SIGNATURE + 1)]
)
def test_a_damaged_signature_is_refused(folder, keys, content):
    (folder / SIGNATURE).write_bytes(content)
    with pytest.raises(BundleError, match=SIGNATURE if len(content) > LARGEST_SIGNATURE else "does not fit"):
        check_signature(folder, keys[1])


def test_a_bundle_without_a_signature_is_not_signed(folder, keys):
    (folder / SIGNATURE).unlink()
    with pytest.raises(BundleError, match="is not signed"):
        check_signature(folder, keys[1])


def test_what_is_no_key_is_refused(folder, keys, tmp_path):
    rsa_private, rsa_public = write_keys(tmp_path, "rsa", rsa.generate_private_key(65537, 2048))
    text = Path(shutil.copy(folder / "LICENSE", tmp_path / "text"))
    for no_key in (rsa_private, keys[1], text, tmp_path / "missing"):
        with pytest.raises(InputError, match="no private key"):
            sign(folder, no_key)
    for no_key in (rsa_public, keys[0], text, tmp_path / "missing"):
        with pytest.raises(InputError, match="no public key"):
            check_signature(folder, no_key)


def test_a_private_key_that_would_be_given_away_is_refused(folder, keys):
    shutil.copy(keys[0], folder / "docs" / "key")
    with pytest.raises(InputError, match="Move the private key first"):
        sign(folder, folder / "docs" / "key")


def test_what_is_no_packed_bundle_is_refused(keys, tmp_path):
    with pytest.raises(BundleError, match="no packed bundle"):
        sign(tmp_path, keys[0])
    with pytest.raises(BundleError, match="no packed bundle"):
        check_signature(tmp_path, keys[1])


def test_the_command_asks_for_the_password_of_an_encrypted_key(folder, tmp_path):
    key = ec.generate_private_key(ec.SECP384R1())
    _, public = write_keys(tmp_path, "release", key)
    encrypted = tmp_path / "encrypted"
    encrypted.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(PASSWORD.encode()))
    )
    with pytest.raises(InputError, match="no private key"):
        sign(folder, encrypted)
    command = [sys.executable, "-m", "monai_sr_bundle", "sign", str(folder), "--private-key", str(encrypted)]
    for password, code in ((PASSWORD, 0), ("wrong", 3)):
        # In a session of its own it has no terminal, and reads its standard input.
        ended = subprocess.run(
            command, input=f"{password}\n", capture_output=True, text=True, check=False, start_new_session=True
        )
        assert ended.returncode == code, ended.stderr
    check_signature(folder, public)


def test_the_command_runs_nothing_of_a_bundle_whose_signature_does_not_fit(folder, keys, capsys):
    (folder / "configs" / "inference.yaml").write_text("run: []\n")
    assert main(["verify", str(folder), "--signature", str(keys[1])]) == 4
    output = capsys.readouterr()
    assert output.out == ""
    assert "Hash mismatch for 'configs/inference.yaml'" in output.err


def test_the_command_says_whether_a_signature_was_checked(folder, keys, capsys):
    assert main(["verify", str(folder), "--signature", str(keys[1])]) == 0
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first == f"ok   signature by {keys[1]}"
    assert last.startswith("SHA-256 of the code")
    assert main(["verify", str(folder)]) == 0
    assert capsys.readouterr().out.endswith("\nSignature not checked: name the public key with --signature.\n")
    (folder / SIGNATURE).unlink()
    assert main(["verify", str(folder)]) == 0
    assert capsys.readouterr().out.endswith("\nNot signed.\n")
