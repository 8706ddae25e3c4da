"""The browser page of `monai-sr view`: a thin layer over SuperResolutionLib, as the panel of the Slicer module is.

It uses the readers and writers of monai_sr_bundle and needs the extra [web]. docs/viewer.md says what the page can do
and how it is confined to this machine.
"""
