"""The process behind a viewer; `python -m monai_sr_bundle.worker` starts it, and nothing else."""
