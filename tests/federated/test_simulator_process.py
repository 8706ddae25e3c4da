"""Sites of a simulation that start at the same moment."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("nvflare", reason="federated training: nvflare is not installed (extra [federated])")

from monai_sr_bundle.federated import simulator_process
from nvflare.private.fed.app.simulator.simulator_runner import SimulatorClientRunner


def test_each_site_keeps_its_name_when_two_come_up_at_once(monkeypatch):
    both_are_named = threading.Barrier(2, timeout=30)

    def start_site(self, client):
        """Name a site, and read the name to send it, as NVFlare does."""
        self.build_ctx["client_name"] = client
        both_are_named.wait()
        return self.build_ctx["client_name"], self.build_ctx["shared"]

    monkeypatch.setattr(simulator_process, "_do_one_task", start_site)
    runner = SimulatorClientRunner.__new__(SimulatorClientRunner)
    runner.build_ctx = {"shared": 1}
    with ThreadPoolExecutor(2) as pool:
        names = list(pool.map(runner.do_one_task, ("north", "south")))
    assert names == [("north", 1), ("south", 1)]
