"""Published weights of encoders: which files they are, and their way into the hub's cache."""

from __future__ import annotations

import hashlib
import re
from functools import cache
from pathlib import Path

import segmentation_models_pytorch as smp
import timm
from huggingface_hub import hf_hub_download

from u2pl.errors import InputError
from u2pl.networks.smp_choices import check_encoder, imagenet_tag
from u2pl.networks.transformers import SHORT_NAMES
from u2pl.networks.weights import fetching

_FILE = "model.safetensors"
_PART = 2**22  # bytes read at a time


@cache
def unfetchable(encoder: str) -> str | None:
    """Why the published weights of an encoder cannot be had, in a few words; None once they are in the local cache.

    Fetches them if they are not, with the hub's progress bar.

    Args:
        encoder: as ``network.encoder``, of either network.
    """
    try:
        fetch(encoder)
    except InputError as error:
        found = re.search(r"\((.*)\)", str(error))
        return found[1] if found else str(error)
    return None


def fetch(encoder: str) -> Path:
    """Fetch the published weights of an encoder into the hub's cache, unless they are there.

    Raises:
        InputError: if the encoder is unknown or has no published weights, or if they cannot be fetched or are damaged.
    """
    repository, revision = location(encoder)
    with fetching(encoder):
        path = Path(hf_hub_download(repository, _FILE, revision=revision))
        check(path)
        if not repository.startswith("timm/"):  # the mean and the spread of its colours, which timm knows by itself
            hf_hub_download(repository, "config.json", revision=revision)
    return path


def location(encoder: str) -> tuple[str, str | None]:
    """The repository of an encoder's weights on the hub, and their revision; None: the newest.

    Raises InputError if the encoder is unknown or has no published weights.
    """
    check_encoder(encoder)
    encoder = SHORT_NAMES.get(encoder, encoder)
    tag = imagenet_tag(encoder)
    if encoder.startswith("tu-"):
        published = timm.get_pretrained_cfg(encoder.removeprefix("tu-"))
        if published is None or published.hf_hub_id is None:
            raise InputError(
                f"network.pretrained: the weights of {encoder} are not on the hub; give network.weights=PATH"
            )
        return published.hf_hub_id, None
    settings = smp.encoders.encoders[encoder]["pretrained_settings"][tag]
    return settings["repo_id"], settings["revision"]


def check(path: Path) -> None:
    """Compare a file of the hub's cache with its SHA-256, by which the cache names large files.

    Raises ValueError, and removes the file, if it is damaged: the next start fetches it again.
    """
    content = path.resolve()
    if re.fullmatch(r"[0-9a-f]{64}", content.name) is None:
        return
    digest = hashlib.sha256()
    with content.open("rb") as file:
        while part := file.read(_PART):
            digest.update(part)
    if digest.hexdigest() != content.name:
        content.unlink()
        path.unlink(missing_ok=True)
        raise ValueError(f"the file {path.name} was damaged and is removed: start again")
