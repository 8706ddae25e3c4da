"""The stages of a bundle's training, in the order in which they are trained."""

from __future__ import annotations

from monai_sr_bundle.bundles import Bundle


def training_stages(bundle: Bundle) -> dict[str, list[str]]:
    """Return the texts that each stage of a bundle's training adds to model.yaml, without ".yaml".

    `training` in model.yaml names the text that each stage adds; a list there is one stage that adds several. What it
    names under `pretraining` is the first stage, laid over the first of these texts. The stage of train_gan.yaml is
    "gan".
    """
    added = bundle.facts.get("training") or []
    stages: list[list[str]] = []
    for entry in [added] if isinstance(added, str) else added:
        texts = [entry] if isinstance(entry, str) else entry
        stages.append([*(stages[-1] if stages else []), *texts])
    if stages and (pretraining := bundle.facts.get("pretraining")):
        stages.insert(0, [stages[0][0], pretraining])
    return {texts[-1].removeprefix("train_"): texts for texts in stages}
