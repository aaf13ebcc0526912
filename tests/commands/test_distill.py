"""Distillation of runs of every kind: real photographs, two domains, tags, an image prior, another network."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torchvision.models import resnet18

from tiny_run import KillAt, KilledError
from u2pl.build import build_batches, build_source
from u2pl.commands.distill import Distilled, distill
from u2pl.commands.pseudo_masks import Labelling
from u2pl.commands.train import train
from u2pl.config.overrides import load_config, load_saved
from u2pl.errors import InputError
from u2pl.predictor import Predictor

SHORT = (
    *("train.steps=4", "train.batch_size=2", "train.crop_size=48", "train.accelerator=cpu", "train.precision=fp32"),
    *("train.save_every=2", "train.log_every=1", "train.eval_every=0", "data.workers=0"),
    *("network.channels=8", "network.low_level_channels=8", "network.embedding_dim=8"),
    *("method.contrast.bank_size=64", "method.contrast.keys_per_step=8"),
)
SCENES = ("data.train=8", "data.val=2", "data.height=48", "data.width=64")
ONCE = Labelling(scales=(1.0,), flip=False)


def quiet(line: str) -> None:
    pass


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def teacher(tmp_path: Path) -> Callable[..., Path]:
    """``teacher("scenes", "data.labeled=3")``: a run of four steps."""

    def trained(preset: str, *overrides: str, out: str = "run") -> Path:
        return train(load_config(preset, [*SHORT, *overrides]), tmp_path / out, say=quiet).folder

    return trained


def students(run: Path, *overrides: str, out: str = "student", **options: Any) -> Distilled:
    return distill(run, run.parent / out, overrides, say=quiet, **options)


def written(folder: Path) -> dict[str, np.ndarray]:
    masks = folder / "pseudo_masks"
    return {
        path.relative_to(masks).with_suffix("").as_posix(): np.array(Image.open(path)) for path in masks.rglob("*.png")
    }


def source_of(run: Path) -> Any:
    config = load_saved(run / "config.yaml")
    return build_source(config.data, seed=config.seed)


@pytest.fixture
def photographs(real_data: Path, tmp_path: Path) -> Path:
    """Eight images of CamVid, five of them without a mask, and a validation image."""
    root, found = tmp_path / "camvid", sorted((real_data / "camvid" / "images").rglob("*.*"))[:9]
    for number, path in enumerate(found):
        name = Path("val" if number == 8 else "train", path.name)
        (root / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, root / "images" / name)
        mask = real_data / "camvid" / "masks" / path.relative_to(real_data / "camvid" / "images").with_suffix(".png")
        if number in (0, 1, 2, 8):
            (root / "masks" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(mask, root / "masks" / name.with_suffix(".png"))
    shutil.copy(real_data / "camvid" / "classes.txt", root)
    return root


@pytest.mark.slow
def test_photographs(teacher: Callable[..., Path], photographs: Path) -> None:
    """Masks are as large as the images that training reads, and equal the predictor's of the same settings."""
    keys = (f"data.root={photographs}", "data.val=val", "data.scale=0.25", "network.output_stride=16")
    run = teacher("folder", *keys, "method.name=mean_teacher")
    labelling = Labelling(scales=(0.5, 1.0), flip=True)
    done = students(run, "network.encoder=resnet34", labelling=labelling)
    predictor = Predictor.from_run(run, overrides=["evaluation.scales=[0.5, 1.0]", "evaluation.flip=true"])
    predictor.scale = 1.0
    found, samples = written(done.folder), source_of(run).unlabeled
    assert len(found) == len(samples) == 5
    for sample in samples:
        assert np.array_equal(found[sample.name], predictor.mask(sample.image()).numpy())
    assert [model.name for model in done.models] == ["teacher", "student"]
    assert done.models[0].network == "deeplabv3plus resnet18"
    assert done.models[1].network == "deeplabv3plus resnet34"
    assert done.models[1].parameters > done.models[0].parameters
    assert all(model.scores is not None for model in done.models)


@pytest.mark.slow
def test_half_of_a_batch_of_a_run_is_pseudo_labeled(teacher: Callable[..., Path]) -> None:
    run = teacher("scenes", *SCENES, "data.labeled=3", "method.name=supervised")
    done = students(run, labelling=ONCE)
    config = load_saved(done.folder / "config.yaml").with_values({"train.crop_size": [48, 64], "train.flip": 0.0})
    config = config.with_values({"train.scale_range": [1.0, 1.0], "train.batch_size": 4})
    source = build_source(config.data, seed=config.seed)
    assert [len(source.labeled), len(source.pseudo), len(source.unlabeled)] == [3, 5, 5]
    true = [sample.mask() for sample in source.labeled]
    false = [torch.from_numpy(mask) for mask in written(done.folder).values()]
    for crops in build_batches(config, source, semi_supervised=False, rank=0, world_size=1)(0):
        kinds = [(any(torch.equal(label, mask) for mask in true), any(torch.equal(label, mask) for mask in false))
                 for label in crops.label]  # fmt: skip
        assert sorted(kinds) == [(False, True)] * 2 + [(True, False)] * 2
        assert crops.unlabeled is None
    more = students(run, "data.pseudo_share=0.25", labelling=ONCE, out="more")
    assert (more.folder / "last.safetensors").read_bytes() != (done.folder / "last.safetensors").read_bytes()


