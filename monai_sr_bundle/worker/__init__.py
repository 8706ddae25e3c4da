"""The process behind a viewer, started by `python -m monai_sr_bundle.worker`."""
