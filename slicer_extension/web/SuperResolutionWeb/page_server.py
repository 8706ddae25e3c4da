"""The server of the page: for this machine only, and only for those who have the address."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import sys
import webbrowser
from pathlib import Path

from SuperResolutionLib import worker_client
from trame.app import get_server

from SuperResolutionWeb.page import Page
from SuperResolutionWeb.shell import Shell


def serve(image: Path | None, host: str, port: int, browse: bool) -> None:
    """Serve the page until this process is interrupted.

    Args:
        image: image to open first, or None.
        host: the only address that the server listens on.
        port: port number; 0 takes any free port.
        browse: open the page in a browser.

    Raises:
        KeyboardInterrupt: the user ended the server.
    """
    asyncio.run(_serve(image, host, port, browse))


async def _serve(image: Path | None, host: str, port: int, browse: bool) -> None:
    token = secrets.token_hex(24)
    # trame reads environment variables, which could open the page to others, and the command line, from which alone
    # it takes host and token.
    for name in [name for name in os.environ if name.startswith(("TRAME_", "WSLINK_"))]:
        del os.environ[name]
    os.environ["WSLINK_READY_MSG"] = ""  # no line for a launcher
    sys.argv[1:] = [f"--host={host}", f"--authKey={token}"]
    for name in ("wslink.protocol", "aiohttp.server", "asyncio"):
        logging.getLogger(name).addFilter(isWorthLogging)
    server = get_server("super-resolution", client_type="vue3")
    shell = Shell(server, worker_client.WorkerClient(worker_client.workerCommand(sys.executable)))
    try:
        Page(server, shell.application.layouts)
        # "thread" leaves the signals to us; with timeout 0 the page can be closed and opened again.
        serving = server.start(port=port, exec_mode="task", thread=True, timeout=0)
        await server.ready
        _printAddress(f"http://{host}:{server.port}/index.html?secret={token}", browse)
        if image is not None:
            with server.state:
                server.state.path = str(image.resolve())
                await shell.load(server.state.path)
        await asyncio.gather(serving, shell.live())
    finally:
        shell.close()


def isWorthLogging(record: logging.LogRecord) -> bool:
    """Leave out lines about a browser that went away while a picture was sent to it."""
    _, error, _ = record.exc_info or sys.exc_info()
    return not isinstance(error, ConnectionResetError)


def _printAddress(address: str, browse: bool) -> None:
    print(f"Open {address}", flush=True)
    print("Only this machine can, and only with the whole address. Ctrl-C ends it.", flush=True)
    if browse and not webbrowser.open(address):
        print("No browser was found here: open the address yourself. --no-browser does not look for one.", flush=True)
