"""A residual flow from its weights to an image: faithful by default, texture on demand, alike everywhere."""

import importlib.util
import json
import shutil

import jsonschema
import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow
from PIL import Image as Picture

from monai_sr_bundle import enhance
from monai_sr_bundle.__main__ import main
from monai_sr_bundle.backends.torch_backend import load_network
from monai_sr_bundle.benchmark.measure import measure
from monai_sr_bundle.benchmark.methods import open_methods
from monai_sr_bundle.benchmark.multiply_adds import multiply_adds
from monai_sr_bundle.benchmark.protocol import Protocol, Row
from monai_sr_bundle.bundles import combined_sha256, configs_dir, find_bundle, open_bundle, sha256_of
from monai_sr_bundle.datasets.phantom import draw_phantom, write_phantom_png
from monai_sr_bundle.errors import BundleError, InputError
from monai_sr_bundle.images.files import read_one
from monai_sr_bundle.inferers.data_consistency import DataConsistency
from monai_sr_bundle.packing.pack import pack
from monai_sr_bundle.packing.verify import verify
from monai_sr_bundle.report.schema import REPORT_SCHEMA
from tests.changed_bundles import copied, damaged, with_facts, with_metadata
from tests.drawn_data import write_radiographs
from tests.images.dicom_files import radiograph
from tests.tiny_diffusion import SR3_BUNDLE
from tests.tiny_flow import FLOW_BUNDLE, released_flow

QUIET = ("--quiet", "--progress", "none")


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """Folder and lines of a release."""
    return released_flow(tmp_path_factory.mktemp("flow"))


@pytest.fixture(scope="module")
def flow(released):
    return str(released[0])


@pytest.fixture(scope="module")
def packed_flow(released, tmp_path_factory):
    folder, _ = released
    if not (folder / "card.md").is_file():
        (folder / "card.md").write_text("# A flow for tests\n")
    return pack(str(folder), tmp_path_factory.mktemp("packed"))


@pytest.fixture
def changed(released, tmp_path):
    """The released bundle, to be changed."""
    return shutil.copytree(released[0], tmp_path / FLOW_BUNDLE)


@pytest.fixture(scope="module")
def film():
    return np.rint(draw_phantom(32) * 255).astype(np.uint8)[4:28, 3:30]


def made(image, bundle, **options):
    return enhance(image, bundle, **options).image.pixels


def test_a_release_has_pytorch_the_expected_image_and_the_velocity(released):
    folder, lines = released
    bundle = open_bundle(folder)
    files = ["model.pt", "model.onnx", "velocity.onnx"]
    assert list(bundle.metadata["weights_sha256"]) == files
    for file, line in zip(files, lines, strict=False):
        assert line.startswith(f"{file}  ")
        assert bundle.weights(file)[1] in line
    assert lines[-1].startswith("largest difference between PyTorch and ONNX Runtime:")
    assert bundle.parameters == sum(value.numel() for value in load_network(bundle)[0].parameters())
    assert (bundle.family.name, bundle.family.consistency, bundle.family.generative) == ("flow", True, True)


@torch.inference_mode()
def test_without_texture_the_result_is_one_pass_made_consistent(flow, film):
    bundle = find_bundle(flow)
    low = film.astype(np.float32) / 255
    expected = load_network(bundle)[0](torch.from_numpy(low)[None, None])[0, 0].numpy()
    plain = np.rint(expected.clip(0, 1) * 255)
    DataConsistency(bundle.degradation)(expected, low, limits=(0.0, 1.0))
    found = made(film, flow, backend="torch")[0]
    np.testing.assert_allclose(found, np.rint(expected * 255), atol=1)  # half a grey level is rounded either way
    off = [np.abs(bundle.degradation.reduce(image) - film).mean() for image in (255 * expected, found, plain)]
    assert off[0] < 0.3
    assert off[1] < 0.5 < 3 < off[2]  # grey levels


def test_without_texture_nothing_is_drawn_and_nothing_is_told_of_it(flow, film):
    plain = enhance(film, flow)
    assert (plain.provenance.sampling, plain.provenance.generative) == (None, False)
    assert "flow in" not in plain.provenance.sentence
    for options in ({"seed": 7}, {"texture": 0.0, "steps": 8, "samples": 3}, {"texture": 0.0}):
        other = enhance(film, flow, **options)
        np.testing.assert_array_equal(other.image.pixels, plain.image.pixels)
        assert other.provenance.sampling is None


