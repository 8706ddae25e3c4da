"""`monai-sr view` up to its page, which slicer_extension/web tests in a browser."""

import importlib.util
import socket

import pytest

from monai_sr_bundle.__main__ import main
from monai_sr_bundle.cli.view import HOST, check_port, extension_dir


def test_the_page_is_for_this_machine_alone(capsys):
    assert HOST == "127.0.0.1"
    with pytest.raises(SystemExit, match="2"):
        main(["view", "--host", "0.0.0.0"])
    assert "unrecognized arguments: --host" in capsys.readouterr().err


def test_the_library_and_the_page_lie_in_the_extension():
    assert (extension_dir() / "SuperResolution" / "SuperResolutionLib" / "controller.py").is_file()
    assert (extension_dir() / "web" / "SuperResolutionWeb" / "page_server.py").is_file()


def test_a_missing_extra_is_named_with_the_command_that_installs_it(film, capsys):
    assert importlib.util.find_spec("trame_slicer") is None, "this test belongs into an environment without [web]"
    assert main(["view", str(film)]) == 4
    message = capsys.readouterr().err
    assert "`monai-sr view` needs trame_slicer, not installed here" in message
    assert "pip install '.[web]'" in message
    assert message.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "message"), [("none.dcm", "none.dcm: does not exist"), ("letter.txt", "not an image that can be read")]
)
def test_a_path_without_an_image_is_refused(tmp_path, capsys, name, message):
    (tmp_path / "letter.txt").write_text("Dear colleague")
    assert main(["view", str(tmp_path / name)]) == 3
    assert message in capsys.readouterr().err


def test_a_port_in_use_is_refused(capsys):
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        listener.listen()
        port = listener.getsockname()[1]
        assert main(["view", "--port", str(port)]) == 2
    assert f"--port {port} cannot be used on this machine (Address already in use)" in capsys.readouterr().err


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_out_of_range_is_refused(port, capsys):
    assert main(["view", "--port", str(port)]) == 2
    assert f"--port {port}: expected a number from 1 to 65535" in capsys.readouterr().err
    check_port(0)  # any port that is free
