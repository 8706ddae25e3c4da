"""One federation for all tests that need one: provisioning, and starting seven processes, take most of their time."""

import pytest


@pytest.fixture(scope="session")
def federation(tmp_path_factory):
    """A server and three hospitals that run, with mTLS on this machine."""
    pytest.importorskip("nvflare", reason="federated training: nvflare is not installed (extra [federated])")
    from tests.federated.federation import Federation

    federation = Federation(tmp_path_factory.mktemp("federation"), ("hospital-1", "hospital-2", "hospital-3"))
    try:
        federation.start()
        yield federation
    finally:
        federation.stop()