@pytest.mark.parametrize("backend", ["torch", "onnx"])
def test_the_seed_alone_decides_on_the_texture(flow, film, backend):
    first, again, other, none = (
        enhance(film, flow, backend=backend, texture=texture, seed=seed)
        for texture, seed in ((1.0, 7), (1.0, 7), (1.0, 8), (0.0, 7))
    )
    np.testing.assert_array_equal(first.image.pixels, again.image.pixels)
    assert not np.array_equal(first.image.pixels, other.image.pixels)
    assert not np.array_equal(first.image.pixels, none.image.pixels)
    assert first.provenance.sampling == ("flow", 8, 1, 1.0)
    assert first.provenance.generative
    assert ", texture 1 by flow in 8 steps, seed 7." in first.provenance.sentence


def test_half_the_texture_is_half_way(flow):
    chest = draw_phantom(32).astype(np.float32)
    none, half, whole = (made(chest, flow, texture=texture, seed=3) for texture in (0.0, 0.5, 1.0))
    assert np.abs(whole - none).max() > 0.02
    np.testing.assert_allclose(half, (none + whole) / 2, rtol=0, atol=1e-5)


def test_texture_keeps_what_the_input_says(flow):
    chest = draw_phantom(32).astype(np.float32)
    reduced = find_bundle(flow).degradation.reduce(made(chest, flow, texture=1.0)[0])
    np.testing.assert_allclose(reduced, chest, rtol=0, atol=1e-3)


def test_without_consistency_the_network_alone_decides(changed, film):
    with_facts(changed, consistency=False)
    found = made(film, str(changed), backend="torch")[0]
    with torch.inference_mode():
        low = torch.from_numpy(film / np.float32(255))[None, None]
        expected = load_network(open_bundle(changed))[0](low)[0, 0].clamp(0, 1).numpy()
    np.testing.assert_allclose(found, np.rint(expected * 255), atol=1)  # half a grey level is rounded either way


def test_the_hash_that_is_told_is_of_every_file_that_was_loaded(flow, film):
    hashes = find_bundle(flow).metadata["weights_sha256"]
    told = {name: enhance(film, flow, backend=name).provenance.weights_sha256 for name in ("torch", "onnx")}
    parts = {name: hashes[name] for name in ("model.onnx", "velocity.onnx")}
    assert told == {"torch": hashes["model.pt"], "onnx": combined_sha256(parts)}


def test_a_flow_needs_no_diffusers(flow, film, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "diffusers" else found(name))
    assert made(film, flow, texture=1.0).shape == (1, 96, 108)


def through_monai(config, root, source, out, **options):
    """What `python -m monai.bundle run` does, in this process."""
    workflow = ConfigWorkflow(
        config, logging_file=False, bundle_root=str(root), dataset_dir=str(source), output_dir=str(out), **options
    )
    workflow.initialize()
    workflow.run()
    workflow.finalize()
    return out


@pytest.mark.parametrize(("kind", "texture"), [("png", 0.5), ("radiograph", 0.0)])
def test_every_interface_gives_the_same_pixels(flow, packed_flow, tmp_path, kind, texture):
    if kind == "png":
        source = tmp_path / "chest.png"
        write_phantom_png(source, 40)
    else:  # 12 bits, whose storage reaches beyond the window
        source = radiograph(tmp_path / "chest.dcm", np.rint(200 + 3000 * draw_phantom(40)).astype(np.uint16))
    expected = enhance(source, flow, backend="torch", texture=texture, seed=2)
    words = ["--bundle", flow, "--backend", "torch", "--texture", str(texture), "--seed", "2", *QUIET]
    assert main(["enhance", str(source), f"{tmp_path / 'cli'}/", *words]) == 0
    options = {"seed": 2, "diffusion#texture": texture}
    checkout = [f"{flow}/model.yaml", str(configs_dir() / "workflows" / "inference.yaml")]
    config = str(packed_flow / "configs" / "inference.yaml")
    folders = [
        tmp_path / "cli",
        through_monai(checkout, flow, source, tmp_path / "monai", **options),
        through_monai(config, packed_flow, source, tmp_path / "packed", **options),
    ]
    for folder in folders:
        found = read_one(next(folder.iterdir()))
        assert found.pixels.dtype == expected.image.pixels.dtype
        np.testing.assert_array_equal(found.pixels, expected.image.pixels, err_msg=folder.name)
    if kind == "png":
        told = [str(Picture.open(next(folder.iterdir())).text) for folder in folders]
        assert all("texture 0.5 by flow in 8 steps" in each for each in told)


