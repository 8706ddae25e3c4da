"""NVFlare's homomorphic encryption: the server adds what it cannot read, and the sites decrypt the mean."""

from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("nvflare", reason="federated training: nvflare is not installed (extra [federated])")
pytest.importorskip("tenseal", reason="secure aggregation: tenseal is not installed (extra [dev])")

import tenseal
from monai_sr_bundle.federated.join import start
from monai_sr_bundle.federated.site_settings import SiteSettings, write_site_settings
from monai_sr_bundle.shipped_bundles import find_bundle
from monai_sr_bundle.training.weights import read_weights
from nvflare.apis.dxo import DataKind
from nvflare.app_opt.pt.recipes.fedavg_he import FedAvgRecipeWithHE
from nvflare.client.config import ExchangeFormat, TransferType
from nvflare.lighter.impl.cert import CertBuilder
from nvflare.lighter.impl.he import HEBuilder
from nvflare.lighter.impl.signature import SignatureBuilder
from nvflare.lighter.impl.static_file import StaticFileBuilder
from nvflare.lighter.impl.workspace import WorkspaceBuilder
from nvflare.lighter.provision import prepare_project
from nvflare.lighter.provisioner import Provisioner
from nvflare.recipe import ProdEnv

from tests.federated.conftest import study
from tests.federated.federation import end, for_all, free_port
from tests.with_error_bars import write_windows

BUNDLE, ADMIN = "chest_xray_srcnn_x4", "admin@example.org"
SITES = ("site-1", "site-2", "site-3")


@pytest.fixture
def kits(tmp_path):
    """Running server and sites with mTLS and TenSEAL's contexts; the server's has no secret key."""
    participants = [
        {"name": "localhost", "type": "server", "org": "university", "fed_learn_port": free_port()},
        *({"name": site, "type": "client", "org": "hospital"} for site in SITES),
        {"name": ADMIN, "type": "admin", "org": "university", "role": "project_admin"},
    ]
    project = prepare_project({"api_version": 3, "name": "encrypted", "participants": participants})
    builders = [
        WorkspaceBuilder(),
        StaticFileBuilder(config_folder="config", scheme="grpc"),
        HEBuilder(),
        CertBuilder(),
        SignatureBuilder(),  # a site loads no context that is not signed
    ]
    Provisioner(str(tmp_path / "provisioned"), builders).provision(project)
    folder = tmp_path / "provisioned" / "encrypted" / "prod_00"
    server, sites = folder / "localhost", [folder / site for site in SITES]
    try:
        start(server)
        for_all(start, sites)
        yield folder
    finally:
        for_all(end, [server, *sites])


@pytest.mark.slow
def test_the_decrypted_mean_is_the_plain_one_and_the_server_cannot_read_it(kits, tmp_path, monkeypatch):
    task = study(name="encrypted").task
    (tmp_path / "task.json").write_text(task.as_text())
    for seed, site in enumerate(SITES):
        data = write_windows(tmp_path / "data" / site, "own", {"train": 4 + seed, "val": 1}, seed=seed)
        write_site_settings(SiteSettings(data, tmp_path / "work" / site, reduce=1), tmp_path / f"{site}.yaml")
    shipped = find_bundle(BUNDLE).weights("model.pt")[0]
    monkeypatch.chdir(tmp_path)
    recipe = FedAvgRecipeWithHE(
        name="encrypted",
        model={"class_path": "monai_sr_bundle.networks.srcnn.SRCNN", "args": {"scale": 4}},
        initial_ckpt=str(shipped),
        min_clients=3,
        num_rounds=1,
        train_script=str(Path(__file__).with_name("encrypted_site.py")),
        train_args=f"--root {tmp_path}",
        aggregator_data_kind=DataKind.WEIGHT_DIFF,
        server_expected_format=ExchangeFormat.NUMPY,
        params_transfer_type=TransferType.DIFF,
    )
    run = recipe.execute(ProdEnv(startup_kit_location=str(kits / ADMIN), login_timeout=120, username=ADMIN))
    result = Path(run.get_result(timeout=400))
    logs = [path.read_text() for path in kits.glob("*/*/log.txt")]
    errors = [line for log in logs for line in log.splitlines() if "ERROR" in line]
    assert run.get_status() == "FINISHED:COMPLETED", errors

    weights = {key: value.numpy().astype(np.float64) for key, value in read_weights(shipped).items()}
    sent = [torch.load(tmp_path / f"{site}.pt", weights_only=True) for site in SITES]
    images = [each["images"] for each in sent]
    assert images == [4, 5, 6]
    encrypted = torch.load(result / "workspace" / "app_server" / "FL_global_model.pt", weights_only=True)["model"]
    site = tenseal.context_from((kits / SITES[0] / "startup" / "client_context.tenseal").read_bytes())
    server = tenseal.context_from((kits / "localhost" / "startup" / "server_context.tenseal").read_bytes())
    assert not server.has_secret_key()
    for key, value in weights.items():
        mean = sum(count * each["difference"][key].numpy() for count, each in zip(images, sent, strict=True)) / sum(
            images
        )
        decrypted = np.reshape(tenseal.ckks_vector_from(site, encrypted[key]).decrypt(), value.shape)
        assert np.abs(mean).max() > 1e-5
        np.testing.assert_allclose(decrypted - value, mean, atol=1e-6)  # 1e-3 was asked for
        with pytest.raises(ValueError, match="secret"):
            tenseal.ckks_vector_from(server, encrypted[key]).decrypt()