@pytest.mark.slow
def test_a_student_trains_on_its_pseudo_masks(teacher: Callable[..., Path]) -> None:
    """Not on the masks that unlabeled scenes have, nor on nothing: other pseudo-masks, other weights."""
    run = teacher("scenes", *SCENES, "data.labeled=3", "method.name=supervised")
    first = students(run, labelling=ONCE)
    other = run.parent / "other"
    shutil.copytree(first.folder / "pseudo_masks", other / "pseudo_masks")
    for path in (other / "pseudo_masks").glob("*.png"):
        Image.fromarray(np.full((48, 64), 2, dtype=np.uint8)).save(path)
    second = students(run, labelling=ONCE, out="other")
    assert (first.folder / "last.safetensors").read_bytes() != (second.folder / "last.safetensors").read_bytes()


@pytest.mark.slow
def test_a_stopped_training_goes_on(teacher: Callable[..., Path]) -> None:
    run = teacher("scenes", *SCENES, "data.labeled=3", "method.name=mean_teacher", "method.teacher.passes=1")
    whole = students(run, labelling=ONCE)
    with pytest.raises(KilledError):
        students(run, labelling=ONCE, out="parts", watchers=(KillAt(3),))
    parts = students(run, labelling=ONCE, out="parts")
    assert (whole.folder / "last.safetensors").read_bytes() == (parts.folder / "last.safetensors").read_bytes()
    assert whole.models == parts.models


@pytest.mark.slow
def test_unlabeled_images_of_the_target_domain_are_labeled(teacher: Callable[..., Path]) -> None:
    size = ("height=48", "width=64")
    keys = [f"data.{part}.{key}" for part in ("source", "target") for key in (*size, "train=4")]
    run = teacher("domain", *keys, "data.target.val=2", "method.schedule.warmup=0.3")
    done = students(run, labelling=ONCE)
    source = source_of(done.folder)
    assert all(sample.name.startswith("source/") for sample in source.labeled)
    assert set(written(done.folder)) == {sample.name for sample in source.unlabeled}
    assert all(name.startswith("target/") for name in written(done.folder))
    done = students(run, labelling=ONCE)  # goes on, with nothing to do
    assert done.models[1].scores is not None


@pytest.mark.slow
def test_without_a_label_all_labels_are_pseudo_masks(teacher: Callable[..., Path]) -> None:
    keys = ("method.cam.warmup=0.3", "method.schedule.warmup=0.6", "train.crop_size=[48,64]", "method.cam.scales=[1.0]")
    run = teacher("weak", *SCENES, *keys)
    assert load_saved(run / "config.yaml").evaluation.tags
    done = students(run, labelling=ONCE)
    source = source_of(done.folder)
    assert (len(source.labeled), len(source.pseudo)) == (0, 8)
    predictor = Predictor.from_run(run)  # with its classification head
    for sample in source.unlabeled:
        assert np.array_equal(written(done.folder)[sample.name], predictor.mask(sample.image()).numpy())


def prefer_told_classes(path: Path) -> None:
    """Let a network predict the classes that its image prior is about: four steps teach it hardly any."""
    with safe_open(path, framework="pt") as file:
        metadata, state = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    told = state["image_prior.told"]
    assert told.any()
    (bias,) = (name for name in state if name.startswith("classifier.") and state[name].shape == told.shape)
    state[bias][told] += 9
    save_file(state, path, metadata)


@pytest.mark.slow
def test_a_teacher_uses_its_image_prior(teacher: Callable[..., Path], tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_file(resnet18().state_dict(), tmp_path / "resnet18.safetensors")
    prior = (
        "method.image_prior.sharpness=2",
        "evaluation.image_prior=20",
        f"network.weights={tmp_path / 'resnet18.safetensors'}",
    )
    objects = ("data.kind=objects", "data.train=20", "data.labeled=12", "method.name=mean_teacher")
    run = teacher("scenes", *SCENES, *objects, *prior)
    prefer_told_classes(run / "last.safetensors")
    done = students(run, labelling=ONCE)
    predictor = Predictor.from_run(run)
    assert predictor.image_prior is not None
    samples, found = source_of(run).unlabeled, written(done.folder)
    assert all(np.array_equal(found[each.name], predictor.mask(each.image()).numpy()) for each in samples)
    without = Predictor.from_run(run, overrides=["evaluation.image_prior=0"])
    assert not all(np.array_equal(found[each.name], without.mask(each.image()).numpy()) for each in samples)
    encoder = sum(tensor.numel() for tensor in predictor.network.encoder_parameters())  # type: ignore[operator]
    assert done.models[0].parameters - done.models[1].parameters >= encoder
    assert Predictor.from_run(done.folder).image_prior is None


@pytest.mark.slow
def test_a_student_is_a_teacher_in_turn(teacher: Callable[..., Path]) -> None:
    run = teacher("scenes", *SCENES, "data.labeled=3", "method.name=supervised")
    first = students(run, labelling=ONCE)
    second = students(first.folder, labelling=ONCE, out="second")
    config = load_saved(second.folder / "config.yaml")
    assert config.data.pseudo_masks == str(second.folder / "pseudo_masks")
    predictor = Predictor.from_run(first.folder)
    for sample in source_of(run).unlabeled:
        assert np.array_equal(written(second.folder)[sample.name], predictor.mask(sample.image()).numpy())


@pytest.mark.slow
def test_no_unlabeled_image(teacher: Callable[..., Path]) -> None:
    run = teacher("scenes", *SCENES, "data.labeled=8", "method.name=supervised")
    with pytest.raises(InputError, match="its data have no unlabeled image to label"):
        students(run)
    assert not (run.parent / "student").exists()
    more = students(run, "data.labeled=6", labelling=ONCE)
    assert len(written(more.folder)) == 2


def test_torchrun_is_refused(teacher: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("u2pl.commands.distill.under_torchrun", lambda: True)
    with pytest.raises(InputError, match="start it without torchrun"):
        distill(tmp_path / "run", tmp_path / "out")
