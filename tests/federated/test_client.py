"""The trainer's process of a site, with a server of this test."""

from types import SimpleNamespace

import pytest

pytest.importorskip("nvflare", reason="federated training: nvflare is not installed (extra [federated])")

from monai_sr_bundle.federated import client, site_training
from monai_sr_bundle.federated.site_settings import write_site_settings
from monai_sr_bundle.federated.start_weights import start_state

from tests.federated.conftest import study


def test_the_trainer_of_a_later_job_knows_how_many_rounds_came_before(sites, tmp_path, monkeypatch):
    task, seeds, sent = study(rounds=4, iterations=1).task, [], []
    params = {key: value.numpy() for key, value in start_state(task.require_bundle(), "shipped").items()}
    messages = [SimpleNamespace(params=params, current_round=number, meta=None) for number in (2, 3)]
    server = SimpleNamespace(
        is_running=lambda: bool(messages),
        receive=lambda: messages.pop(0),
        get_job_id=lambda: "job",
        get_site_name=lambda: "north",
        is_evaluate=lambda: False,
        send=sent.append,
    )
    monkeypatch.setattr(client, "flare", server)
    seed = site_training.site_seed
    monkeypatch.setattr(site_training, "site_seed", lambda *arguments: seeds.append(arguments) or seed(*arguments))
    write_site_settings(sites["north"], tmp_path / "site.yaml")
    client._answer_server(task, tmp_path / "site.yaml")
    assert seeds == [(0, "north", 2)]
    assert len(sent) == 2