def test_the_packed_bundle_passes_the_checks_of_its_networks(packed_flow):
    names = ["shapes in and out", "TorchScript", "ONNX equals PyTorch", "modules complete", "no key twice"]
    checks = list(verify(packed_flow, only=names))
    assert len(checks) == len(names)
    assert [check for check in checks if not check.passed] == []


def test_a_velocity_of_other_weights_fails_its_check(packed_flow, tmp_path):
    folder = shutil.copytree(packed_flow, tmp_path / FLOW_BUNDLE)
    weights, metadata = folder / "models" / "model.pt", folder / "configs" / "metadata.json"
    state = torch.load(weights, weights_only=True)
    state["flow.tail.bias"] += 1
    torch.save(state, weights)
    stated = json.loads(metadata.read_text())
    stated["weights_sha256"]["model.pt"] = sha256_of(weights)
    metadata.write_text(json.dumps(stated))
    (check,) = verify(folder, only=["ONNX equals PyTorch"])
    assert "models/velocity.onnx differs from PyTorch by 1.0e+00" in check.message


def test_the_report_tells_the_texture_and_the_command_that_makes_it_again(flow, tmp_path):
    write_phantom_png(tmp_path / "film.png", size=32)
    words = ["--bundle", flow, "--seed", "4", "--texture", "0.5", "--steps", "2", "--report", *QUIET]
    for name, given in (("out", words), ("plain", ["--bundle", flow, "--report", *QUIET])):
        assert main(["enhance", str(tmp_path / "film.png"), str(tmp_path / f"{name}.png"), *given]) == 0
    out, plain = (json.loads((tmp_path / f"{name}.report.json").read_text())["run"] for name in ("out", "plain"))
    for name in ("out", "plain"):
        jsonschema.validate(json.loads((tmp_path / f"{name}.report.json").read_text()), REPORT_SCHEMA)
    assert (out["sampling"], plain["sampling"]) == ("texture 0.5 by flow in 2 steps", None)
    assert "texture 0.5 by flow in 2 steps" in (tmp_path / "out.report.html").read_text()
    again = made(tmp_path / "film.png", flow, seed=4, texture=0.5, steps=2)
    np.testing.assert_array_equal(np.asarray(Picture.open(tmp_path / "out.png")), again[0])


@pytest.mark.parametrize(
    ("bundle", "asked", "told"),
    [
        (None, {"steps": 0}, "--steps 0: a flow takes 1 to 64 steps; 1, 2, 4 and 8 are usual"),
        (None, {"steps": 65, "texture": 1.0}, "--steps 65: a flow takes 1 to 64 steps"),
        (None, {"texture": -0.1}, "--texture -0.1: expected a number from 0, the most faithful, to 1"),
        (None, {"texture": 1.1}, "--texture 1.1: expected a number from 0"),
        (None, {"sampler": "ddim"}, f"--sampler ddim: bundle {FLOW_BUNDLE} is a flow, which has one sampler"),
        (None, {"samples": 0}, "--samples 0: expected at least 1"),
        (SR3_BUNDLE, {"texture": 0.5}, f"--texture 0.5: bundle {SR3_BUNDLE} is a diffusion model, which draws the who"),
        ("bicubic", {"texture": 0.5}, "--texture: bundle bicubic is no diffusion model, it makes its result in one"),
    ],
)
def test_options_that_a_bundle_does_not_have_are_refused_before_anything_is_loaded(
    flow, film, bundle, asked, told, monkeypatch
):
    monkeypatch.setattr("monai_sr_bundle.engine.session.open_backend", lambda *_: pytest.fail("the network was loaded"))
    with pytest.raises(InputError, match=told):
        enhance(film, bundle or flow, **asked)


@pytest.mark.parametrize("name", ["model.onnx", "velocity.onnx"])
def test_both_parts_are_checked_before_they_are_loaded(changed, film, name):
    with pytest.raises(BundleError, match=f"{name} has SHA-256 .* damaged or was replaced; it was not loaded"):
        made(film, str(damaged(changed, name)), backend="onnx")


