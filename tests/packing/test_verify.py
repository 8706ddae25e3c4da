"""Each check of `verify` fails for the one thing it is about."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
import yaml
from monai_sr_bundle.__main__ import main
from monai_sr_bundle.errors import BundleError
from monai_sr_bundle.packing.verify import verify


@pytest.fixture
def folder(packed, tmp_path):
    """A packed bundle, to break."""
    return Path(shutil.copytree(packed("chest_xray_edsr_x4"), tmp_path / "chest_xray_edsr_x4"))


def only(name: str, folder: Path) -> str:
    """The message of one check, which failed."""
    (check,) = verify(folder, only=[name])
    assert check.name == name
    assert not check.passed
    return check.message


def change_metadata(folder: Path, **changes: object) -> None:
    path = folder / "configs" / "metadata.json"
    metadata = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in metadata.items() if value is not None}))


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def append(path: Path, content: str) -> None:
    with path.open("a") as text:
        text.write(content)


def enlarge(path: Path, size: int) -> None:
    path.touch()
    os.truncate(path, size)


@pytest.mark.parametrize(
    ("damage", "check", "message"),
    [
        (lambda at: (at / "LICENSE").unlink(), "necessary files", "missing: LICENSE."),
        (lambda at: (at / "models/model.pt").unlink(), "preferred files", "missing: models/model.pt."),
        (lambda at: [path.unlink() for path in at.glob("configs/inference.*")], "preferred files",
         "has no inference.yaml"),
        (lambda at: change_metadata(at, version="9.9.9"), "version in the changelog",
         "version 9.9.9 is not in the changelog (0.2.0, 0.1.0). Add it."),
        (lambda at: (at.parent / "model_info.json").write_text(json.dumps({"chest_xray_edsr_x4_v0.2.0": {}})),
         "version in the changelog", "version 0.2.0 is published already. Raise it"),
        (lambda at: append(at / "models/model.pt", "!"), "hashes of the weights", "model.pt has SHA-256"),
        (lambda at: (at / "models/old.pt").touch(), "hashes of the weights", "models/ holds old.pt"),
        (lambda at: enlarge(at / "docs/film.mp4", 25 * 1024**2 + 1), "sizes", "film.mp4"),
        (lambda at: enlarge(at / "docs/film.mp4", 16 * 1024**2), "sizes", "MiB, expected at most 16. Make"),
        (lambda at: append(at / "configs/evaluate.yaml", "split: val\n"), "no key twice",
         "evaluate.yaml has split twice"),
        (lambda at: append(at / "configs/evaluate.yaml", "more: 1\n"), "JSON as YAML",
         "evaluate.json differs from evaluate.yaml"),
        (lambda at: append(at / "docs/README.md", "Run it on /home/alice/data/chest."), "no path of one machine",
         "docs/README.md names "),
        (lambda at: append(at / "docs/README.md", "Run it on C:\\Users\\alice/chest."), "no path of one machine",
         "docs/README.md names "),
        (lambda at: append(at / "docs/README.md", "Run it on /Users/alice/x/chest."), "no path of one machine",
         "docs/README.md names "),
        (lambda at: append(at / "models/model.onnx", f"{at.parent}/edsr.py"), "no path of one machine",
         "models/model.onnx names "),
        (lambda at: (at / "monai_sr_bundle/images/geometry.py").unlink(), "code and packages",
         "no module images.geometry"),
        (lambda at: change_metadata(at, required_packages_version={"pydicom": "3.0.2"}), "code and packages",
         "nibabel, pillow, psutil"),
        (lambda at: replace(at / "configs/inference.yaml", "\ninferer:\n", "\ntiles:\n"), "properties for inference",
         "inferer"),
        (lambda at: replace(at / "configs/train.yaml", 'inferer: "@validate#inferer"', 'inferer: "@train#inferer"'),
         "properties for training", "missing or misnamed: val_inferer."),
        (lambda at: (at / "configs/train.yaml").unlink(), "properties for training",
         "has parameters but no configs/train.yaml"),
        (lambda at: replace(at / "configs/inference.yaml", "blocks: 8", "blocks: 7"), "TorchScript",
         "loading state_dict for EDSR"),
        (lambda at: replace(at / "configs/inference.yaml", "blocks: 8", "blocks: 7"), "ONNX equals PyTorch",
         "does not belong to its network_def"),
    ],
)  # fmt: skip
def test_a_damaged_bundle_fails_the_check_of_that_damage(folder, damage, check, message):
    damage(folder)
    assert message in only(check, folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"authors": None}, "$: 'authors' is a required property"),
        ({"version": "1"}, "$.version: '1' does not match"),
        ({"references": "a book"}, "$.references: 'a book' is not of type 'array'"),
        ({"vae_data_format": {}}, "$.vae_data_format: 'inputs' is a required property"),
        ({"network_data_format": {"inputs": {"image": {}}, "outputs": {"pred": 1}}}, "$.network_data_format.inputs.im"),
    ],
)
def test_metadata_that_the_zoo_refuses(folder, changes, message):
    change_metadata(folder, **changes)
    assert message in only("metadata format", folder)


def test_a_large_file_that_is_another(folder):
    content = (folder / "models" / "model.pt").read_bytes()
    entry = {
        "path": "models/model.pt",
        "url": "https://example.org/x",
        "hash_type": "md5",
        "hash_val": hashlib.md5(content).hexdigest(),
    }
    large = folder / "large_files.yml"
    large.write_text(yaml.safe_dump({"large_files": [entry]}))
    (check,) = verify(folder, only=["large files"])
    assert check.passed
    large.write_text(yaml.safe_dump({"large_files": [entry | {"hash_val": "0" * 32}]}))
    assert "expected 000000000000" in only("large files", folder)
    large.write_text(yaml.safe_dump({"large_files": [entry | {"path": "models/absent.pt"}]}))
    assert "models/absent.pt is not here. Get it from https://example.org/x" in only("large files", folder)


def test_a_network_with_other_channels_than_stated(folder):
    metadata = json.loads((folder / "configs" / "metadata.json").read_text())
    metadata["network_data_format"]["outputs"]["pred"]["num_channels"] = 3
    change_metadata(folder, **metadata)
    assert "channel" in only("shapes in and out", folder)


def test_an_onnx_file_of_other_weights(folder, packed):
    other = packed("bicubic") / "models" / "model_x4.onnx"
    shutil.copyfile(other, folder / "models" / "model.onnx")
    metadata = json.loads((folder / "configs" / "metadata.json").read_text())
    hashes = metadata["weights_sha256"] | {"model.onnx": hashlib.sha256(other.read_bytes()).hexdigest()}
    change_metadata(folder, weights_sha256=hashes)
    assert "differs from PyTorch by" in only("ONNX equals PyTorch", folder)


def test_one_failure_does_not_stop_the_other_checks(folder):
    (folder / "configs" / "metadata.json").write_text("{ not json")
    names = ["necessary files", "metadata format", "ONNX equals PyTorch", "no key twice"]
    passed = {check.name for check in verify(folder, only=names) if check.passed}
    assert passed == {"necessary files", "no key twice"}


def test_what_a_bundle_says_reaches_the_terminal_in_one_line_a_check(folder, capsys):
    change_metadata(folder, version="9\n\x1b[2Jok   signature")
    assert main(["verify", str(folder)]) == BundleError.exit_code
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "\nok   signature" not in printed
    assert "FAIL version in the changelog: version 9 ?[2Jok   signature is not in the changelog" in printed


@pytest.mark.parametrize("command", ["verify", "train"])
def test_a_command_that_runs_the_texts_of_a_bundle_says_so(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "may hold any program" in text


def test_a_path_that_is_no_folder(tmp_path):
    with pytest.raises(BundleError, match="is not a folder"):
        list(verify(tmp_path / "nothing"))


def test_a_folder_that_is_no_bundle(tmp_path, capsys):
    (tmp_path / "configs" / "my_bundle").mkdir(parents=True)
    assert main(["verify", str(tmp_path)]) == BundleError.exit_code
    printed = capsys.readouterr()
    assert f"{tmp_path} is not a packed bundle: it has neither configs/metadata.json nor" in printed.err
    assert "Name a folder made by `monai-sr pack`." in printed.err
    assert "FAIL" not in printed.out


def test_only_what_torchscript_cannot_compile_is_excused_of_a_diffusion_bundle(packed, tmp_path):
    folder = Path(shutil.copytree(packed("chest_xray_sr3_x4"), tmp_path / "chest_xray_sr3_x4"))
    for _ in range(2):
        (check,) = verify(folder, only=["TorchScript"])
        assert (check.passed, check.exclusion) == (True, "exclude_verify_torchscript_list")
    (folder / "models" / "model.pt").write_bytes(b"no weights")
    only("TorchScript", folder)
