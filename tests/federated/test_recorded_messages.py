"""All that leaves two sites in a real job, written down before encryption: a list, and nothing of a patient."""

import os
import pickle

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("nvflare", reason="federated training: nvflare is not installed (extra [federated])")

from monai_sr_bundle.datasets.manifest import read_manifest
from monai_sr_bundle.federated.job import write_job
from monai_sr_bundle.federated.messages import (
    BOXED_IMAGES,
    DELTA,
    EPSILON,
    IMAGES,
    ITERATIONS,
    SECONDS,
)
from monai_sr_bundle.federated.simulator import simulate_job
from monai_sr_bundle.federated.site_settings import SiteSettings
from monai_sr_bundle.federated.study import parse_study
from monai_sr_bundle.shipped_bundles import find_bundle
from monai_sr_bundle.training.weights import read_weights

from tests.with_error_bars import write_windows

BUNDLE = "chest_xray_srcnn_x4"
SITES = ("site-1", "site-2")
CHANNELS = {
    (None, None),  # acknowledgements and the handshake, which have headers alone
    ("server_command", "get_task"),
    ("server_command", "submit_update"),
    ("download_service__", "download_service__download"),  # the site asks for the global model
    ("return_only", "download_service__:download_service__download"),  # the server asks for a difference
    ("aux_communication", "__sync_runner__"),
    ("aux_communication", "__task_check__"),
}
OF_NVFLARE = {
    "__content_type__", "__rc__", "current_round", "__audit_event_id__", "__cookie_jar__", "__task_name__",
    "__task_id__", "__msg_root_id__",
}  # fmt: skip
NUMBERS = {"NUM_STEPS_CURRENT_ROUND", IMAGES, BOXED_IMAGES, ITERATIONS, SECONDS, EPSILON, DELTA}


def read_entries(folder):
    for path in sorted(folder.glob("*.pickle")):
        with path.open("rb") as file:
            while file.peek(1):
                yield pickle.load(file)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Run a job of two rounds with clip and noise; return folders of the sites, frames to the server, and answers."""
    root = tmp_path_factory.mktemp("recorded")
    for folder in ("frames", "ledgers"):
        (root / folder).mkdir()
    settings = {}
    for seed, site in enumerate(SITES):
        data = write_windows(root / site / "Hospital_of_Doe", "cxr_nih", {"train": 4, "val": 2}, size=128, seed=seed)
        settings[site] = SiteSettings(
            data, root / "work" / site, ledger=root / "ledgers" / site, epsilon=100.0, delta=1e-5
        )
    study = parse_study(
        "recorded",
        {
            "bundle": BUNDLE, "rounds": 2, "iterations": 2, "batch_size": 2, "patch_size": 8, "minimum_sites": 2,
            "privacy": {"protect": "difference", "noise_multiplier": 4.0, "clip": 0.1},
        },
        "this test",
    )  # fmt: skip
    job = write_job(study, root / "job", result_filters=study.privacy.result_filters(BUNDLE))
    recorder = os.path.join(os.path.dirname(__file__), "recorder")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FRAMES", str(root / "frames"))
        patch.setenv("PYTHONPATH", os.pathsep.join((recorder, os.environ.get("PYTHONPATH", ""))))
        simulate_job(job, settings, root / "simulator")
    entries = list(read_entries(root / "frames"))
    frames = [
        (sender, headers, payload)
        for kind, sender, *content in entries
        if kind == "frame" and sender.startswith(SITES)
        for headers, payload in [content]
        if not str(headers.get("cn__destination")).startswith(SITES)
    ]
    return {site: settings[site].data for site in SITES}, frames, [each[1:] for each in entries if each[0] == "answer"]


@pytest.mark.slow
def test_every_answer_is_of_the_list(recorded):
    _, _, answers = recorded
    weights = {
        key: ("float32", tuple(value.shape))
        for key, value in read_weights(find_bundle(BUNDLE).weights("model.pt")[0]).items()
    }
    kinds = []
    for _, answer in answers:
        assert set(answer) == {"__headers__", "DXO"}
        assert set(answer["__headers__"]) <= OF_NVFLARE
        assert set(answer["__headers__"]["__cookie_jar__"]) <= {"contribution_round", "__workflow__", "__task_id__"}
        dxo = answer["DXO"]
        kinds.append(dxo["kind"].value)
        if dxo["kind"] == "WEIGHT_DIFF":
            assert dxo["data"] == weights
            assert set(dxo["meta"]) == NUMBERS | {"initial_metrics"}
            assert set(dxo["meta"]["initial_metrics"]) == {"val_psnr"}
            assert all(isinstance(dxo["meta"][name], int | float) for name in NUMBERS)
        else:
            assert set(dxo["data"]) == {"val_psnr"}
            assert dxo["meta"] == {IMAGES: 4}
    assert sorted(kinds) == ["METRICS"] * 2 + ["WEIGHT_DIFF"] * 4


@pytest.mark.slow
def test_every_message_to_the_server_is_of_a_listed_channel(recorded):
    _, frames, _ = recorded
    channels = {(headers.get("sm__ch"), headers.get("sm__tp")) for _, headers, _ in frames}
    assert channels <= CHANNELS, channels - CHANNELS


@pytest.mark.slow
def test_no_path_name_patient_or_pixel_is_in_any_byte(recorded):
    folders, frames, _ = recorded
    sent = b"".join(repr(headers).encode() + payload for _, headers, payload in frames)
    weights = read_weights(find_bundle(BUNDLE).weights("model.pt")[0])
    assert len(sent) > 2 * len(SITES) * 4 * sum(
        value.numel() for value in weights.values()
    )  # the differences are there
    assert b"map.weight" in sent
    texts, runs = set(), set()
    for folder in folders.values():
        texts |= {str(folder), folder.name, *folder.parts[2:]} - set(SITES)
        for record in read_manifest(folder, kind="cxr"):
            texts |= {record.file.name, str(record.patient_id)}
            data = record.file.read_bytes()
            runs |= runs_of(data) | runs_of(np.asarray(Image.open(record.file)).tobytes())
    assert len(runs) > 100_000
    leaked = [text for text in texts if text.encode() in sent]
    assert leaked == []
    assert not runs & runs_of(sent)
    assert runs & runs_of(sent + data[200:216])  # the search finds what there is


def runs_of(data):
    """Return all runs of 16 bytes, but those of hardly any content, as zeros."""
    windows = np.lib.stride_tricks.sliding_window_view(np.frombuffer(data, dtype=np.uint8), 16)
    varied = (np.diff(np.sort(windows, axis=1), axis=1) > 0).sum(axis=1) >= 5
    return set(map(bytes, windows[varied]))
