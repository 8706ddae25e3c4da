"""`--engine ray` on two nodes of a Ray cluster on this machine."""

import os
import platform
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from monai_sr_bundle.__main__ import main
from monai_sr_bundle.cli.enlarging import ImageOptions, Task
from monai_sr_bundle.cli.events import Finished, Listed, Skipped
from monai_sr_bundle.cli.jobs import Job
from monai_sr_bundle.datasets.phantom import write_phantom_png
from monai_sr_bundle.images.files import Source

pytest.importorskip("ray", reason="RAY: ray is not installed (extra [cluster])")
pytestmark = pytest.mark.slow

IMAGES = 8


@pytest.fixture(scope="module")
def cluster():
    """A cluster of a head and one more node, with one core each."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        # Other tests keep the processors busy: its processes do not give way to them, and slow ones are not given up.
        patch.setenv("RAY_worker_niceness", "0")
        patch.setenv("RAY_health_check_timeout_ms", "60000")
        started = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        started.other_node = started.add_node(num_cpus=1)
        yield started
        started.shutdown()


@pytest.fixture
def films(tmp_path):
    (tmp_path / "in").mkdir()
    for index in range(IMAGES):
        write_phantom_png(tmp_path / "in" / f"{index}.png", size=32 + 8 * (index % 3))
    (tmp_path / "in" / "bad.png").write_bytes((tmp_path / "in" / "0.png").read_bytes()[:60])
    return tmp_path / "in"


def untimed(events, folder):
    """Return the events of each image once, without seconds and folder."""
    facts = [{name: value for name, value in asdict(event).items() if "seconds" not in name} for event in events]
    texts = (f"{type(event).__name__} {fact}" for event, fact in zip(events, facts, strict=True))
    return sorted({re.sub(re.escape(str(folder)), "", text) for text in texts})


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_a_lost_node_changes_neither_pixels_nor_events(cluster, films, tmp_path):
    runs = {}
    for engine in ("local", "ray"):
        events = []

        def listen(event, events=events, engine=engine):
            events.append(event)
            if engine == "ray" and cluster.other_node is not None and isinstance(event, Finished):
                cluster.remove_node(cluster.other_node, allow_graceful=False)
                cluster.other_node = None

        job = Job(
            [films], f"{tmp_path}/{engine}/", backend="onnx", bundle="bicubic", engine=engine, preview=True,
            address=cluster.address if engine == "ray" else None,
        )  # fmt: skip
        errors = job.run(listen)
        image_events = [event for event in events if not isinstance(event, Listed)]
        runs[engine] = list(map(str, errors)), untimed(image_events, tmp_path / engine), contents(tmp_path / engine)
    assert cluster.other_node is None
    assert runs["ray"] == runs["local"]
    assert len(runs["ray"][2]) == 2 * IMAGES
    second_events = []
    Job(
        [films], f"{tmp_path}/ray/", backend="onnx", bundle="bicubic", engine="ray", address=cluster.address,
        preview=True, skip_existing=True,
    ).run(second_events.append)  # fmt: skip
    assert sum(isinstance(event, Skipped) for event in second_events) == IMAGES
    assert not any(isinstance(event, Finished) for event in second_events)


def test_a_cluster_that_does_not_answer_is_a_clear_error(films, tmp_path, capsys):
    words = ["enhance", films, f"{tmp_path}/out/", "--engine", "ray", "--address", "not an address"]
    assert main([*map(str, words)]) == 3
    assert "--address not an address: no Ray cluster answers. Start one with" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("folder", "version", "message"),
    [
        ("/", "0.0.0", f"f.png: {platform.node()} has monai-sr-bundle "),
        ("/", None, f"f.png: /nowhere/f.png does not exist on {platform.node()}. Keep inputs and results on storage"),
        ("/nowhere", None, f"f.png: /nowhere does not exist on {platform.node()}."),
    ],
)
def test_a_machine_that_is_not_set_up_says_so(folder, version, message):
    from monai_sr_bundle.cli import ray_cluster

    path = Path("/nowhere/f.png")
    task = Task(0, Source("png", (path,), path, "f.png"), Path("/nowhere/f_sr.png"), None, (), (), False)
    (event,) = ray_cluster._enlarge((ImageOptions(), folder, version or ray_cluster.__version__), task)
    assert str(event.error).startswith(message)


def test_no_process_of_ray_imports_a_module_that_lies_beside_the_images(tmp_path):
    write_phantom_png(tmp_path / "a.png", size=32)
    (tmp_path / "pydicom.py").write_text("raise SystemExit('it was run')")
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "monai-sr"  # as pip installs it
    script.write_text("if __name__ == '__main__':\n    from monai_sr_bundle.__main__ import main\n    exit(main())")
    words = ["enhance", "a.png", "a_sr.png", "--backend", "onnx", "--bundle", "bicubic", "--engine", "ray"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    environment.pop("RAY_ADDRESS", None)
    done = subprocess.run(
        [sys.executable, script, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
