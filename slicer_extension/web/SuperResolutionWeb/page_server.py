"""The server of the page: on this machine alone, for who has the address."""

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
        image: to begin with, or None.
        host: the only address that is listened at.
        port: 0 for any that is free.
        browse: open the page in a browser.

    Raises:
        KeyboardInterrupt: the end.
    """
    asyncio.run(_serve(image, host, port, browse))


async def _serve(image: Path | None, host: str, port: int, browse: bool) -> None:
    token = secrets.token_hex(24)
    # trame reads variables, which could open the page to others, and the command line of the process, where ours
    # stands; it takes host and token from nowhere else.
    for name in [name for name in os.environ if name.startswith(("TRAME_", "WSLINK_"))]:
        del os.environ[name]
    os.environ["WSLINK_READY_MSG"] = ""  # a line for a launcher
    sys.argv[1:] = [f"--host={host}", f"--authKey={token}"]
    for name in ("wslink.protocol", "aiohttp.server", "asyncio"):
        logging.getLogger(name).addFilter(isNews)
    server = get_server("super-resolution", client_type="vue3")
    shell = Shell(server, worker_client.Worker(worker_client.workerCommand(sys.executable)))
    try:
        Page(server, shell.application.layouts)
        # "thread" leaves the signals to us, and timeout 0 lets the page be closed and opened again.
        serving = server.start(port=port, exec_mode="task", thread=True, timeout=0)
        await server.ready
        _tell(f"http://{host}:{server.port}/index.html?secret={token}", browse)
        if image is not None:
            with server.state:
                server.state.path = str(image.resolve())
                await shell.load(server.state.path)
        await asyncio.gather(serving, shell.live())
    finally:
        shell.close()


def isNews(record: logging.LogRecord) -> bool:
    """Whether a line of the log tells anything: a browser may go away while a picture is sent to it."""
    raised = record.exc_info or sys.exc_info()
    return not isinstance(raised[1], ConnectionResetError)


def _tell(address: str, browse: bool) -> None:
    print(f"Open {address}", flush=True)
    print("Only this machine can, and only with the whole address. Ctrl-C ends it.", flush=True)
    if browse and not webbrowser.open(address):
        print("No browser was found here: open the address yourself. --no-browser does not look for one.", flush=True)
