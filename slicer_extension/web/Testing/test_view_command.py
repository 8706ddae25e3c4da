"""`monai-sr view` as a process: who may reach it, what it says, and how it ends."""

import signal
import stat
import time

import psutil
import pytest
from browser import PATIENCE, Server


def listening(process):
    """Addresses at which a process listens."""
    return [link.laddr for link in psutil.Process(process.pid).net_connections() if link.status == psutil.CONN_LISTEN]


def children(process):
    return psutil.Process(process.pid).children(recursive=True)


def waitFor(holds):
    limit = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < limit
        time.sleep(0.05)


@pytest.fixture
def serve():
    """Starts servers that end with the test."""
    servers = []

    def start(*words, **environment):
        servers.append(Server(*words, **environment))
        return servers[-1]

    yield start
    for server in servers:
        server.process.kill()
        server.process.wait()


def test_it_listens_on_this_machine_alone_whatever_the_environment_says(serve, film):
    server = serve(film, "--no-browser", TRAME_DEFAULT_HOST="0.0.0.0", TRAME_ARGS="--host 0.0.0.0")
    assert listening(server.process) == [("127.0.0.1", server.port)]


def test_every_session_has_a_token_of_its_own(serve):
    servers = [serve("--no-browser") for _ in range(2)]
    tokens = [server.address.split("secret=")[1] for server in servers]
    assert len(set(tokens)) == 2
    assert min(map(len, tokens)) >= 32


@pytest.mark.parametrize(
    ("how", "code", "out", "err"),
    [
        (signal.SIGINT, 0, "\nThe page is closed.\n", ""),
        (signal.SIGTERM, 143, "", "monai-sr: error: stopped by SIGTERM; no partial files remain.\n"),
    ],
)
def test_its_end_is_the_worker_s_end(serve, film, how, code, out, err):
    server = serve(film, "--no-browser")
    waitFor(lambda: children(server.process))
    workers = children(server.process)
    assert server.end(how) == (code, out, err)
    waitFor(lambda: not any(worker.is_running() for worker in workers))


def test_a_port_that_is_in_use_is_told(serve):
    server = serve("--no-browser")
    with pytest.raises(AssertionError, match=f"--port {server.port} cannot be used on this machine"):
        serve("--no-browser", "--port", server.port)


def test_it_opens_the_page_in_the_person_s_browser(serve, tmp_path):
    program = tmp_path / "browser"
    program.write_text(f'#!/bin/sh\necho "$1" > "{tmp_path}/asked"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    server = serve(BROWSER=str(program))
    waitFor((tmp_path / "asked").is_file)
    waitFor(lambda: (tmp_path / "asked").read_text().strip())
    server.end()
    assert (tmp_path / "asked").read_text().strip() == server.address


def test_where_there_is_no_browser_it_says_what_to_do(serve, tmp_path):
    server = serve(PATH=str(tmp_path), DISPLAY="", WAYLAND_DISPLAY="", BROWSER="")
    assert server.process.stdout.readline().startswith("No browser was found here: open the address yourself.")
    server.end()


def test_a_browser_that_goes_away_while_a_picture_is_sent_is_no_news():
    import logging

    from SuperResolutionWeb.page_server import isWorthLogging

    record = logging.LogRecord("wslink.protocol", logging.ERROR, __file__, 1, "Exception raised", (), None)
    for error, news in ((ConnectionResetError("Cannot write to closing transport"), False), (ValueError("ours"), True)):
        try:
            raise error
        except (ConnectionResetError, ValueError):
            assert isWorthLogging(record) is news
        errorRecord = logging.LogRecord("asyncio", logging.ERROR, __file__, 1, "", (), (type(error), error, None))
        assert isWorthLogging(errorRecord) is news
    assert isWorthLogging(record)
