"""A diffusion bundle from its weights to an image: both backends, every option, and what is told of the draw."""

import importlib.util
import json
import shutil

import jsonschema
import numpy as np
import pytest
import yaml
from PIL import Image as Picture

from monai_sr_bundle import enhance
from monai_sr_bundle.__main__ import main
from monai_sr_bundle.bundles import combined_sha256, find_bundle, open_bundle
from monai_sr_bundle.cli.console import Terminal
from monai_sr_bundle.cli.jobs import Job
from monai_sr_bundle.datasets.phantom import draw_phantom, write_phantom_png
from monai_sr_bundle.errors import BundleError, InputError
from monai_sr_bundle.inferers.sampler_options import SamplerOptions
from monai_sr_bundle.report.schema import REPORT_SCHEMA
from tests.changed_bundles import damaged, with_facts, with_metadata
from tests.tiny_diffusion import NETWORKS, SR3_BUNDLE, TINY, made


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """Folder and lines of a release, by bundle."""
    return {name: made(tmp_path_factory.mktemp(name), name) for name in TINY}


@pytest.fixture(scope="module")
def sr3(released):
    return str(released[SR3_BUNDLE][0])


@pytest.fixture(scope="module")
def film():
    return np.rint(draw_phantom(32) * 255).astype(np.uint8)[4:28, 3:30]


@pytest.mark.parametrize("name", TINY)
def test_weights_are_released_for_pytorch_and_in_three_parts_for_onnx_runtime(released, name):
    folder, lines = released[name]
    bundle = open_bundle(folder)
    files = ["model.pt", "encoder.onnx", "denoiser.onnx", "decoder.onnx"]
    assert list(bundle.metadata["weights_sha256"]) == files
    for file, line in zip(files, lines, strict=False):
        assert line.startswith(f"{file}  ")
        assert bundle.weights(file)[1] in line
    assert lines[-1].startswith("largest difference between PyTorch and ONNX Runtime:")
    assert bundle.parameters == sum(p.numel() for p in NETWORKS[name](4, **TINY[name]).parameters())
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []
    assert not (folder / "model.onnx").exists()


@pytest.mark.parametrize("backend", ["torch", "onnx"])
def test_the_seed_alone_decides(sr3, film, backend):
    first, again, other = (enhance(film, sr3, backend=backend, steps=4, seed=seed) for seed in (7, 7, 8))
    np.testing.assert_array_equal(first.image.pixels, again.image.pixels)
    assert not np.array_equal(first.image.pixels, other.image.pixels)
    assert (first.provenance.seed, other.provenance.seed) == (7, 8)


def test_every_slice_gets_a_noise_of_its_own(sr3):
    flat = np.full((2, 16, 16), 100, np.uint8)
    first, second = enhance(flat, sr3, steps=2).image.pixels
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
@pytest.mark.parametrize("steps", [1, 4, 8, 20])
def test_a_result_is_made_of_numbers_however_many_steps_lead_out_of_noise_alone(sr3, film, sampler, steps):
    result = enhance(film[:8, :8].astype(np.float32) / 255, sr3, steps=steps, sampler=sampler)
    assert np.isfinite(result.image.pixels).all()


def test_what_was_drawn_is_told(sr3, film):
    told = enhance(film, sr3, steps=4, samples=2, sampler="ddpm").provenance
    assert told.sampling == ("ddpm", 4, 2, None)
    assert told.generative
    assert "ddpm in 4 steps, mean of 2 samples, seed 0." in told.sentence
    one = enhance(film, sr3, steps=1).provenance
    assert ", ddim in 1 step, seed 0." in one.sentence


def test_the_hash_that_is_told_is_of_every_file_that_was_loaded(sr3, film):
    hashes = find_bundle(sr3).metadata["weights_sha256"]
    told = {name: enhance(film, sr3, backend=name, steps=1).provenance.weights_sha256 for name in ("torch", "onnx")}
    parts = {name: hashes[name] for name in ("encoder.onnx", "denoiser.onnx", "decoder.onnx")}
    assert told == {"torch": hashes["model.pt"], "onnx": combined_sha256(parts)}


def test_what_is_not_asked_is_what_the_bundle_states(sr3, film):
    stated = find_bundle(sr3).facts["diffusion"]
    expected = (stated["sampler"], stated["steps"], stated["samples"], None)
    assert enhance(film, sr3, roi=(0, 0, 9, 9)).provenance.sampling == expected


def test_one_pass_draws_nothing(film):
    assert enhance(film, "bicubic").provenance.sampling is None


def test_progress_runs_to_one(sr3, film):
    seen = []
    enhance(np.stack([film, film]), sr3, steps=2, samples=2, progress=seen.append)
    np.testing.assert_allclose(seen, np.arange(1, 9) / 8)


def test_the_report_tells_the_draw_and_the_command_that_makes_it_again(sr3, tmp_path):
    write_phantom_png(tmp_path / "film.png", size=32)
    options = SamplerOptions(seed=4, steps=4, samples=2)
    job = Job([tmp_path / "film.png"], tmp_path / "out.png", sr3, backend="onnx", sampler=options, report=True)
    assert job.run(Terminal(quiet=True)) == []
    report = json.loads((tmp_path / "out.report.json").read_text())
    jsonschema.validate(report, REPORT_SCHEMA)
    assert (report["run"]["sampling"], report["run"]["seed"]) == ("ddim in 4 steps, mean of 2 samples", 4)
    assert "--seed 4 --sampler ddim --steps 4 --samples 2" in report["run"]["command"]
    assert "ddim in 4 steps, mean of 2 samples" in (tmp_path / "out.report.html").read_text()
    assert "ddim in 4 steps" in str(Picture.open(tmp_path / "out.png").text)


