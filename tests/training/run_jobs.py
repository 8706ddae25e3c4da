"""Train in every process of a torchrun, one job after the other: `torchrun -m tests.training.run_jobs JOBS RESULTS`.

Starting PyTorch and MONAI takes longer than ten steps of a training, so many of them share one launch.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.nn.functional  # imported after the group is made, it would keep the group for good
from monai.bundle import ConfigWorkflow


def run_job(files: list[str], arguments: dict[str, Any]) -> dict[str, Any]:
    """Run a workflow; return how often its optimizer stepped, and whether all processes hold the same weights.

    Args:
        files: texts of the workflow.
        arguments: keys that are replaced.
    """
    workflow = ConfigWorkflow(files, workflow_type="train", logging_file=False, **arguments)
    workflow.initialize()
    workflow.run()
    parameters = workflow.parser.get_parsed_content("network").parameters()
    weights = torch.cat([parameter.detach().reshape(-1) for parameter in parameters])
    others = [torch.empty_like(weights) for _ in range(dist.get_world_size())]
    dist.all_gather(others, weights)
    workflow.parser.get_parsed_content("step").close()
    return {
        "iterations": workflow.parser.get_parsed_content("budget").iterations,
        "equal": all(torch.equal(weights, other) for other in others),
        "finite": bool(torch.isfinite(weights).all()),
    }


def main(jobs: Path, results: Path) -> None:
    """Run the jobs of a JSON file in their order, and write what each gave; its first process writes."""
    dist.init_process_group("gloo")
    outcomes: dict[str, Any] = {}
    for name, job in json.loads(jobs.read_text()).items():
        print(name, flush=True)  # the last one that was begun, if this fails
        outcomes[name] = run_job(**job)
    first = dist.get_rank() == 0
    dist.destroy_process_group()
    if first:
        threads = [name.read_text().strip() for name in Path("/proc/self/task").glob("*/comm")]
        results.write_text(json.dumps(outcomes | {"threads": threads}))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
