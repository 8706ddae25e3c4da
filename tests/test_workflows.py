"""The workflows train, resume, evaluate, use TensorRT where there is any, and share out the work."""

import csv
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from monai_sr_bundle import enhance
from monai_sr_bundle.__main__ import main
from monai_sr_bundle.datasets.phantom import write_phantom_png
from monai_sr_bundle.datasets.phantom_set import write_phantom_set
from monai_sr_bundle.errors import BundleError, InputError, SuperResolutionError
from monai_sr_bundle.images.picture import read_picture
from monai_sr_bundle.shipped_bundles import configs_dir, find_bundle
from monai_sr_bundle.training.progress import BestWeights
from monai_sr_bundle.training.training import train
from monai_sr_bundle.transforms.pairs import Degraded, LoadHighResd, pair_items
from PIL import Image
from skimage.metrics import structural_similarity

from tests.monai_workflow import open_workflow, run_workflow

QUICK = {"patch_size": 4, "batch_size": 2, "validations": 2, "save_interval": 1}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Drawn data for both bundles, in folders of the names they train on."""
    root = tmp_path_factory.mktemp("data")
    for bundle in ("chest_xray_edsr_x4", "chest_ct_edsr_x4"):
        facts = find_bundle(bundle).facts
        for name in facts["sets"]:
            write_phantom_set(root / name, facts["modality"], size=96 if facts["modality"] == "CXR" else 48)
    return root


def torchrun(folder, *names, processes=2, **arguments):
    """A workflow of a packed bundle on several processes, as its first comment says."""
    files = str([f"configs/{name}.yaml" for name in names])
    options = [word for key, value in arguments.items() for word in (f"--{key}", str(value))]
    launch = f"-m torch.distributed.run --standalone --nproc_per_node={processes} -m monai.bundle run".split()
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", *launch, "--config_file", files, *options],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def test_a_packed_bundle_is_trained_by_monai_itself(packed, data, tmp_path):
    """By epochs, then by minutes; a further run after a spent budget trains as long again, a new one has a new log."""
    folder = packed("chest_xray_edsr_x4")
    options = {**QUICK, "dataset_dir": data, "progress": False, "val_limit": 1, "batch_size": 1}
    workflow = run_workflow(folder, "train", epochs=1, output_dir=tmp_path, **options)
    budget = workflow.parser.get_parsed_content("budget")
    assert budget.iterations == len(workflow.parser.get_parsed_content("train#dataloader")) > 1
    before = budget.iterations
    workflow.run()
    assert budget.iterations == 2 * before
    (tmp_path / "model.pt").unlink()
    workflow = run_workflow(folder, "train", minutes=1e-4, output_dir=tmp_path, **options)
    iterations = workflow.parser.get_parsed_content("budget").iterations
    assert 1 <= iterations < 2 * before
    assert (tmp_path / "model.pt").is_file()
    rows = csv.DictReader((tmp_path / "validation.csv").open())
    assert max(int(row["iteration"]) for row in rows) == iterations


@pytest.mark.parametrize("bundle", ["chest_xray_edsr_x4", "chest_ct_edsr_x4"])
def test_evaluation_prints_what_one_computes_by_hand(data, tmp_path, capsys, bundle):
    run_workflow(configs_dir() / bundle, "evaluate", dataset_dir=data, output_dir=tmp_path)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("psnr ")]
    facts = find_bundle(bundle).facts
    low, high = facts["window"]
    psnr, ssim = [], []
    for item in pair_items(str(data), facts["modality"], "test", sets=facts["sets"]):
        load = LoadHighResd("label", window=facts["window"], reduce=facts["reduce"], multiple=4, levels=facts["levels"])
        pair = Degraded("label", "image", operator=facts["operator"], levels=facts["levels"])(load(item))
        values = (pair["image"][0].numpy() * (high - low) + low).astype(np.float32)
        target = np.rint(pair["label"][0].numpy().astype(np.float64).clip(0, 1) * facts["levels"]) / facts["levels"]
        # A float array is taken as HU by the CT bundle; for the radiograph its own range would be the window.
        stored = np.rint(values).astype(np.uint8 if high == 255 else np.float32)
        pixels = enhance(stored, bundle, backend="torch").image.pixels[0].astype(np.float64)
        result = np.rint(((pixels - low) / (high - low)).clip(0, 1) * facts["levels"]) / facts["levels"]
        psnr.append(-10 * np.log10(np.mean((result - target) ** 2)))
        window = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "win_size": 11}
        ssim.append(structural_similarity(result, target, data_range=1.0, **window))
    printed = dict(zip(line.split()[::2], map(float, line.split()[1::2]), strict=True))
    assert printed["psnr"] == pytest.approx(np.mean(psnr), abs=2e-3)
    assert printed["ssim"] == pytest.approx(np.mean(ssim), abs=2e-4)
    rows = list(csv.DictReader((tmp_path / "psnr_raw.csv").open()))
    assert [float(row["mean"]) for row in rows] == pytest.approx(psnr, abs=2e-3)


@pytest.mark.parametrize(
    ("name", "bundle", "option", "sentence"),
    [
        ("inference", "chest_xray_blind", {"scale": 5}, "--scale 5: bundle chest_xray_blind enlarges by 2 or 3 or 4"),
        ("inference", "chest_ct_throughplane", {"scale": 3}, "--scale 3: bundle chest_ct_throughplane enlarges by 2"),
        ("evaluate", "chest_xray_blind", {"scale": 5, "sets": None}, "--scale 5: bundle chest_xray_blind enlarges by"),
        ("evaluate", "chest_xray_edsr_x4", {"consistency": "false"}, "consistency is false, expected True or False"),
        ("evaluate", "chest_xray_edsr_x4", {"tile": -5}, "tile is -5, expected a whole number above 0"),
        ("evaluate", "chest_xray_edsr_x4", {"limit": 0}, "limit is 0, expected a whole number above 0"),
        ("evaluate", "chest_xray_edsr_x4", {"window": [0, 0]}, "window is [0, 0], expected two rising numbers"),
    ],
)
def test_a_wrong_option_is_refused_in_one_sentence(data, tmp_path, name, bundle, option, sentence):
    with pytest.raises(RuntimeError) as raised:
        run_workflow(configs_dir() / bundle, name, dataset_dir=data, output_dir=tmp_path, **option)
    error = raised.value
    while not isinstance(error, InputError):
        error = error.__cause__ or error.__context__
        assert error is not None
    assert str(error).startswith(sentence)


def test_a_folder_goes_on_without_a_picture_in_colour(tmp_path, caplog):
    for name in ("a.png", "z.png"):
        write_phantom_png(tmp_path / name, 32)
    Image.new("RGB", (32, 32), (200, 30, 30)).save(tmp_path / "m.png")
    run_workflow(configs_dir() / "bicubic", "inference", dataset_dir=tmp_path, output_dir=tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a_sr.png", "z_sr.png"]
    assert "m.png" in caplog.text


def test_the_baseline_is_evaluated_by_the_same_workflow(data, tmp_path, capsys):
    run_workflow(configs_dir() / "bicubic", "evaluate", dataset_dir=data, output_dir=tmp_path)
    assert "psnr " in capsys.readouterr().out


def test_the_command_line_and_monai_choose_the_same_names(tmp_path):
    (tmp_path / "images" / "ward").mkdir(parents=True)
    for name in ("a.png", "ward/a.png"):
        write_phantom_png(tmp_path / "images" / name, 32)
    words = ["enhance", str(tmp_path / "images"), f"{tmp_path / 'cli'}/", "--bundle", "bicubic", "--quiet"]
    assert main([*words, "--progress", "none"]) == 0
    run_workflow(configs_dir() / "bicubic", "inference", dataset_dir=tmp_path / "images", output_dir=tmp_path / "monai")
    cli, monai = (
        {path.relative_to(folder) for path in folder.rglob("*.png")}
        for folder in (tmp_path / "cli", tmp_path / "monai")
    )
    assert len(cli) == 2
    assert cli == monai


@pytest.mark.parametrize("name", ["chest_xray_edsr_x4", "chest_xray_sr3_x4"])
def test_without_a_gpu_the_tensorrt_overlay_warns_once_and_changes_nothing(name, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    source = tmp_path / "chest.png"
    # A real image: on a drawn one, sums in another order round to the same pixels.
    Image.open(Path(__file__).parents[1] / "docs" / "example.jpg").convert("L").resize((192, 160)).save(source)
    steps = {"diffusion#steps": 2} if "sr3" in name else {}
    run_workflow(configs_dir() / name, "inference", dataset_dir=source, output_dir=tmp_path / "plain", **steps)
    # MONAI gives this logger a handler of its own and no way up.
    logger = logging.getLogger("monai.networks.trt_compiler")
    monkeypatch.setattr(logger, "handlers", [caplog.handler])
    names = ("inference", "inference_trt")
    workflow = run_workflow(configs_dir() / name, *names, dataset_dir=source, output_dir=tmp_path / "out", **steps)
    records = [record for record in caplog.records if record.name == logger.name]
    (warning,) = [record.message for record in records if record.levelno >= logging.WARNING]
    assert "trt_compile() has no effect" in warning
    plain, pixels = (read_picture(tmp_path / folder / "chest_sr.png").pixels for folder in ("plain", "out"))
    np.testing.assert_array_equal(pixels, plain)
    # The order of the sums follows the layout of the weights.
    weights = [each for each in workflow.parser.get_parsed_content("network").parameters() if each.ndim == 4]
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)
    assert list(tmp_path.glob("**/*.plan")) == []


def test_an_overlay_means_the_same_handlers_after_another_one_was_inserted(packed, data):
    """An overlay switches handlers off by a key, as tracking and federated clients insert theirs at the front."""
    names, folder = ("train", "train_flow"), packed("chest_xray_residual_flow_x4")
    workflow = open_workflow(folder, *names, dataset_dir=data, writes=False, tensorboard=True)
    for part, expected in (("train", {"EvenValidation"}), ("validate", set())):
        handlers = workflow.parser[f"{part}#handlers"]
        handlers.insert(0, {"_target_": "StatsHandler"})
        workflow.parser[f"{part}#handlers"] = handlers
        workflow.parser.parse(True)
        built = workflow.parser.get_parsed_content(f"{part}#handlers")
        assert {type(handler).__name__ for handler in built} == {"StatsHandler"} | expected
    workflow.parser["writes"] = True
    workflow.parser.parse(True)
    (best,) = [h for h in workflow.parser.get_parsed_content("validate#handlers") if isinstance(h, BestWeights)]
    assert best._sign == -1  # of the loss of a flow, lower is better
    for overlay in (configs_dir() / "workflows").glob("*.yaml"):
        assert not re.search(r"handlers#\d", overlay.read_text()), overlay


@pytest.mark.parametrize(
    ("bundle", "stages", "part", "images"),
    [
        ("chest_xray_edsr_x4", (), "tail", {}),
        ("chest_xray_residual_flow_x4", ("train_flow",), "flow.tail", {"val_steps": 1}),
        (
            "chest_xray_blind",
            ("train_films",),
            "head",
            {"films": [["cxr_nih", 1, 1]], "validation_films": [["cxr_nih", 1]]},
        ),
        ("chest_ct_throughplane", ("train_slabs",), "head", {"sets": ["ct"]}),
    ],
)
def test_own_images_are_learnt_from_the_weights_of_the_bundle(packed, data, tmp_path, bundle, stages, part, images):
    folder, options = packed(bundle), {**QUICK, **images, "dataset_dir": data, "progress": False, "val_limit": 1}
    workflow = run_workflow(folder, "train", *stages, "fine_tune", iterations=10, output_dir=tmp_path, **options)
    content = workflow.parser.get_parsed_content
    (rates,) = content("budget")._highest_rates
    assert rates == [pytest.approx(0.1 * content("learning_rate"))]
    begun, tuned = (torch.load(path, weights_only=True) for path in (folder / "models/model.pt", tmp_path / "model.pt"))
    change = (tuned[f"{part}.weight"] - begun[f"{part}.weight"].float()).abs().max()
    assert 0 < change < 0.02 * begun[f"{part}.weight"].abs().max()


def test_weights_of_another_bundle_are_refused_with_both_names_and_nothing_is_written(packed, data, tmp_path):
    options = {**QUICK, "dataset_dir": data, "progress": False, "output_dir": tmp_path / "out", "iterations": 1}
    weights = packed("chest_ct_edsr_x4").parent / "chest_xray_sr3_x4" / "models" / "model.pt"
    packed("chest_xray_sr3_x4")
    workflow = open_workflow(packed("chest_xray_edsr_x4"), "train", initial_weights=weights, **options)
    with pytest.raises(RuntimeError) as raised:
        workflow.run()
    error = raised.value
    while error.__cause__ is not None:
        error = error.__cause__
    assert isinstance(error, BundleError)
    assert re.fullmatch(
        r".*model\.pt, trained as chest_xray_sr3_x4, does not belong to the network EDSR of chest_xray_edsr_x4 "
        r"\(.*\)\. Name the weights of a run of the same bundle\.",
        str(error),
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["inference", "evaluate"])
@pytest.mark.parametrize(
    ("checkpoint", "sentence"),
    [
        ("none.pt", "none.pt"),
        ("damaged.pt", "damaged.pt: cannot be read as weights"),
        (configs_dir() / "chest_xray_srcnn_x4" / "model.pt", "does not belong to chest_xray_edsr_x4"),
    ],
)
def test_a_checkpoint_of_anything_else_is_refused_in_one_sentence(data, tmp_path, name, checkpoint, sentence):
    (tmp_path / "damaged.pt").write_bytes(b"damaged")
    write_phantom_png(tmp_path / "chest.png", 32)
    folders = {"dataset_dir": data if name == "evaluate" else tmp_path / "chest.png", "output_dir": tmp_path / "out"}
    with pytest.raises(RuntimeError) as raised:
        run_workflow(configs_dir() / "chest_xray_edsr_x4", name, checkpoint=tmp_path / checkpoint, **folders)
    error = raised.value
    while not isinstance(error, SuperResolutionError):
        error = error.__cause__ or error.__context__
        assert error is not None
    assert sentence in str(error)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_two_processes_train_one_network(packed, data, tmp_path):
    torchrun(
        packed("chest_xray_edsr_x4"), "train", "multi_gpu_train",
        dataset_dir=data, output_dir=tmp_path, iterations=6, progress=False, **QUICK,
    )  # fmt: skip
    last = torch.load(tmp_path / "last.pt", weights_only=True)
    assert last["budget"]["iterations"] == 6
    assert all(torch.isfinite(value).all() for value in torch.load(tmp_path / "model.pt", weights_only=True).values())
    # Saved under the names of the network itself: one process goes on where two stopped.
    train("chest_xray_edsr_x4", data, tmp_path, iterations=8, resume=True, progress=False, **QUICK)
    assert torch.load(tmp_path / "last.pt", weights_only=True)["budget"]["iterations"] == 8


@pytest.mark.slow
def test_two_processes_find_the_figures_of_one(packed, data, tmp_path, capsys):
    printed = torchrun(
        packed("chest_ct_edsr_x4"), "evaluate", "multi_gpu_evaluate", dataset_dir=data, output_dir=tmp_path, limit=5
    )
    bundle_dir = configs_dir() / "chest_ct_edsr_x4"
    run_workflow(bundle_dir, "evaluate", dataset_dir=data, output_dir=tmp_path / "one", limit=5)
    printed_by_one = capsys.readouterr().out
    lines = [[line for line in text.splitlines() if line.startswith("psnr ")] for text in (printed, printed_by_one)]
    assert len(lines[0]) == 1
    assert lines[0] == lines[1]
    assert len((tmp_path / "psnr_raw.csv").read_text().splitlines()) == 6


@pytest.mark.slow
def test_processes_share_out_the_images_even_if_one_gets_none(packed, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for number in range(2):
        write_phantom_png(images / f"{number}.png", 32, seed=number)
    torchrun(
        packed("bicubic"), "inference", "multi_gpu_inference",
        processes=3, dataset_dir=images, output_dir=tmp_path / "out",
    )  # fmt: skip
    for number in range(2):
        expected = enhance(images / f"{number}.png", "bicubic", backend="torch").image.pixels
        assert (read_picture(tmp_path / "out" / f"{number}_sr.png").pixels == expected).all()
