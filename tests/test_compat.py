"""The repairs work in a fresh process, as a user meets them."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )


def test_idle_threads_sleep_unless_the_user_said_otherwise(monkeypatch):
    from monai_sr_bundle._compat import quiet_openmp

    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    quiet_openmp()
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    quiet_openmp()
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"


@pytest.mark.parametrize("system", ["linux", "darwin"])
def test_freed_buffers_go_back_where_the_system_keeps_them(monkeypatch, system):
    """`test_memory.py` measures the memory that this saves."""
    from monai_sr_bundle import _compat

    calls = []
    library = SimpleNamespace(mallopt=lambda *values: calls.append(values))
    monkeypatch.setattr(_compat.ctypes, "CDLL", lambda name: library)
    monkeypatch.setattr(sys, "platform", system)
    _compat.return_large_buffers()
    assert calls == ([(-3, 4 * 1024**2), (-1, 16 * 1024**2)] if system == "linux" else [])
    del library.mallopt
    _compat.return_large_buffers()


@pytest.mark.slow
def test_lpips_can_be_imported_and_used_after_the_repair():
    result = run_python(
        "from monai_sr_bundle._compat import import_torchvision\n"
        "import_torchvision()\n"
        "import lpips, torch\n"
        "net = lpips.LPIPS(net='squeeze', pnet_rand=True, verbose=False)\n"
        "image = torch.rand(1, 3, 64, 64, requires_grad=True)\n"
        "net(image, torch.rand(1, 3, 64, 64)).sum().backward()\n"
        "assert image.grad.abs().sum() > 0\n"
        "print(float(net(image, image)))"
    )
    assert result.returncode == 0, result.stderr
    assert float(result.stdout) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.slow
def test_the_repair_is_still_needed_or_torchvision_is_whole():
    """The repair leaves the operators of a torchvision that imports by itself alone."""
    plain = run_python("import torchvision")
    repaired = run_python(
        "from monai_sr_bundle._compat import import_torchvision\n"
        "import_torchvision()\n"
        "import torch\n"
        "from torchvision.ops import nms\n"
        "print(nms(torch.tensor([[0., 0., 2., 2.], [0., 0., 2., 2.]]), torch.tensor([0.9, 0.8]), 0.5).tolist())"
    )
    if plain.returncode == 0:
        assert repaired.stdout.strip() == "[0]"
    else:
        assert "operator torchvision::nms does not exist" in plain.stderr
        assert "Couldn't load custom C++ ops" in repaired.stderr


def test_another_failure_of_torchvision_is_not_hidden(tmp_path):
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text("raise RuntimeError('built for another planet')")
    result = run_python(
        "from monai_sr_bundle._compat import import_torchvision; import_torchvision()", PYTHONPATH=str(tmp_path)
    )
    assert result.returncode != 0
    assert "built for another planet" in result.stderr
