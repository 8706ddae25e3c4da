"""`monai-sr label`: the server of the MONAI Label app, its tokens, and its backups.

The app is the folder `monailabel_app` of a checkout, which a wheel carries inside the package. It is imported here
alone, because it needs the extra [label] and MONAI Label.
"""

from __future__ import annotations

import argparse
import errno
import importlib.util
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from monai_sr_bundle.errors import BundleError, InputError, OutputError

DEFAULT_STORE = Path("monai_sr_labels")
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `monai-sr label`."""
    parser.add_argument("--studies", metavar="DIR|URL", help="folder of images, or the address of a PACS' DICOMweb")
    parser.add_argument(
        "--store", type=Path, default=DEFAULT_STORE, metavar="DIR", help=f"boxes and weights (default {DEFAULT_STORE})"
    )
    parser.add_argument("--bundles", metavar="NAMES", help="comma-separated names or folders (default: all bundles)")
    parser.add_argument("--host", default=LOOPBACK[0], help="address to listen at; any but this machine needs tokens")
    parser.add_argument("--port", type=int, default=8000, metavar="N", help="port (default 8000)")
    parser.set_defaults(run=run_server)
    commands = parser.add_subparsers(dest="label_command", metavar="COMMAND")
    token = commands.add_parser("token", help="make an access token for a reader, shown once")
    token.add_argument("reader", metavar="READER", help="name of the reader, better a pseudonym")
    token.add_argument("--role", choices=("reader", "adjudicator", "admin"), default="reader")
    token.add_argument("--revoke", action="store_true", help="revoke all tokens of the reader instead")
    token.set_defaults(run=run_token)
    back_up = commands.add_parser("backup", help="copy all boxes into a file, of a running server, too")
    back_up.add_argument("out", type=Path, metavar="FILE", help="file to write")
    back_up.set_defaults(run=run_backup)
    restore = commands.add_parser("restore", help="put a backup in the place of the boxes, which are kept beside it")
    restore.add_argument("backup", type=Path, metavar="FILE", help="file of `monai-sr label backup`")
    restore.set_defaults(run=run_restore)
    for command in (token, back_up, restore):
        # Not again with its default, which would win over what stands before the command.
        command.add_argument("--store", type=Path, default=argparse.SUPPRESS, metavar="DIR")


def app_dir() -> Path:
    """Return the folder of the app."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "monailabel_app"
    return installed if installed.is_dir() else package.parent / "monailabel_app"


def run_server(options: argparse.Namespace) -> int:
    """Run `monai-sr label` and return its exit code."""
    if not options.studies:
        raise InputError("--studies is missing: a folder of images, or the address of a PACS' DICOMweb.")
    labelling = _import_app()
    with _explained():
        serve(options, labelling)
    return 0


def serve(options: argparse.Namespace, labelling: Path) -> None:
    """Serve until the process is interrupted."""
    import_module("labelling.compatibility")
    import uvicorn

    config = import_module("monailabel.config").settings
    is_address = options.studies.startswith(("http://", "https://"))
    config.MONAI_LABEL_APP_DIR = str(labelling)
    config.MONAI_LABEL_STUDIES = options.studies if is_address else os.path.abspath(options.studies)
    config.MONAI_LABEL_APP_CONF = {"store": str(options.store.absolute()), "bundles": options.bundles or ""}
    if options.host not in LOOPBACK:
        _require_tokens(options)
    _require_free_port(options.host, options.port)  # before the store, which a running server may have open
    open_context = import_module("labelling.context").open_context
    context = open_context(config.MONAI_LABEL_STUDIES, config.MONAI_LABEL_APP_CONF)
    app = import_module("server").app
    app.state.context = context
    print(f"http://{options.host}:{options.port} (boxes in {options.store}; end with Ctrl+C)", flush=True)
    # No access log: names of images in it could be those of patients.
    uvicorn.run(app, host=options.host, port=options.port, log_level="warning", access_log=False)


def _require_free_port(host: str, port: int) -> None:
    """Refuse an address that the server could not listen at."""
    if not 0 <= port <= 65535:
        raise InputError(f"--port {port}: expected a number from 0 to 65535.")
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise InputError(f"port {port} is in use: choose another with --port.") from error
        reason = str(error.strerror).partition(" (while")[0]  # Python repeats the address
        raise InputError(
            f"--host {host} --port {port}: the server cannot listen there ({reason}). Choose others."
        ) from error


def _require_tokens(options: argparse.Namespace) -> None:
    """Refuse to serve others without tokens, before the store is opened as the server's own."""
    with closing(_open_store(options.store)) as store:
        if not import_module("labelling.access").has_tokens(store):
            raise InputError(
                f"--host {options.host}: others than this machine could read and write boxes. Make tokens first with "
                "`monai-sr label token READER --role admin`, or leave the option out."
            )


def run_token(options: argparse.Namespace) -> int:
    """Run `monai-sr label token` and return its exit code."""
    _import_app()
    access = import_module("labelling.access")
    with _explained(), closing(_open_store(options.store)) as store:
        if options.revoke:
            print(f"{options.reader}: {access.revoke_tokens(store, options.reader)} tokens revoked")
        else:
            print(access.add_token(store, options.reader, options.role))
    return 0


def run_backup(options: argparse.Namespace) -> int:
    """Run `monai-sr label backup` and return its exit code."""
    _import_app()
    with _explained(), closing(_open_store(options.store, must_exist=True)) as store:
        head = store.back_up(options.out)
    print(f"{options.out}: newest row of the audit log {head}")
    return 0


def run_restore(options: argparse.Namespace) -> int:
    """Run `monai-sr label restore` and return its exit code."""
    _import_app()
    file = options.store / import_module("labelling.context").STORE_FILE
    with _explained():
        older = import_module("labelling.box_store").restore(options.backup, file)
    print(f"{file}: restored" + (f"; what was there is {older.name}" if older else ""))
    return 0


def _import_app() -> Path:
    """Put the app on the path, and return its folder.

    Raises:
        BundleError: MONAI Label is not installed.
    """
    missing = [
        name for name in ("sqlalchemy", "fastapi", "uvicorn", "monailabel") if not importlib.util.find_spec(name)
    ]
    if missing:
        raise BundleError(
            f"`monai-sr label` needs {', '.join(missing)}, not installed here. Install with `pip install "
            "'.[torch,dicom,label]'` in this package's folder, and then `pip install --no-deps monailabel==0.8.5 "
            "pydicom-seg==0.4.1`."
        )
    folder = app_dir()
    sys.path[:0] = [str(folder)]
    return folder


@contextmanager
def _explained() -> Iterator[None]:
    """Give the app's refusals the exit codes of the command line."""
    errors = import_module("labelling.errors")
    try:
        yield
    except errors.StorageError as error:
        raise OutputError(str(error)) from error
    except errors.RefusedError as error:
        raise InputError(str(error)) from error


def _open_store(folder: Path, *, must_exist: bool = False) -> Any:
    file = folder / import_module("labelling.context").STORE_FILE
    if must_exist and not file.is_file():
        raise InputError(f"{folder}: holds no boxes. Name the folder with --store.")
    return import_module("labelling.box_store").BoxStore(file)
