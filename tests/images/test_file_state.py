"""A report never has the hash of a file that was not read."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from monai_sr_bundle import enhance
from monai_sr_bundle.errors import InputError
from monai_sr_bundle.images import files, picture
from monai_sr_bundle.images.file_state import file_states, require_unchanged
from monai_sr_bundle.images.files import discover
from monai_sr_bundle.images.one_image import read_one
from PIL import Image as Picture

from tests.images.dicom_files import ct_series, phantom, radiograph, zipped


def draw(path: Path, bright: int = 200) -> Path:
    Picture.fromarray(phantom(dtype="uint8", bright=bright)[0]).save(path)
    return path


def test_a_report_has_the_hash_of_the_file_that_was_read(tmp_path):
    path = draw(tmp_path / "film.png")
    report = enhance(path, "bicubic", backend="onnx").report()
    assert report["source"]["files"] == [{"name": "film.png", "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}]


def test_no_report_is_made_of_a_file_that_was_replaced_after_it_was_read(tmp_path):
    result = enhance(draw(tmp_path / "film.png"), "bicubic", backend="onnx")
    draw(tmp_path / "other.png", bright=100).replace(tmp_path / "film.png")
    with pytest.raises(InputError, match=r"film\.png: was changed while it was in use"):
        result.report()


@pytest.mark.parametrize("what", ["size", "time", "place on the disk"])
def test_a_change_is_seen_by_any_one_of_size_time_and_place(tmp_path, what):
    path, other = tmp_path / "film.png", tmp_path / "other.png"
    path.write_bytes(b"older")
    (before,) = states = file_states([path])
    if what == "place on the disk":
        other.write_bytes(b"newer")
        other.replace(path)
    path.write_bytes(b"longer" if what == "size" else b"newer")
    moment = before.changed_ns + (what == "time")
    os.utime(path, ns=(moment, moment))
    with pytest.raises(InputError, match=r"film\.png: was changed while it was in use"):
        require_unchanged(states)


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path, monkeypatch):
    path = draw(tmp_path / "film.png")
    read_picture = picture.read_picture

    def read_and_change(file: Path):
        image = read_picture(file)
        draw(file, bright=7)
        return image

    monkeypatch.setattr(files.picture, "read_picture", read_and_change)
    with pytest.raises(InputError, match=r"film\.png: was changed"):
        read_one(path)


def test_a_file_that_goes_while_it_is_in_use_is_told(tmp_path):
    with discover([radiograph(tmp_path / "film.dcm")]) as (source,):
        (tmp_path / "film.dcm").unlink()
        with pytest.raises(InputError, match=r"film\.dcm: cannot be found any more"):
            files.read(source)


def test_the_state_of_a_zip_is_that_of_the_moment_when_it_was_unpacked(tmp_path):
    path = zipped(tmp_path / "ct.zip", ct_series(tmp_path / "ct", phantom(slices=3)))
    with discover([path]) as (source,):
        image = files.read(source)
    assert [state.path for state in image.file_states] == [path]
