"""The extension in a real Slicer: its module opens, installs what it needs from a folder, and passes its self test.

    Slicer --testing --no-splash --additional-module-paths MODULES --python-script in_slicer.py WHEELS

MODULES is the folder of the installed module, WHEELS a folder of wheels for Slicer's Python. Slicer ends with code 0
where all of it holds. Slicer 5.8 has Python 3.9, for which the models are not made: there the panel must say so.
"""

import sys
import time
import traceback

import slicer

PATIENCE = 900.0
"""Seconds for an installation: the machine of a continuous integration is slow."""


def openPanel():
    """The panel, as a user opens it."""
    slicer.util.selectModule("SuperResolution")
    panel = slicer.util.getModuleWidget("SuperResolution")
    slicer.app.processEvents()
    return panel


def tell(text):
    print(f"in_slicer: {text}", flush=True)


def until(holds, what):
    limit = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < limit, f"{what}: not within {PATIENCE:g} s"
        slicer.app.processEvents()
        time.sleep(0.01)


def runAll(wheels):
    """Whether the extension works, in the order in which a user meets it; an AssertionError says what does not."""
    import SuperResolution

    panel = openPanel()
    until(lambda: panel._shown is not None, "the panel asks whether the models are installed")
    plan = SuperResolution.newPlan("base", wheels, "")
    tell(plan.summary)
    if sys.version_info < (3, 11):
        assert "runs on 3.11 and 3.12" in plan.summary, plan.summary
        return
    if not plan.isInstalled:
        panel.ui.wheelFolderLineEdit.text = wheels
        slicer.util.confirmOkCancelDisplay = lambda *words, **options: True  # with --testing, Slicer's own says no
        panel.ui.installButton.click()
        until(lambda: panel._installation is None, "the installation")
        tell(panel.ui.installProgressLabel.text)
    until(lambda: panel._shown.installed and panel.ui.bundleComboBox.count > 1, "the panel offers models")
    SuperResolution.SuperResolutionTest().runTest()


if __name__ == "__main__":
    try:
        runAll(sys.argv[1])
        tell("all of it holds")
        code = 0
    except BaseException:
        traceback.print_exc()
        code = 1
    slicer.util.exit(code)
