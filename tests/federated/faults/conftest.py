"""The federation of these tests: its server's disk is a small one, where this machine lets us mount one."""

import subprocess

import pytest


@pytest.fixture(scope="session")
def federation(tmp_path_factory):
    """A server and three hospitals that run; `small_disk` says whether the server has a file system of its own."""
    pytest.importorskip("nvflare", reason="federated training: nvflare is not installed (extra [federated])")
    from tests.federated.federation import Federation

    root = tmp_path_factory.mktemp("federation")
    disk = root / "machines" / "localhost"
    disk.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(disk)]
    small_disk = subprocess.run(command, capture_output=True, check=False).returncode == 0
    federation = Federation(root, ("hospital-1", "hospital-2", "hospital-3"))
    federation.small_disk = small_disk
    try:
        with federation.running():
            yield federation
    finally:
        if small_disk:
            subprocess.run(["umount", "-l", str(disk)], check=False)
