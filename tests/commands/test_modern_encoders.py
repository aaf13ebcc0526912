"""DPT on DINOv2 and SegFormer through whole runs: trained from a local file of weights, saved, built again."""

from __future__ import annotations

import json
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from u2pl.build import build_network, build_optimizer
from u2pl.commands.train import train
from u2pl.config.overrides import load_config
from u2pl.config.preset_files import preset_names
from u2pl.errors import InputError
from u2pl.networks import NETWORKS as BUILDERS
from u2pl.networks import smp_network
from u2pl.predictor import Predictor

DATA = ("data.train=6", "data.val=2", "data.labeled=3", "data.height=48", "data.width=64", "data.workers=0")
RUN = (
    *DATA,
    *(
        "method.schedule.warmup=0.3",
        "method.schedule.ramp=0",
        "method.contrast.bank_size=32",
        "method.contrast.keys_per_step=8",
        "method.contrast.negatives=16",
    ),
    *("train.steps=4", "train.batch_size=2", "train.accelerator=cpu", "train.precision=fp32", "train.log_every=1"),
    *("network.name=smp", "network.embedding_dim=6", "network.output_stride=null"),
    *("network.channels=null", "network.low_level_channels=null"),
    *("train.lr=0.001", "train.layer_decay=0.8", "train.lr_warmup=1", "train.weight_decay=0.01"),
)
NETWORKS = {
    "dinov2": ("network.architecture=DPT", "network.encoder=dinov2_small", "train.crop_size=56"),
    "mit": ("network.architecture=Segformer", "network.encoder=mit_b0", "train.crop_size=48"),
}


@pytest.fixture(autouse=True)
def small_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """DINOv2's ViT-S of 24 channels under a narrow decoder; MiT-B0 is small as it is."""
    torch.set_num_threads(1)
    vit: dict[str, Any] = {"embed_dim": 24, "num_heads": 2}
    decoder: dict[str, Any] = {"decoder_intermediate_channels": (8, 8, 8, 8), "decoder_fusion_channels": 12}

    @wraps(smp_network)
    def smp(*, num_classes: int, encoder: str = "", **options: Any) -> torch.nn.Module:
        small = {**vit, **decoder} if encoder.startswith("dinov2") else {"decoder_segmentation_channels": 16}
        return smp_network(num_classes=num_classes, encoder=encoder, **small, **options)

    monkeypatch.setitem(BUILDERS, "smp", smp)


def published(name: str, folder: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    """A file of weights as it would be fetched, and its tensors."""
    torch.manual_seed(7)
    if name == "dinov2":
        state = timm.create_model("vit_small_patch14_dinov2", embed_dim=24, num_heads=2).state_dict()
        save_file(state, folder / "model.safetensors")
        return folder / "model.safetensors", state
    state = smp_network(num_classes=2, architecture="Segformer", encoder="mit_b0").encoder.state_dict()
    torch.save({**state, "head.weight": torch.rand(1000, 256), "head.bias": torch.rand(1000)}, folder / "mit_b0.pth")
    return folder / "mit_b0.pth", state


@pytest.mark.parametrize(("name", "optimizer", "precision"), [("dinov2", "adamw", "fp32"), ("mit", "sgd", "bf16")])
def test_a_run_from_a_local_file(name: str, optimizer: str, precision: str, tmp_path: Path) -> None:
    weights, state = published(name, tmp_path)
    keys = (f"network.weights={weights}", f"train.optimizer={optimizer}", f"train.precision={precision}")
    config, out = load_config("scenes", [*RUN, *NETWORKS[name], *keys]), tmp_path / "run"
    done = train(config, out, say=lambda line: None)
    assert set(done.scores) == {"student", "teacher"}

    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    losses = [line for line in lines if "loss/supervised" in line]
    assert len(losses) == 4
    assert all(torch.isfinite(torch.tensor(value)) for line in losses for key, value in line.items() if "loss" in key)
    assert losses[-1]["loss/contrastive"] > 0
    assert losses[0]["lr"] == pytest.approx(0.001 * 0.75**0.9)  # that of the last layer, after one step of four

    weights.unlink()  # what was saved is enough
    predictor = Predictor.from_run(out)
    image = torch.randint(0, 256, (3, 45, 71), dtype=torch.uint8)
    prediction = predictor(image)
    assert prediction.mask.shape == (45, 71)
    saved = load_file(out / "last.safetensors")
    prefix = "model.encoder.model." if name == "dinov2" else "model.encoder."
    stem = "patch_embed.proj.weight" if name == "dinov2" else "patch_embed1.proj.weight"
    # From the file, and moved a little: no more than four steps of the stem's small rate.
    moved = (saved[prefix + stem] - state[stem]).abs().max()
    assert 0 < moved < 4 * 0.001


class Interrupt:
    """A watcher that ends the run after its third step."""

    def begin(self, steps: int) -> None: ...

    def step(self, done: int, losses: object) -> None:
        if done == 3:
            raise KeyboardInterrupt

    def evaluated(self, done: int, scores: object) -> None: ...


@pytest.mark.slow
@pytest.mark.parametrize("name", list(NETWORKS))
def test_a_run_goes_on_where_it_was(name: str, tmp_path: Path) -> None:
    config = load_config("scenes", [*RUN, *NETWORKS[name], "train.save_every=2"])
    train(config, tmp_path / "whole", say=lambda line: None)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "cut", watchers=(Interrupt(),), say=lambda line: None)
    train(config, tmp_path / "cut", resume=True, say=lambda line: None)
    whole, cut = (load_file(tmp_path / folder / "last.safetensors") for folder in ("whole", "cut"))
    assert all(torch.equal(whole[key], cut[key]) for key in whole)


def test_layer_decay_of_a_resnet_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    config = load_config("scenes", [*RUN, "train.crop_size=48", "network.name=deeplabv3plus", "network.channels=8"])
    with pytest.raises(InputError, match=r"^train\.layer_decay: "):
        train(config, tmp_path / "run", say=lambda line: None)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", [name for name in preset_names() if name in ("folder_dinov2", "folder_mit")])
def test_presets_build_and_pad_nothing(name: str) -> None:
    config = load_config(name, ["network.pretrained=false"])
    assert config.network.name == "smp"
    assert load_config(name).network.pretrained
    network = build_network(config, 4)
    assert config.train.crop_size % network.multiple == 0  # type: ignore[attr-defined,operator]
    optimizer = build_optimizer(config.train, network)
    assert optimizer.param_groups[-1]["lr"] == pytest.approx(config.train.lr * config.train.head_lr_factor)
    assert optimizer.param_groups[0]["lr"] == config.train.lr