def test_the_report_of_one_pass_tells_of_no_draw(tmp_path):
    write_phantom_png(tmp_path / "film.png", size=32)
    assert Job([tmp_path / "film.png"], tmp_path / "out.png", "bicubic", report=True).run(Terminal(quiet=True)) == []
    report = json.loads((tmp_path / "out.report.json").read_text())
    jsonschema.validate(report, REPORT_SCHEMA)
    assert report["run"]["sampling"] is None
    assert "Drawn by" not in (tmp_path / "out.report.html").read_text()


def test_the_command_line_draws_as_python_does(sr3, tmp_path):
    write_phantom_png(tmp_path / "film.png", size=32)
    words = [
        "--bundle",
        sr3,
        "--steps",
        "4",
        "--samples",
        "2",
        "--sampler",
        "ddpm",
        "--seed",
        "9",
        "--progress",
        "none",
    ]
    assert main(["enhance", str(tmp_path / "film.png"), str(tmp_path / "out.png"), *words]) == 0
    expected = enhance(tmp_path / "film.png", sr3, steps=4, samples=2, sampler="ddpm", seed=9).image.pixels
    np.testing.assert_array_equal(np.asarray(Picture.open(tmp_path / "out.png")), expected[0])


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"steps": 5}, "--steps: bundle bicubic is no diffusion model, it makes its result in one pass"),
        (
            {"steps": 5, "samples": 2, "sampler": "ddim"},
            "--sampler, --steps, --samples: bundle bicubic is no diffusion",
        ),
        ({"seed": -1}, "--seed -1: expected a whole number from 0 to 4294967295"),
    ],
)
def test_a_bundle_of_one_pass_takes_no_draw(film, asked, told):
    with pytest.raises(InputError, match=told):
        enhance(film, "bicubic", **asked)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"steps": 0}, "--steps 0: this method was trained with 1000 steps, expected 1 to 1000"),
        ({"steps": 1001}, "--steps 1001: this method was trained with 1000 steps, expected 1 to 1000"),
        ({"samples": 0}, "--samples 0: expected at least 1"),
        ({"sampler": "euler"}, "--sampler euler: expected ddpm or ddim"),
        ({"seed": -1}, "--seed -1: expected a whole number from 0 to 4294967295"),
        ({"seed": 2**32}, "--seed 4294967296: expected a whole number from 0 to 4294967295"),
    ],
)
def test_a_draw_out_of_range_is_refused_before_anything_is_loaded(sr3, film, asked, told, monkeypatch):
    monkeypatch.setattr("monai_sr_bundle.engine.session.open_backend", lambda *_: pytest.fail("the network was loaded"))
    with pytest.raises(InputError, match=told):
        enhance(film, sr3, **asked)


@pytest.fixture
def changed(tmp_path, released):
    """The released SR3 bundle, to be changed."""
    return shutil.copytree(released[SR3_BUNDLE][0], tmp_path / SR3_BUNDLE)


@pytest.mark.parametrize("change", [{"prediction": "sample"}, {"training_steps": 500}, {"schedule": "linear"}])
def test_weights_of_another_process_are_refused(changed, film, change):
    text = yaml.safe_load((changed / "model.yaml").read_text())
    with_facts(changed, diffusion=text["diffusion"] | change)
    with pytest.raises(
        BundleError, match=r"bundle chest_xray_sr3_x4: the weights were trained to predict v_prediction "
    ):
        enhance(film, str(changed), backend="torch", steps=2)


def test_an_unknown_word_of_the_process_is_named(changed, film):
    text = yaml.safe_load((changed / "model.yaml").read_text())
    with_facts(changed, diffusion=text["diffusion"] | {"guidance": 3})
    with pytest.raises(BundleError, match="`diffusion` has the unknown guidance; it states beta_end"):
        enhance(film, str(changed), steps=2)


@pytest.mark.parametrize("name", ["encoder.onnx", "denoiser.onnx", "decoder.onnx"])
def test_every_part_is_checked_before_it_is_loaded(changed, film, name):
    with pytest.raises(BundleError, match=f"{name} has SHA-256 .* damaged or was replaced; it was not loaded"):
        enhance(film, str(damaged(changed, name)), backend="onnx", steps=2)


def test_parts_that_were_mixed_up_are_told_by_their_ends(changed, film):
    (changed / "denoiser.onnx").write_bytes((changed / "decoder.onnx").read_bytes())
    hashes = open_bundle(changed).metadata["weights_sha256"]
    with_metadata(changed, weights_sha256=hashes | {"denoiser.onnx": hashes["decoder.onnx"]})
    told = "denoiser.onnx goes from cells and condition to pred, expected .* noisy and condition and level to predicted"
    with pytest.raises(BundleError, match=told):
        enhance(film, str(changed), backend="onnx", steps=2)


@pytest.mark.parametrize("backend", ["torch", "onnx"])
def test_without_diffusers_the_way_to_get_it_is_told(sr3, film, monkeypatch, backend):
    found = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "diffusers" else found(name))
    with pytest.raises(
        BundleError, match=r"a diffusion model needs diffusers, not installed here.*\[torch,diffusion\]"
    ):
        enhance(film, sr3, backend=backend, steps=2)
    assert enhance(film, "bicubic", backend=backend).image.pixels.shape == (1, 96, 108)
