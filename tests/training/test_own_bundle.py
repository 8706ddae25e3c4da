"""docs/training.md: from a folder of DICOM files to a packed, verified bundle under one's own name."""

import json
import re
import shlex
import shutil
import subprocess
from itertools import count
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from monai_sr_bundle.__main__ import main
from monai_sr_bundle.calibrate import loss_curve
from monai_sr_bundle.datasets.ct_folder import patient_name
from monai_sr_bundle.datasets.make_manifest import assign_split
from monai_sr_bundle.datasets.phantom import write_phantom_dicom
from monai_sr_bundle.errors import InputError
from monai_sr_bundle.networks.edsr import EDSR
from monai_sr_bundle.shipped_bundles import find_bundle
from monai_sr_bundle.training.image_sets import with_image_sets
from monai_sr_bundle.training.training import open_training

from tests.changed_bundles import copied, with_metadata
from tests.tiny_bundle import NETWORKS
from tests.with_error_bars import write_windows

PAGE = Path(__file__).parents[2] / "docs" / "training.md"
NAME = "chest_xray_edsr_x4"
LENGTHS = {"--minutes 60": "--iterations 3", "--minutes 2": "--iterations 3"}


def commands():
    """The commands of the page's first section, in their order."""
    section = PAGE.read_text(encoding="utf-8").split("\n## ")[1]
    return [line for block in re.findall(r"```\n(.*?)```", section, flags=re.DOTALL) for line in block.splitlines()]


def write_films(folder):
    """DICOM radiographs of patients of whom some are trained on, some validate and some test."""
    folder.mkdir()
    write_phantom_dicom(folder / "first.dcm", 256)
    film = pydicom.dcmread(folder / "first.dcm")
    (folder / "first.dcm").unlink()
    pixels, missing = film.pixel_array, {"train": 3, "val": 12, "test": 1}
    for index in count():
        film.PatientID = f"patient {index}"
        split = assign_split(patient_name(film))
        if missing[split]:
            missing[split] -= 1
            film.PixelData = np.roll(pixels, (index, 16 * index), axis=(0, 1)).tobytes()
            film.save_as(folder / f"{index}.dcm")
        if not any(missing.values()):
            return


def replace_lines(path, **values):
    """Replace the values of keys in a YAML text, as a reader with an editor does."""
    text = path.read_text(encoding="utf-8")
    for key, value in values.items():
        text, count_ = re.subn(rf"^( *{key}): .*$", rf"\1: {value}", text, flags=re.MULTILINE)
        assert count_ == 1, key
    path.write_text(text, encoding="utf-8")


def write_shipped_bundle(folder):
    """The bundle that the page copies, with a network of a size for tests."""
    bundle = copied(folder, NAME)
    replace_lines(bundle / "model.yaml", reduce=1, patch_size=8, batch_size=2, **NETWORKS[NAME])
    torch.save(EDSR(4, **NETWORKS[NAME]).state_dict(), bundle / "model.pt")


def edit(bundle):
    """Change in the copy what the page tells its reader to change."""
    replace_lines(bundle / "model.yaml", sets="[my_hospital]")
    with_metadata(bundle, name="Radiographs of my hospital", data_source="my hospital", eval_metrics=None)


@pytest.mark.slow
def test_every_command_of_the_page_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loss_curve, "LEAST_IMAGES", 12)
    monkeypatch.setattr(loss_curve, "LEAST_PATIENTS", 12)
    write_films(tmp_path / "DICOM")
    shutil.copyfile(next((tmp_path / "DICOM").iterdir()), tmp_path / "film.dcm")
    write_shipped_bundle(tmp_path / "configs")
    names = []
    for command in commands():
        for minutes, iterations in LENGTHS.items():
            command = command.replace(minutes, iterations)
        program, *words = shlex.split(command)
        names.append(words[0] if program == "monai-sr" else program)
        if program == "monai-sr":
            assert main(words) == 0, f"{command}\n{capsys.readouterr()}"
        else:
            subprocess.run([program, *words], check=True)
        if program == "rm":
            edit(Path("my_chest_xray_x4"))
    assert names == [
        *("prepare", "cp", "rm", "train", "export", "evaluate", "train", "export", "export", "calibrate"),
        *("pack", "verify", "enhance"),
    ]
    metadata = json.loads(Path("packed/my_chest_xray_x4/configs/metadata.json").read_text())
    assert metadata["name"] == "Radiographs of my hospital"
    stage = metadata["training"]["stages"][-1]
    assert (stage["bundle"], stage["sets"], stage["iterations"]) == ("my_chest_xray_x4", ["my_hospital"], 3)
    assert Path("packed/my_chest_xray_x4/configs/calibration.json").is_file()
    assert len(list(Path("results").iterdir())) >= 1


