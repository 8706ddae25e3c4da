"""The process behind a viewer, as a viewer meets it: a real one, its lines, its signals and what it leaves behind."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from datetime import datetime
from functools import cache
from pathlib import Path

import monai_sr_bundle
import numpy as np
import pytest
from monai_sr_bundle import enhance
from monai_sr_bundle.__main__ import main
from monai_sr_bundle.datasets.phantom import draw_phantom
from monai_sr_bundle.engine.estimate import Speed
from monai_sr_bundle.images.from_array import image_from_array
from monai_sr_bundle.images.nifti import read_nifti
from monai_sr_bundle.images.provenance import Provenance, Sampling
from monai_sr_bundle.report.preview import format_number
from monai_sr_bundle.shipped_bundles import all_bundles, configs_dir, default_bundle
from monai_sr_bundle.worker.messages import Events
from monai_sr_bundle.worker.server import LONGEST_LINE, Worker, for_viewers
from PIL import Image as Picture

from tests.cli.test_batches import ct_of_smooth_noise
from tests.images.dicom_files import radiograph

ROOT = Path(__file__).parents[2]
GOOD = {"do": "enhance", "id": 9, "modality": "CXR", "region": [0, 1, 0, 16, 0, 16]}
FLOW, EDSR, SEVERAL, NEIGHBOURS, THROUGH = (
    "chest_xray_residual_flow_x4", "chest_xray_edsr_x4", "chest_xray_blind", "chest_ct_residual_flow_x4",
    "chest_ct_throughplane",
)  # fmt: skip
PATIENT = "DOE^JANE_19700101"
PATIENCE = 600
"""Seconds; only what hangs takes as long."""


class Started:
    """A worker process and the folder of the viewer that started it."""

    def __init__(self, folder: Path, *words: str, path: Path = ROOT, python: tuple[str, ...] = ()) -> None:
        self.folder = folder
        self.log = folder / "log"
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (path, ROOT)))}
        command = [sys.executable, *python, "-m", "monai_sr_bundle.worker", *(words or ("--backend", "onnx"))]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
            )
        self.first = self.next()

    def next(self) -> dict:
        """The next event; every line of stdout is one."""
        return json.loads(self.process.stdout.readline())

    def send(self, *lines: bytes | dict) -> None:
        for line in lines:
            self.process.stdin.write(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n")
        self.process.stdin.flush()

    def ask(self, line: bytes | dict) -> dict:
        """The answer to a request, without its progress."""
        self.send(line)
        while (event := self.next())["event"] == "progress":
            pass
        return event

    def enhance(self, pixels: np.ndarray, region, **fields) -> dict:
        """The answer, and the arrays it names."""
        number = len(list(self.folder.iterdir()))
        np.save(self.folder / f"in{number}.npy", pixels)
        out = self.folder / f"out{number}"
        out.mkdir()
        request = {"do": "enhance", "id": number, "array": str(self.folder / f"in{number}.npy"), "out": str(out)}
        answer = self.ask({**request, "region": region, "modality": "CXR", **fields})
        if answer["event"] == "done":
            assert Path(answer["result"]).parent == out
            answer["pixels"] = np.load(answer["result"], allow_pickle=False)
            answer["bars"] = np.load(answer["errorBars"]) if answer["errorBars"] else None
        return answer

    def end(self) -> int:
        self.process.stdin.close()
        return self.process.wait(PATIENCE)


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    """One for all requests that leave it as it was."""
    started = Started(tmp_path_factory.mktemp("viewer"))
    yield started
    assert started.end() == 0


@pytest.fixture
def start_worker(tmp_path):
    """Return a function that starts a worker which a test may end."""
    workers: list[Started] = []

    def start(*words: str, **options) -> Started:
        folder = tmp_path / f"viewer{len(workers)}"
        folder.mkdir()
        workers.append(Started(folder, *words, **options))
        return workers[-1]

    yield start
    for worker in workers:
        worker.process.kill()
        worker.process.wait()


@cache
def chest() -> np.ndarray:
    return draw_phantom(96)


def film(size=96):
    return np.rint(chest()[:size, :size] * 255).astype(np.uint8)[None]


def npy(array) -> bytes:
    """Return the content of a .npy file."""
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def request_in(folder: Path, content: bytes, **fields) -> dict:
    """Write the content of an array into a folder, make a folder for the result, and return the request."""
    (folder / "in.npy").write_bytes(content)
    (folder / "out").mkdir()
    return {**GOOD, "array": str(folder / "in.npy"), "out": str(folder / "out"), **fields}


def volume(slices=7, side=40):
    film = np.tile(chest(), (8, 8))[:side, :side]
    return np.rint(np.stack([np.roll(film, index, axis=0) for index in range(slices)]) * 1400 - 1000).astype(np.int16)


def test_the_first_line_says_that_it_is_ready(worker):
    ready = worker.first
    assert (ready["event"], ready["protocol"]) == ("ready", 1)
    assert (ready["version"], ready["backend"]) == (monai_sr_bundle.__version__, "onnx")
    assert ready["pid"] == worker.process.pid


def test_it_lists_every_bundle_with_what_a_panel_shows(worker):
    listed = {each["name"]: each for each in worker.ask({"do": "bundles", "id": "list"})["bundles"]}
    assert list(listed) == [bundle.name for bundle in all_bundles()]
    flow = listed[FLOW]
    assert all(flow[key] is True for key in ("textures", "hasErrorBars", "generative"))
    assert {name for name in listed if listed[name]["default"]} == {SEVERAL, "chest_ct_blind"}
    assert (flow["scaleZYX"], flow["steps"], flow["modality"], flow["lacks"]) == ([1, 4, 4], 8, "CXR", None)
    assert listed[THROUGH]["scaleZYX"] == [4, 1, 1]
    assert listed[THROUGH]["operator"] == "slab_area_x4"
    assert listed[THROUGH]["scales"] == [2, 4]
    assert listed[NEIGHBOURS]["slices"] == 3
    assert (listed[SEVERAL]["scale"], listed[SEVERAL]["scales"]) == (4, [2, 3, 4])
    assert (listed[EDSR]["scale"], listed[EDSR]["scales"]) == (4, [4])
    assert [listed[EDSR][key] for key in ("textures", "generative", "steps")] == [False, False, None]
    assert all(each["title"] and each["description"] for each in listed.values())


def test_a_bundle_without_onnx_says_what_to_do(worker):
    lacks = {bundle["name"]: bundle["lacks"] for bundle in worker.ask({"do": "bundles"})["bundles"]}
    complete = {name for name in lacks if lacks[name] is None}
    assert complete == {"bicubic", EDSR, "chest_ct_edsr_x4", "chest_ct_blind", SEVERAL, FLOW, NEIGHBOURS, THROUGH}
    other = "chest_ct_runet_x2"
    message = f"bundle {other} has no model.onnx. Run `monai-sr export {other}`, or use backend torch."
    assert lacks[other] == message
    failed = worker.enhance(volume(), [0, 7, 0, 40, 0, 40], modality="CT", bundle=other)
    assert (failed["kind"], failed["message"]) == ("bundle", message)


def test_a_broken_bundle_says_so_and_hides_no_other(start_worker, tmp_path):
    package = tmp_path / "copy"
    shutil.copytree(ROOT / "monai_sr_bundle", package / "monai_sr_bundle", ignore=shutil.ignore_patterns("__pycache__"))
    for name in (EDSR, "bicubic"):
        (package / "configs" / name).mkdir(parents=True)
        for file in ("model.yaml", "metadata.json", *(path.name for path in (configs_dir() / name).glob("*.onnx"))):
            shutil.copy(configs_dir() / name / file, package / "configs" / name)
    (package / "configs" / EDSR / "metadata.json").write_text("{}")
    bundles = start_worker(path=package).ask({"do": "bundles"})["bundles"]
    broken, whole = sorted(bundles, key=lambda bundle: bundle["name"] != EDSR)
    assert set(broken) == {"name", "lacks"}
    assert "metadata.json has no version" in broken["lacks"]
    assert (whole["name"], whole["lacks"]) == ("bicubic", None)


@pytest.mark.parametrize("backend", ["onnx", "torch"])
def test_pixels_error_bars_and_figures_are_those_of_the_command_line(start_worker, tmp_path, backend):
    pixels = film()
    Picture.fromarray(pixels[0]).save(tmp_path / "film.png")
    words = [
        "--bundle",
        FLOW,
        "--backend",
        backend,
        "--roi",
        "20",
        "10",
        "60",
        "40",
        "--error-bars",
        "--tolerance",
        "9",
        "--report",
    ]
    assert main(["enhance", str(tmp_path / "film.png"), str(tmp_path / "sr.png"), *words, "--quiet"]) == 0
    report = json.loads((tmp_path / "sr.report.json").read_text())
    fields = {"bundle": FLOW, "errorBars": True, "tolerance": 9}
    done = start_worker("--backend", backend).enhance(pixels, [0, 1, 10, 40, 20, 60], **fields)
    np.testing.assert_array_equal(done["pixels"][0], np.asarray(Picture.open(tmp_path / "sr.png")))
    np.testing.assert_array_equal(done["bars"][0], np.asarray(Picture.open(tmp_path / "sr_error_bar.tif")))
    assert done["bars"].dtype == np.float32
    assert (done["bundle"], done["sha256"]) == (report["model"]["name"], report["model"]["weights_sha256"])
    assert done["scaleZYX"] == report["model"]["scale_zyx"]
    after, before, bars = *(report["consistency"][name] for name in ("result", "network")), report["error_bars"]
    assert (done["consistency"]["rms"], done["consistency"]["max"]) == (after["rms"], after["maximum"])
    assert (done["consistency"]["rmsBefore"], done["consistency"]["maxBefore"]) == (before["rms"], before["maximum"])
    assert f"(before data consistency {format_number(before['rms'])} RMS, " in done["provenance"]["findings"]
    assert done["consistency"]["unit"] == done["coverage"]["unit"] == "grey levels"
    assert done["coverage"]["promised"] == bars["percent"] / 100 == 0.9
    assert done["coverage"]["meanHalfWidth"] == bars["mean"]
    assert done["coverage"]["shareAboveTolerance"] == bars["share_above_tolerance"]
    assert "80 images of 71 patients (cxr_nih, val split" in done["coverage"]["calibratedOn"]
    assert {*report["warnings"]} <= {*done["warnings"]}
    assert (done["generative"], done["synthetic"], done["removed"]) == (True, False, None)


def test_a_radiograph_is_that_of_its_file_whether_its_reader_inverts_monochrome1_or_not(worker, tmp_path):
    stored = np.rint(chest()[:48, :40] * 4095).astype(np.uint16)
    source = radiograph(tmp_path / "chest.dcm", stored)
    expected = enhance(source, FLOW, backend="onnx", roi=(8, 4, 40, 44)).image.pixels
    fields = {"region": [0, 1, 4, 44, 8, 40], "bundle": FLOW, "storedRange": [0, 4095], "spacingZYX": [1.0, 0.2, 0.1]}
    as_stored = worker.enhance(stored[None], blackIsHigh=True, **fields)
    np.testing.assert_array_equal(as_stored["pixels"], expected)
    assert as_stored["pixels"].dtype == np.uint16
    inverted = worker.enhance(4095 - stored[None], **fields)
    np.testing.assert_array_equal(4095 - inverted["pixels"], expected)


def test_a_message_for_a_panel_names_no_options_but_those_of_whole_commands():
    message = "Choose a smaller region with --roi, use --backend onnx, or run `monai-sr calibrate X --data DIR`."
    expected = "Choose a smaller region, use backend onnx, or run `monai-sr calibrate X --data DIR`."
    assert for_viewers(message) == expected


def test_provenance_travels_whole(worker):
    done = worker.enhance(film(), [0, 1, 0, 16, 8, 24], bundle=FLOW, texture=1.0, steps=1, seed=7)
    fields = done["provenance"]
    assert set(fields) == {field.name for field in dataclasses.fields(Provenance)}
    provenance = Provenance(**{**fields, "sampling": Sampling(**fields["sampling"])})
    assert provenance.sentence == done["sentence"]
    assert provenance.roi_xyxy == [8, 0, 24, 16]
    assert provenance.slices is None
    assert (provenance.seed, provenance.sampling.words) == (7, "texture 1 by flow in 1 step")
    assert "differs from the input by" in provenance.findings
    assert datetime.fromisoformat(provenance.created).tzinfo
    assert done["synthetic"]


@pytest.mark.parametrize(
    ("name", "fields"), [(NEIGHBOURS, {}), (NEIGHBOURS, {"texture": 1.0, "steps": 1}), (THROUGH, {})]
)
def test_a_region_of_a_volume_is_the_crop_of_the_whole_along_the_slices_too(worker, packed, name, fields):
    name = str(packed(name)) if name == THROUGH else name
    whole = enhance(image_from_array(volume(), modality="CT"), name, backend="onnx", **fields).image.pixels
    done = worker.enhance(volume(), [2, 5, 8, 30, 4, 36], modality="CT", bundle=name, **fields)
    z, y, x = done["scaleZYX"]
    assert done["pixels"].shape == (z * 3, y * 22, x * 32)
    expected = whole[z * 2 : z * 5, y * 8 : y * 30, x * 4 : x * 36]
    np.testing.assert_array_equal(done["pixels"], expected)
    assert done["consistency"]["unit"] == "HU"
    assert done["provenance"]["slices"] == [2, 5]


def test_a_slice_sees_neighbours_from_outside_its_region(worker):
    changed = volume()
    changed[4] = -1000
    fields = {"modality": "CT", "bundle": NEIGHBOURS}
    one, other = (worker.enhance(each, [3, 4, 0, 40, 0, 40], **fields) for each in (volume(), changed))
    assert (one["pixels"] != other["pixels"]).any()


def test_float32_of_the_default_bundle_stays_in_hounsfield_units(worker):
    done = worker.enhance(volume().astype(np.float32), [0, 1, 0, 40, 0, 40], modality="CT")
    assert (done["pixels"].dtype, done["bundle"]) == (np.float32, default_bundle("CT").name)
    assert abs(float(done["pixels"].mean()) - float(volume()[0].mean())) < 5


@pytest.mark.parametrize(
    ("fields", "warning"),
    [
        ({"bundle": "chest_ct_edsr_x4", "force": True}, "was forced onto CXR"),
        ({"bundle": "bicubic", "errorBars": True}, "No error bars: bicubic has none that are calibrated."),
    ],
)
def test_an_image_that_is_forced_or_has_no_error_bars_comes_with_a_warning(worker, fields, warning):
    done = worker.enhance(film(), [0, 1, 0, 16, 0, 16], **fields)
    assert any(warning in each for each in done["warnings"])
    assert (done["errorBars"], done["coverage"]) == (None, None) or not fields.get("errorBars")


def test_what_a_sharp_kernel_and_more_grain_mean_is_told_as_by_the_command_line(worker, tmp_path):
    ct_of_smooth_noise(tmp_path / "ct.nii.gz", hu=5, seed=0)
    fields = {"modality": "CT", "scale": 2, "errorBars": True, "kernel": "BONE"}
    hu = read_nifti(tmp_path / "ct.nii.gz").pixels
    planned = worker.ask(plan(96, **fields, bundle=None, shape=[1, 96, 96]))
    done = worker.enhance(hu, [0, 1, 0, 96, 0, 96], **fields)
    narrow = "Its error bars are too narrow: on sharp kernels as BONE they held 57 to 91 % of pixels in tests."
    assert narrow in planned["warnings"]
    assert narrow in done["warnings"]
    assert any(sentence.startswith("In the evenest parts the result varies 1.") for sentence in done["warnings"])
    soft = worker.enhance(hu, [0, 1, 0, 96, 0, 96], **{**fields, "kernel": "B30f"})
    assert narrow not in soft["warnings"]


def test_progress_rises_to_the_end_with_the_time_left(worker, tmp_path):
    worker.send(request_in(tmp_path, npy(volume(12, 48)), modality="CT", region=[0, 12, 0, 48, 0, 48]))
    events = [worker.next()]
    while events[-1]["event"] == "progress":
        events.append(worker.next())
    *progress, done = events
    assert done["event"] == "done"
    assert {event["id"] for event in events} == {9}
    fractions = [event["fraction"] for event in progress]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
    assert progress[-1]["secondsLeft"] == 0
    assert done["seconds"] > 0
    assert sorted(os.listdir(tmp_path / "out")) == ["result.npy"]


def plan(side, **fields):
    """Return the request to plan a region of that many rows and columns."""
    request = {"do": "plan", "id": 1, "modality": "CXR", "bundle": FLOW, "shape": [1, 512, 512]}
    return {**request, "region": [0, 1, 0, side, 0, side], **fields}


def test_a_plan_says_time_and_memory_before_anything_is_done(worker, packed):
    small, large = (worker.ask(plan(side, errorBars=True)) for side in (64, 512))
    assert (small["event"], small["bundle"], small["scaleZYX"]) == ("planned", FLOW, [1, 4, 4])
    result = 4 * 512 * 4 * 512 * (2 + 4)
    assert result < large["bytes"] < 10 * result + 200e6
    assert 0 < small["bytes"] < large["bytes"]
    volume = {"modality": "CT", "shape": [40, 64, 64], "bundle": str(packed(THROUGH)), "region": [0, 40, 0, 64, 0, 64]}
    through = worker.ask(plan(64, **volume))
    assert all(planned["seconds"] > 0 and planned["freeBytes"] > 0 for planned in (small, large, through))


def test_a_plan_says_nothing_about_pixels_that_it_does_not_know(worker):
    for modality, bundle in (("CXR", "chest_xray_blind"), ("CT", "chest_ct_blind")):
        planned = worker.ask(plan(128, modality=modality, bundle=bundle, errorBars=True))
        assert (planned["errorBars"], planned["warnings"]) == (True, [])


def test_a_scale_is_the_bundles_own_unless_a_request_names_another():
    film = {"shape": [1, 2000, 1000], "bundle": SEVERAL}
    requests = [plan(64, **film, **fields) for fields in ({}, {"scale": 3}, {"scale": "auto"}, {"scale": 5})]
    answers = io.StringIO()
    lines = "".join(json.dumps(request) + "\n" for request in requests)
    speed = Speed(lambda session, options, error_bars, side: session.bundle.scale)
    assert Worker(Events(answers), "torch", "cpu", speed).serve(io.BytesIO(lines.encode())) == 0
    *planned, refused = map(json.loads, answers.getvalue().splitlines())
    assert [each["scaleZYX"] for each in planned] == [[1, 4, 4], [1, 3, 3], [1, 2, 2]]
    default, three, two = (each["seconds"] for each in planned)
    assert default > three > two
    assert (refused["kind"], refused["message"][:27]) == ("input", "scale 5: bundle chest_xray_")


def test_a_plan_follows_the_region_the_steps_and_the_error_bars():
    # Injected times: one pass of the small image takes 1 s, a step 0.5 s, error bars 4 s.
    speed = Speed(lambda session, options, error_bars, side: 1 + 0.5 * options.steps + 4 * error_bars)
    requests = [plan(64), plan(512), plan(64, texture=1.0, steps=16), plan(64, errorBars=True)]
    answers = io.StringIO()
    lines = "".join(json.dumps(request) + "\n" for request in requests)
    assert Worker(Events(answers), "onnx", "cpu", speed).serve(io.BytesIO(lines.encode())) == 0
    small, large, textured, barred = (json.loads(line)["seconds"] for line in answers.getvalue().splitlines())
    assert 0 < 4 * small < large
    assert 2 * small < textured < large
    assert small < barred


@pytest.mark.parametrize(
    ("line", "identity", "message"),
    [
        (b"hello\n", None, 'the line is no JSON. Send one object a line, as {"do": "bundles"}.'),
        (b"\xff\xfe{}\n", None, "the line is no JSON."),
        (b"[" * 100_000 + b"\n", None, "the line is no JSON."),
        (b"[1, 2]\n", None, "the line is [1, 2], expected an object"),
        (b"{}\n", None, "do is missing."),
        ({"do": "paint", "id": 3}, 3, 'do is "paint", expected bundles or plan or enhance or quit.'),
        ({"do": ["plan"], "id": "a"}, "a", 'do is ["plan"], expected bundles'),
        ({"do": "plan", "id": [1]}, None, "shape is missing."),
        ({"do": "plan", "shape": [1, 0, 8]}, None, "shape is [1, 0, 8], expected three numbers above 0."),
        (
            {"do": "plan", "shape": [2**63, 1, 1]},
            None,
            "shape is [9223372036854775808, 1, 1], expected 4,000,000,000 pixels at most.",
        ),
        (b'{"do": "' + b"x" * LONGEST_LINE + b'"}\n', None, "the line is longer than 1,048,576 bytes."),
    ],
)
def test_a_line_that_is_no_request_is_answered_in_one(worker, line, identity, message):
    answer = worker.ask(line)
    assert (answer["event"], answer["kind"], answer["id"]) == ("failed", "protocol", identity)
    assert message in answer["message"]
    assert worker.ask({"do": "bundles"})["event"] == "bundles"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"array": None}, "array is null, expected a text."),
        ({"modality": "MR"}, 'modality is "MR", expected CXR or CT or unknown.'),
        ({"region": [0, 1, 2]}, "region is [0, 1, 2], expected a list of 6 whole numbers."),
        ({"region": [0, 1, 0, 16, 0, 16.5]}, "expected a list of 6 whole numbers."),
        ({"region": [0, True, 0, 16, 0, 16]}, "expected a list of 6 whole numbers."),
        ({"texture": "much"}, 'texture is "much", expected a number.'),
        ({"texture": float("nan")}, "texture is NaN, expected a number."),
        ({"seed": 1.5}, "seed is 1.5, expected a whole number."),
        ({"scale": "large"}, 'scale is "large", expected a whole number or "auto".'),
        ({"errorBars": 1}, "errorBars is 1, expected true or false."),
        ({"kernel": 60}, "kernel is 60, expected a text."),
        ({"spacingZYX": [1, 2]}, "spacingZYX is [1, 2], expected a list of 3 numbers."),
        ({"spacingZYX": [1, 0, 2]}, "expected millimetres above 0, or null if unknown."),
        ({"storedRange": [0, 1]}, "storedRange is [0, 1], but the array holds"),
    ],
)
def test_a_wrong_field_is_refused_with_the_value_that_was_expected(worker, fields, message):
    answer = worker.enhance(film(32), fields.pop("region", [0, 1, 0, 16, 0, 16]), **fields)
    assert (answer["event"], answer["kind"]) == ("failed", "protocol")
    assert message in answer["message"]


@pytest.mark.parametrize(
    ("fields", "kind", "message"),
    [
        ({"bundle": "nonsense"}, "bundle", "bundle 'nonsense' is unknown. Available: bicubic"),
        ({"bundle": "chest_ct_edsr_x4"}, "input", "the image: this is CXR, but bundle chest_ct_edsr_x4 is made for"),
        ({"region": [0, 1, 0, 16, 0, 200]}, "input", "the image: region 0 0 200 16 does not lie in the image of 32x32"),
        ({"region": [0, 2, 0, 16, 0, 16]}, "input", "slices 0 to 2 do not lie in the image of 1"),
        ({"texture": 1.5}, "input", "texture 1.5: expected a number from 0, the most faithful, to 1"),
        ({"bundle": THROUGH, "modality": "CT"}, "input", "the image: a single slice or a radiograph, but bundle"),
        ({"tolerance": 0}, "input", "tolerance 0: expected a number above 0, in grey levels or HU."),
        ({"errorBars": True, "calibration": "/nowhere.json"}, "input", "cannot be read as a calibration"),
        ({"out": "out"}, "output", "out: the folder does not exist. Make it, and name its absolute path."),
        ({"array": f"/nowhere/{PATIENT}.npy"}, "input", "array: the file does not exist. Write the image"),
    ],
)  # fmt: skip
def test_an_impossible_request_is_refused_with_what_to_do(worker, fields, kind, message):
    before = sorted(worker.folder.rglob("*"))
    answer = worker.enhance(film(32), **{"region": [0, 1, 0, 16, 0, 16], **fields})
    assert (answer["event"], answer["kind"]) == ("failed", kind)
    assert message in answer["message"]
    assert "--" not in re.sub("`[^`]*`", "", answer["message"])  # but in commands
    new = {path.name for path in worker.folder.rglob("*")} - {path.name for path in before}
    assert {name.rstrip("0123456789") for name in new if not name.endswith(".npy")} <= {"out"}
    assert not any("result" in name or name.startswith(".") for name in new)
    assert PATIENT not in worker.log.read_text()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.array([[["text"]]], dtype=object), "array: the file is no .npy of numbers, or is not complete."),
        (b"P5 3 3 255 this is a picture", "array: the file is no .npy of numbers"),
        (b"", "array: the file is no .npy of numbers"),
        (npy(film(64)).replace(b"(1, 64", b"((1 64"), "array: the file is no .npy of numbers"),
        (npy(film(64))[:1000], "or is not complete"),
        (np.zeros((32, 32), np.uint8), "array: has the shape [32, 32], expected [slices, rows, columns], all above 0."),
        (np.zeros((1, 8, 0), np.uint8), "array: "),
        (np.zeros((1, 32, 32), np.int64), "the array is int64 with shape (1, 32, 32), expected uint8, uint16, int16"),
        (np.zeros((1, 32, 32), ">i2"), "the array is >i2 with shape"),
        (np.full((1, 32, 32), np.nan, np.float32), "the image: 1,024 of 1,024 values are NaN or infinite"),
        (np.zeros((1, 4, 4), np.uint8), "the image: 4x4 pixels, expected at least 8x8."),
    ],
)  # fmt: skip
def test_a_file_that_holds_no_image_is_refused_and_never_unpickled(worker, tmp_path, content, message):
    content = content if isinstance(content, bytes) else npy(content)
    answer = worker.ask(request_in(tmp_path, content, region=[0, 1, 0, 4, 0, 4]))
    assert (answer["event"], answer["kind"]) == ("failed", "input")
    assert message in answer["message"]
    assert os.listdir(tmp_path / "out") == []


def test_an_older_result_is_never_replaced(worker, tmp_path):
    (tmp_path / "error_bars.npy").write_bytes(b"older")
    answer = worker.ask(request_in(tmp_path, npy(film(32)), out=str(tmp_path)))
    assert answer["message"] == "out: error_bars.npy exists already in the folder. Name an empty folder."
    assert (tmp_path / "error_bars.npy").read_bytes() == b"older"


def test_a_result_larger_than_the_free_memory_is_refused_before_it_is_begun(worker, tmp_path):
    """1,000 slices of 2,048 pixels, of which the file system stores nothing."""
    shape = (1000, 2048, 2048)
    request = request_in(tmp_path, b"", modality="CT", region=[0, 1000, 0, 2048, 0, 2048])
    with (tmp_path / "in.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<i2", "fortran_order": False, "shape": shape})
        file.truncate(file.tell() + 2 * int(np.prod(shape)))
    answer = worker.ask(request)
    assert answer["kind"] == "memory"
    assert answer["message"].endswith(
        "the result of 8192 x 8192 x 1000 pixels does not fit into memory. Choose a smaller region, or use another "
        "machine."
    )


def test_the_worker_goes_on_after_memory_has_run_out(start_worker):
    started = start_worker()
    small = [0, 1, 0, 16, 0, 16]
    expected = started.enhance(film(64), small)["pixels"]
    pid = started.process.pid
    size = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
    resource.prlimit(pid, resource.RLIMIT_AS, (size + 30 * 2**20, resource.RLIM_INFINITY))
    answer = started.enhance(volume(2, 600), [0, 2, 0, 600, 0, 600], modality="CT")
    assert (answer["event"], answer["kind"]) == ("failed", "memory")
    assert "Choose a smaller region" in answer["message"]
    assert len(list(started.folder.rglob("result*"))) == 1
    resource.prlimit(pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    np.testing.assert_array_equal(started.enhance(film(64), small)["pixels"], expected)


def begin_long_request(worker: Started) -> Path:
    """Begin a request that takes minutes; return its folder."""
    content, region = npy(volume(60, 200)), [0, 60, 0, 200, 0, 200]
    worker.send(request_in(worker.folder, content, modality="CT", region=region))
    assert worker.next()["event"] == "progress"
    return worker.folder / "out"


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGTERM, 143, "stopped"), (signal.SIGINT, 130, "interrupted")]
)
def test_a_signal_ends_the_work_and_leaves_nothing(start_worker, number, code, word):
    started = start_worker()
    out = begin_long_request(started)
    started.process.send_signal(number)
    while (event := started.next())["event"] == "progress":
        pass
    assert (event["event"], event["kind"], event["id"]) == ("failed", "interrupted", 9)
    assert event["message"] == f"{word}; no partial files remain. Start the worker again."
    assert started.process.wait(PATIENCE) == code
    assert os.listdir(out) == []
    assert started.log.read_text() == ""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_while_nothing_is_done_ends_it_without_a_word(start_worker, number, code):
    started = start_worker()
    started.process.send_signal(number)
    assert started.process.wait(PATIENCE) == code
    assert started.process.stdout.read() == b""
    assert started.log.read_text() == ""


def test_a_viewer_that_has_gone_ends_it_in_the_middle_of_its_work(start_worker):
    started = start_worker()
    out = begin_long_request(started)
    started.process.stdout.close()
    assert started.process.wait(PATIENCE) == 0
    assert os.listdir(out) == []
    assert started.log.read_text() == ""


def test_quit_ends_it(start_worker):
    started = start_worker()
    started.send({"do": "quit"}, {"do": "bundles"})
    assert started.process.wait(PATIENCE) == 0
    assert started.process.stdout.read() == b""


SHADOW = """
import importlib, sys
here = sys.path.pop(sys.path.index({folder!r}))
del sys.modules["psutil"]
psutil = importlib.import_module("psutil")
sys.path.insert(0, here)
{then}
"""


def shadow(folder: Path, then: str) -> Path:
    """A folder with a psutil that does something more when it is imported."""
    folder.mkdir()
    (folder / "psutil.py").write_text(SHADOW.format(folder=str(folder), then=then))
    return folder


def test_libraries_that_print_do_not_disturb_the_events(start_worker, tmp_path):
    then = "import os; print('a print'); os.write(1, b'a write\\n'); os.system('echo a child')"
    started = start_worker(path=shadow(tmp_path / "noisy", then))
    assert started.first["event"] == "ready"
    assert started.ask({"do": "bundles"})["event"] == "bundles"
    started.end()
    assert {"a print", "a write", "a child"} <= set(started.log.read_text().split("\n"))


def test_a_mistake_of_ours_is_logged_with_its_line_and_without_the_names_in_the_image(start_worker, tmp_path):
    then = f"def broken(): raise ValueError({PATIENT!r})\npsutil.virtual_memory = broken"
    started = start_worker(path=shadow(tmp_path / "broken", then))
    answer = started.enhance(film(32), [0, 1, 0, 16, 0, 16])
    assert (answer["event"], answer["kind"]) == ("failed", "internal")
    assert answer["message"] == "an error inside the worker (ValueError). Please report it, with the worker's log."
    assert started.ask({"do": "bundles"})["event"] == "bundles"
    log = started.log.read_text()
    assert "monai-sr worker: ValueError" in log
    assert "in free_memory" in log
    assert PATIENT not in log


def test_a_missing_package_is_one_event(start_worker, tmp_path):
    started = start_worker(
        path=shadow(tmp_path / "lacking", "raise ModuleNotFoundError('No module named psutil', name='psutil')")
    )
    assert started.first == {
        "event": "failed",
        "id": None,
        "kind": "installation",
        "message": "psutil cannot be loaded. Install monai-sr-bundle again.",
    }
    assert started.process.wait(PATIENCE) == 1
    assert started.log.read_text() == ""


def test_onnx_needs_no_pytorch_from_start_to_result(start_worker):
    started = start_worker(python=("-X", "importtime"))
    assert started.enhance(film(32), [0, 1, 0, 16, 0, 16], errorBars=True)["event"] == "done"
    started.end()
    imported = {line.rsplit("|", 1)[-1].strip() for line in started.log.read_text().splitlines()}
    assert "onnxruntime" in imported
    assert imported & {"torch", "monai", "ignite"} == set()
