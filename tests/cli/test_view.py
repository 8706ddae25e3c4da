"""`monai-sr view` up to its page, which slicer_extension/web tests in a browser."""

import importlib.util
import socket

import pytest

from monai_sr_bundle.__main__ import main
from monai_sr_bundle.cli.view import HOST, check_port, extension_dir
from monai_sr_bundle.datasets.phantom import write_phantom_png


@pytest.fixture
def film(tmp_path):
    write_phantom_png(tmp_path / "film.png", size=64)
    return tmp_path / "film.png"


def test_the_page_is_for_this_machine_alone():
    assert HOST == "127.0.0.1"


def test_another_host_cannot_be_asked_for(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["view", "--host", "0.0.0.0"])
    assert "unrecognized arguments: --host" in capsys.readouterr().err


def test_the_library_and_the_page_lie_in_the_extension():
    assert (extension_dir() / "SuperResolution" / "SuperResolutionLib" / "controller.py").is_file()
    assert (extension_dir() / "web" / "SuperResolutionWeb" / "page_server.py").is_file()


def test_a_missing_extra_is_named_with_the_command_that_installs_it(film, capsys):
    assert importlib.util.find_spec("trame_slicer") is None, "this test belongs into an environment without [web]"
    assert main(["view", str(film)]) == 4
    said = capsys.readouterr().err
    assert "`monai-sr view` needs trame_slicer, not installed here" in said
    assert "pip install 'monai-sr-bundle[web]'" in said
    assert said.count("\n") == 1


def test_a_path_that_does_not_exist_is_told(tmp_path, capsys):
    assert main(["view", str(tmp_path / "none.dcm")]) == 3
    assert "none.dcm: does not exist" in capsys.readouterr().err


def test_a_file_that_is_no_image_is_told(tmp_path, capsys):
    (tmp_path / "letter.txt").write_text("Dear colleague")
    assert main(["view", str(tmp_path / "letter.txt")]) == 3
    assert "not an image that can be read" in capsys.readouterr().err


def test_a_port_in_use_is_told(capsys):
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["view", "--port", str(port)]) == 2
    assert f"--port {port} cannot be used on this machine (Address already in use)" in capsys.readouterr().err


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_that_cannot_be_is_told(port, capsys):
    assert main(["view", "--port", str(port)]) == 2
    assert f"--port {port}: expected a number from 1 to 65535" in capsys.readouterr().err


def test_no_port_means_any_that_is_free():
    check_port(0)