def test_parts_that_were_mixed_up_are_told_by_their_ends(changed, film):
    (changed / "velocity.onnx").write_bytes((changed / "model.onnx").read_bytes())
    hashes = open_bundle(changed).metadata["weights_sha256"]
    with_metadata(changed, weights_sha256=hashes | {"velocity.onnx": hashes["model.onnx"]})
    told = "velocity.onnx goes from image to pred, expected a network from state and condition and time to velocity"
    with pytest.raises(BundleError, match=told):
        made(film, str(changed), backend="onnx")


def test_an_unknown_word_of_the_flow_is_named(changed, film):
    with_facts(changed, diffusion=open_bundle(changed).facts["diffusion"] | {"guidance": 3})
    with pytest.raises(BundleError, match="`diffusion` has the unknown guidance; a flow states halo, noise, resid"):
        made(film, str(changed))


def test_a_bundle_whose_operator_is_unknown_is_named(tmp_path, film):
    folder = with_facts(copied(tmp_path), operator="magic_x4", consistency=True)
    with pytest.raises(BundleError, match="model.yaml: degradation is 'magic_x4', expected KERNEL_x"):
        made(film, str(folder))


@pytest.fixture(scope="module")
def drawn_set(tmp_path_factory):
    return write_radiographs(tmp_path_factory.mktemp("data"), size=96, counts=(("test", 2),))


def psnr_of(line):
    return float(line.split("psnr ")[1].split()[0])


def test_a_workflow_of_monai_measures_what_the_benchmark_does(flow, drawn_set, tmp_path, capsys):
    config = [f"{flow}/model.yaml", str(configs_dir() / "workflows" / "evaluate.yaml")]
    through_monai(config, flow, drawn_set, tmp_path, sets=["drawn"], reduce=1)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("psnr ")]
    rows = Row(flow, "expected"), Row(flow, "texture", texture=1.0, seeds=2)
    compared = Protocol(
        name="drawn", title="", about="", modality="CXR", sets=("drawn",), operator="bicubic_antialias_x4",
        window=(0, 255), levels=255, rows=(Row("bicubic", "Bicubic"), *rows),
    )  # fmt: skip
    bicubic, expected, texture = (result.figures["psnr"] for result in measure(compared, drawn_set, samples=0).results)
    assert np.mean(expected) == pytest.approx(psnr_of(line), abs=1e-3)
    assert np.mean(texture) < np.mean(expected) < np.mean(bicubic)  # weights that were made up


def test_the_command_line_measures_with_texture(flow, drawn_set, capsys):
    words = ("--data", drawn_set, "--sets", "drawn", "--limit", 1)
    heads = []
    for more in ((), ("--texture", 0.5, "--steps", 2)):
        assert main(["evaluate", *map(str, (flow, *words, *more))]) == 0
        heads.append(capsys.readouterr().out.splitlines()[0])
    assert "texture" not in heads[0]
    assert heads[1].endswith("texture 0.5 by flow in 2 steps")


def test_the_cost_of_a_texture_is_that_of_its_steps(flow):
    bundle = find_bundle(flow)
    none, eight, sixteen = (
        multiply_adds(bundle, "16x16", Row(flow, "", **options))
        for options in ({}, {"texture": 1.0}, {"texture": 1.0, "steps": 4, "samples": 4})
    )
    assert 0 < none < eight
    assert (sixteen - none) == pytest.approx(2 * (eight - none))


def test_in_a_comparison_a_flow_without_texture_has_one_seed_and_no_pictures_of_its_process(flow):
    def opened(row, **changes):
        return open_methods(
            Protocol(
                name="drawn", title="", about="", modality="CXR", sets=("drawn",), operator="bicubic_antialias_x4",
                window=(0, 255), levels=255, rows=(row,), **changes,
            )
        )  # fmt: skip

    with pytest.raises(InputError, match=f"bundle {FLOW_BUNDLE} draws nothing. Leave seeds out of the protocol's row"):
        opened(Row(flow, "", seeds=2))
    assert opened(Row(flow, "", seeds=2, texture=0.5))[0].seeds == 2
    row = Row(flow, "", texture=0.5)
    with pytest.raises(InputError, match="is no diffusion model. Take it out of `processes`"):
        opened(row, processes=(row.key,))