@pytest.fixture
def hospitals(tmp_path):
    write_windows(tmp_path, "first", {"train": 1, "val": 1})
    return write_windows(tmp_path, "second", {"train": 1, "val": 1}, seed=1)


def test_own_data_is_taken_where_that_of_the_bundle_is_not(hospitals):
    bundle = find_bundle("chest_xray_edsr_x4")
    assert with_image_sets(bundle, hospitals).facts["sets"] == ["first", "second"]
    assert with_image_sets(bundle, hospitals / "first").facts["sets"] == ["first"]
    assert with_image_sets(bundle, hospitals, ["second"]).facts["sets"] == ["second"]
    write_windows(hospitals, "cxr_nih", {"train": 1})
    assert with_image_sets(bundle, hospitals).facts["sets"] == ["cxr_nih"]
    assert bundle.facts["sets"] == ["cxr_nih"]


def test_the_sources_of_every_stage_are_the_image_sets_that_are_taken(hospitals):
    bundle = find_bundle("chest_xray_blind")
    facts = with_image_sets(bundle, hospitals, ["second"]).facts
    assert (facts["films"], facts["validation_films"], facts["error_bars_films"]) == (
        [["second", 1, 1.0]],
        [["second", 1]],
        [["second", 1, 1.0]],
    )
    for name in bundle.facts["sets"]:
        write_windows(hospitals, name, {"train": 1, "val": 1})
    assert with_image_sets(bundle, hospitals).facts == bundle.facts
    adults = with_image_sets(bundle, hospitals, ["cxr_nih"]).facts
    assert adults["films"] == [source for source in bundle.facts["films"] if source[0] == "cxr_nih"]
    assert adults["validation_films"] == [["cxr_nih", 2]]
    children = with_image_sets(bundle, hospitals, ["cxr_pediatric_train"]).facts
    assert children["validation_films"] == [["cxr_pediatric_train", 1]]


def test_films_of_the_named_image_sets_are_trained_on(hospitals, tmp_path):
    start = tmp_path / "single.pt"
    torch.save(EDSR(4, channels=4, blocks=1).state_dict(), start)
    for name in ("cxr_nih", "cxr_native", "cxr_pediatric_train"):
        write_windows(hospitals, name, {"train": 2, "val": 1})
    network = {"network_def#channels": 4, "network_def#dilations": [1], "network_def#flow_channels": 4}
    options = {"stage": "films", "start": start, "patch_size": 8, "limit": 9, **network}
    training = open_training("chest_xray_blind", hospitals, tmp_path / "run", sets=["second"], **options)
    assert [len(films) for films in training._content("train#dataset").images] == [1]
    assert len(training._content("validate#dataset")) == 1


def test_image_sets_that_are_not_there_are_named(hospitals):
    bundle = find_bundle("chest_xray_edsr_x4")
    with pytest.raises(InputError, match="no image set named third; there is first, second. Name those to train on wi"):
        with_image_sets(bundle, hospitals, ["first", "third"])
    with pytest.raises(InputError, match="no ct train image; there is cxr"):
        with_image_sets(find_bundle("chest_ct_edsr_x4"), hospitals)


def test_one_line_says_which_image_sets_are_taken(hospitals, tmp_path, capsys):
    options = ["--iterations", "1", "--out", str(tmp_path / "out"), "--progress", "none"]
    # It stops at the weights to start from, after the line.
    words = ["train", "chest_xray_edsr_x4", "--data", str(hospitals), *options, "--start", str(tmp_path / "none.pt")]
    for sets, line in (([], "first, second"), (["--sets", "second,first"], "second, first")):
        assert main([*words, *sets]) == 3
        expected = f"image sets to train on: {line} (the bundle's own: cxr_nih)\n"
        assert capsys.readouterr().out == expected
