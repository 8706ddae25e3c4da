"""Each check of `verify` fails for the one thing it is about."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import yaml

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


def test_a_missing_licence(folder):
    (folder / "LICENSE").unlink()
    assert only("necessary files", folder).startswith("missing: LICENSE.")


def test_a_missing_card(folder):
    (folder / "docs" / "README.md").unlink()
    assert only("preferred files", folder).startswith("missing: docs/README.md.")


def test_missing_inference(folder):
    (folder / "configs" / "inference.yaml").unlink()
    assert "has no inference.yaml" in only("preferred files", folder)


def test_a_version_without_a_word_of_what_changed(folder):
    change_metadata(folder, version="9.9.9")
    assert only("version in the changelog", folder) == "version 9.9.9 is not in the changelog (0.2.0, 0.1.0). Add it."


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"authors": None}, "$: 'authors' is a required property"),
        ({"version": "1"}, "$.version: '1' does not match"),
        ({"references": "a book"}, "$.references: 'a book' is not of type 'array'"),
        ({"vae_data_format": {}}, "$.vae_data_format: 'inputs' is a required property"),
        (
            {"network_data_format": {"inputs": {"image": {}}, "outputs": {"pred": 1}}},
            "$.network_data_format.inputs.image:",
        ),
    ],
)
def test_metadata_that_the_zoo_refuses(folder, changes, message):
    change_metadata(folder, **changes)
    assert message in only("metadata format", folder)


def test_damaged_weights(folder):
    weights = folder / "models" / "model.pt"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    assert "model.pt has SHA-256" in only("hashes of the weights", folder)


def test_weights_that_nobody_listed(folder):
    (folder / "models" / "old.pt").touch()
    assert only("hashes of the weights", folder).startswith("models/ holds old.pt")


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
    (check,) = verify(folder, only=["hashes of large files"])
    assert check.passed
    large.write_text(yaml.safe_dump({"large_files": [entry | {"hash_val": "0" * 32}]}))
    assert "expected 000000000000" in only("hashes of large files", folder)
    large.write_text(yaml.safe_dump({"large_files": [entry | {"path": "models/absent.pt"}]}))
    assert "models/absent.pt is not here. Get it from https://example.org/x" in only("hashes of large files", folder)


def test_a_file_above_25_mb(folder):
    with (folder / "docs" / "film.mp4").open("wb") as file:
        file.truncate(25 * 1024**2 + 1)
    assert "film.mp4" in only("file sizes", folder)


def test_a_key_twice(folder):
    with (folder / "configs" / "evaluate.yaml").open("a") as text:
        text.write("split: val\n")
    assert only("no key twice", folder).startswith("evaluate.yaml has split twice")


@pytest.mark.parametrize("path", ["/home/alice/data", "C:\\Users\\alice", "/Users/alice/x"])
def test_a_path_of_one_machine(folder, path):
    with (folder / "docs" / "README.md").open("a") as text:
        text.write(f"Run it on {path}/chest.\n")
    assert only("no path of one machine", folder).startswith("docs/README.md names ")


def test_a_path_of_this_machine_in_the_weights(folder):
    with (folder / "models" / "model.onnx").open("ab") as file:
        file.write(f"{folder.parent}/edsr.py".encode())
    assert only("no path of one machine", folder).startswith("models/model.onnx names ")


def test_code_that_is_missing(folder):
    (folder / "monai_sr_bundle" / "images" / "geometry.py").unlink()
    assert "no module images.geometry" in only("modules complete", folder)


def test_a_package_that_is_not_stated(folder):
    change_metadata(folder, required_packages_version={"pydicom": "3.0.2"})
    message = only("packages stated", folder)
    assert "nibabel, pillow, psutil" in message


def test_an_inference_config_without_an_inferer(folder):
    replace(folder / "configs" / "inference.yaml", "\ninferer:\n", "\ntiles:\n")
    assert "inferer" in only("properties for inference", folder)


def test_a_train_config_whose_inferer_has_another_name(folder):
    replace(folder / "configs" / "train.yaml", 'inferer: "@validate#inferer"', 'inferer: "@train#inferer"')
    assert only("properties for training", folder) == "missing or misnamed: val_inferer."


def test_weights_without_a_way_to_train_them(folder):
    (folder / "configs" / "train.yaml").unlink()
    assert "has parameters but no configs/train.yaml" in only("properties for training", folder)


def test_a_network_with_other_channels_than_stated(folder):
    metadata = json.loads((folder / "configs" / "metadata.json").read_text())
    metadata["network_data_format"]["outputs"]["pred"]["num_channels"] = 3
    change_metadata(folder, **metadata)
    assert "channel" in only("shapes in and out", folder)


def test_a_network_that_torchscript_cannot_hold(folder):
    replace(folder / "configs" / "inference.yaml", "blocks: 8", "blocks: 7")
    assert "does not belong to its network_def" in only("TorchScript", folder)


def test_an_onnx_file_of_other_weights(folder, packed):
    other = packed("bicubic") / "models" / "model.onnx"
    shutil.copyfile(other, folder / "models" / "model.onnx")
    metadata = json.loads((folder / "configs" / "metadata.json").read_text())
    hashes = metadata["weights_sha256"] | {"model.onnx": hashlib.sha256(other.read_bytes()).hexdigest()}
    change_metadata(folder, weights_sha256=hashes)
    assert "differs from PyTorch by" in only("ONNX equals PyTorch", folder)


def test_one_failure_does_not_stop_the_other_checks(folder):
    (folder / "configs" / "metadata.json").write_text("{ not json")
    names = ["necessary files", "metadata format", "ONNX equals PyTorch", "no key twice"]
    found = {check.name: check.passed for check in verify(folder, only=names)}
    assert found == {
        "necessary files": True,
        "metadata format": False,
        "no key twice": True,
        "ONNX equals PyTorch": False,
    }


def test_a_path_that_is_no_folder(tmp_path):
    with pytest.raises(BundleError, match="is not a folder"):
        list(verify(tmp_path / "nothing"))
