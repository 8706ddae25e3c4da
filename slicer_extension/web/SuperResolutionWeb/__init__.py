"""The browser page of `monai-sr view`: a thin shell on SuperResolutionLib, as the panel of the Slicer module is.

It runs beside monai_sr_bundle, whose readers and writers it uses, and needs the extra [web]. docs/viewer.md tells what
it can and how it is kept to this machine.
"""
