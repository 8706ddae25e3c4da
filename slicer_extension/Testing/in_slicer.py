"""The extension in a real Slicer: the panel installs its models from a folder of wheels, the self test passes, and a
result of the sample radiograph is compared.

    Slicer --testing --no-splash --additional-module-paths MODULES --python-script in_slicer.py WHEELS

MODULES is the folder of the installed module, WHEELS a folder of wheels for Slicer's Python. The exit code is 0 where
all of it holds. It has not been run in Slicer yet, only on the stand-ins of test_in_slicer.py.
"""

import sys
import time
import traceback

import slicer

PATIENCE = 900.0  # seconds for an installation: the machine of a continuous integration is slow


def until(holds, what):
    limit = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < limit, f"{what}: not within {PATIENCE:g} s"
        slicer.app.processEvents()
        time.sleep(0.01)


def runAll(wheels):
    """Use the panel as a user does; an AssertionError says what does not work."""
    import SuperResolution

    slicer.util.selectModule("SuperResolution")
    panel = slicer.util.getModuleWidget("SuperResolution")
    slicer.util.confirmOkCancelDisplay = lambda *arguments, **options: True
    panel.ui.wheelFolderLineEdit.text = wheels
    panel.ui.installButton.click()
    until(lambda: panel._installation is None, "the installation")
    print(panel.ui.installProgressLabel.text)
    until(lambda: panel.ui.bundleComboBox.count > 1, "the panel offers models")
    SuperResolution.SuperResolutionTest().runTest()

    sample = panel.resourcePath("SampleData/DrawnChestRadiograph.nrrd")
    panel._parameterNode.inputVolume = slicer.util.loadVolume(sample)
    panel.setRegion([0, 1, 64, 192, 64, 192])
    until(lambda: panel.ui.runButton.enabled, "Run is offered")
    panel.ui.runButton.click()
    until(lambda: panel._parameterNode.result is not None, "a result")
    for button in (*panel.compareButtons.values(), panel.ui.showErrorBarsCheckBox):
        if not button.checked:
            button.click()
        slicer.app.processEvents()
        assert (button.checked, panel.ui.compareLabel.text) == (True, "")


def main(wheels):
    """Return the exit code."""
    try:
        runAll(wheels)
    except BaseException:
        traceback.print_exc()
        return 1
    print("The extension works in this Slicer.")
    return 0


if __name__ == "__main__":
    slicer.util.exit(main(sys.argv[1]))
