"""A federation for tests: a server and hospitals as processes of their own, with mTLS on this machine."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import yaml
from monai_sr_bundle.federated.join import check_connection, install_kit, start, stop
from monai_sr_bundle.federated.site_policy import install_policy
from monai_sr_bundle.federated.site_settings import SETTINGS_FILE, SiteSettings, write_site_settings
from monai_sr_bundle.federated.startup_kits import ProvisionedKits, is_server, provision

from tests.drawn_data import write_radiographs

COORDINATOR = "coordinator@example.org"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Federation:
    """A server, hospitals and a coordinator under one folder.

    Args:
        root: folder for all of it.
        sites: names of the hospitals.
        bundle: bundle that they train. Default: SRCNN.
        images: training images of each hospital. Default 12.
    """

    def __init__(
        self, root: Path, sites: tuple[str, ...], bundle: str = "chest_xray_srcnn_x4", images: int = 12
    ) -> None:
        self.root, self.sites, self.bundle = root, sites, bundle
        participants = [
            {"name": "localhost", "type": "server", "org": "university", "fed_learn_port": free_port()},
            *({"name": site, "type": "client", "org": site.replace("-", "_")} for site in sites),
            {"name": COORDINATOR, "type": "admin", "org": "university", "role": "project_admin"},
        ]
        project = {"api_version": 3, "name": "test_federation", "participants": participants}
        (root / "project.yaml").write_text(yaml.safe_dump(project))
        self.kits: ProvisionedKits = provision(root / "project.yaml", root / "provisioned")
        self.admin = self.kits.folder / COORDINATOR
        self.server = self.install("localhost")
        for number, site in enumerate(sites):
            data = write_radiographs(root / "data" / site, size=96, counts=(("train", images + number), ("val", 2)))
            kit = self.install(site)
            write_site_settings(SiteSettings(data, kit / "work"), kit / "local" / SETTINGS_FILE)

    def install(self, name: str) -> Path:
        kit = install_kit(self.kits.folder / f"{name}.zip", self.root / "machines" / name, self.kits.fingerprint)
        install_policy(kit / "local", "server" if is_server(kit) else "site", bundle=self.bundle)
        return kit

    def site(self, name: str) -> Path:
        return self.root / "machines" / name / name

    @contextmanager
    def running(self) -> Iterator[Federation]:
        """Let all of it run in a `with` block."""
        try:
            self.start()
            yield self
        finally:
            for_all(end, [self.server, *map(self.site, self.sites)])

    def start(self) -> None:
        """Start all of it: first the server, which the hospitals look for, then these together."""
        check_connection(self.server)
        start(self.server)
        self.start_sites(self.sites)

    def start_sites(self, names: tuple[str, ...]) -> None:
        for_all(start, map(self.site, names))


def for_all(action: Callable[[Path], None], kits: Iterable[Path]) -> None:
    """Start or end several kits at the same time."""
    with concurrent.futures.ThreadPoolExecutor() as pool:
        list(pool.map(action, kits))


def end(kit: Path) -> None:
    """Stop a kit, and kill what it leaves, as trainers of jobs that were killed on purpose."""
    stop(kit)
    for process in processes_of(kit):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def processes_of(kit: Path, word: str = "") -> list[psutil.Process]:
    """Return the processes of a kit, the supervisor first, with a word in their command line."""
    processes = []
    for process in psutil.process_iter(["cmdline", "cwd", "create_time"]):
        line = " ".join(process.info["cmdline"] or ())
        in_kit = f"{kit}/" in f"{line}/" or str(process.info["cwd"] or "").startswith(str(kit))
        if in_kit and word in line and process.pid != os.getpid():
            processes.append(process)
    return sorted(processes, key=lambda process: float(process.info["create_time"]))


def kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        process.send_signal(signal.SIGKILL)


def wait_for(condition: Callable[[], object], seconds: float, what: str) -> object:
    """Wait until a condition holds, and return its value."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.2)
    raise AssertionError(f"{what} did not happen within {seconds:.0f} s")
