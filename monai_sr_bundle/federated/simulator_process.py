"""NVFlare's simulator, whose threads do not share the name of a site.

    python -m monai_sr_bundle.federated.simulator_process JOB -w WORKSPACE -c NORTH,SOUTH -t 2

NVFlare 2.9 writes the name of the site whose process has come up into one dict, and then sends it to the process. If
two come up at once, one of them gets the name of the other: its trainer cannot start, and the server waits for it until
the round is over.
"""

from __future__ import annotations

import copy
import runpy
from typing import Any

from nvflare.private.fed.app.simulator.simulator_runner import SimulatorClientRunner

_do_one_task = SimulatorClientRunner.do_one_task


def _do_one_task_with_own_context(self: SimulatorClientRunner, *arguments: Any, **options: Any) -> Any:
    runner_of_site = copy.copy(self)
    runner_of_site.build_ctx = dict(self.build_ctx)
    return _do_one_task(runner_of_site, *arguments, **options)


SimulatorClientRunner.do_one_task = _do_one_task_with_own_context

if __name__ == "__main__":
    runpy.run_module("nvflare.private.fed.app.simulator.simulator", run_name="__main__", alter_sys=True)
