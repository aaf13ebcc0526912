"""Bad input is one line that names the file or key and the remedy, exit code 2, and nothing half-written."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file
from torch import ones

Command = Callable[..., Any]
Spoil = Callable[[Path], None]


def refuse(result: Any, *fragments: str) -> None:
    """One line on stderr with all fragments, exit code 2, nothing else."""
    assert result.code == 2, result
    lines = result.err.splitlines()
    assert len(lines) == 1, result.err
    assert lines[0].startswith("u2pl: ")
    assert result.out == ""
    assert "Traceback" not in result.err
    for fragment in fragments:
        assert fragment in lines[0]


@pytest.mark.parametrize(
    ("override", "fragments"),
    [
        ("train.step=3", ("unknown key train.step", "did you mean steps?")),
        ("trian.steps=3", ("unknown key trian", "did you mean train?")),
        ("train.steps=many", ("train.steps", "integer", "'many'")),
        ("train.steps=0", ("train.steps", "greater than 0")),
        ("train.lr=fast", ("train.lr", "number")),
        ("train.crop_size=[8,8]", ("train.crop_size", "16")),
        ("train.scale_range=[2,0.5]", ("train.scale_range", "smaller first")),
        ("method.name=fixmatsch", ("method.name", "'u2pl'")),
        ("method.reliability.alpha=1.5", ("method.reliability.alpha", "less than or equal to 1")),
        ("train.steps", ("'train.steps' is not a setting", "key=value")),
        ("seed.value=3", ("seed",)),
        (
            "method.negative_keys.low_rank=4",
            ("method.negative_keys: low_rank and high_rank", "4 and 4", "low_rank < high_rank <= 4"),
        ),
        ("method.negative_keys.high_rank=1", ("method.negative_keys: low_rank and high_rank", "1 and 1")),
        (
            "method.negative_keys.high_rank=9",
            ("method.negative_keys: low_rank and high_rank", "<= 4, the number of classes"),
        ),
        ("method.image_prior.sharpness=4", ("method.image_prior.sharpness", "from scratch", "network.pretrained=true")),
        ("method.image_prior.sharpness=-1", ("method.image_prior.sharpness", "greater than or equal to 0")),
        ("method.negative_keys.low_rank=0", ("method.negative_keys: low_rank", "0 < low_rank")),
        (
            "method.contrast.keys_per_step=1000",
            ("method.contrast.keys_per_step", "method.contrast.bank_size", "lower it"),
        ),
        ("train.crop_size=60000", ("train.crop_size", "60000x60000", "lower train.crop_size")),
        ("data.root=null", ("data.root", "is needed")),
        ("data.root=/nowhere/at/all", ("/nowhere/at/all", "not a folder")),
        ("data.height=64", ("data.height", "not used with data.name=folder", "leave it out")),
        ("data.val=nowhere", ("val", "nowhere", "nor a share such as 0.2; give one of them")),
        ("data.val=50", ("u2pl: data.val: 50 of 6 labeled images would be for validation", "ask for 1 to 5")),
        ("data.labeled=99", ("labeled", "99")),
        ("data.labeled=1.5", ("labeled", "1.5", "(0, 1]")),
        ("data.labeled=nowhere.txt", ("labeled", "nowhere.txt")),
        ("data.classes=sky,sea", ("sea",)),
        ("network.architecture=Unet", ("network.architecture", "not used with network.name=deeplabv3plus")),
        ("network.encoder=resnet1", ("network.encoder", "resnet1")),
        ("network.weights=/nowhere.pt", ("network.weights", "/nowhere.pt")),
        ("train.precision=fp16", ("train.precision", "fp16 needs a GPU")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_configuration(
    u2pl: Command,
    files: Path,
    yaml: Path,
    small: tuple[str, ...],
    tmp_path: Path,
    override: str,
    fragments: tuple[str, ...],
) -> None:
    out = tmp_path / "run"
    refuse(u2pl("train", yaml, f"data.root={files}", *small, override, "--out", out), *fragments)
    assert not out.exists()


def test_check_refuses_a_prior_by_an_encoder_from_scratch(u2pl: Command) -> None:
    refuse(
        u2pl("check", "scenes", "data.train=6", "method.image_prior.sharpness=4"),
        "method.image_prior.sharpness",
        "from scratch",
    )


@pytest.mark.parametrize("command", ["train", "check"])
def test_presets_and_files_that_are_not_there(u2pl: Command, tmp_path: Path, command: str) -> None:
    refuse(u2pl(command, "scene"), "no preset 'scene'", "did you mean scenes?")
    refuse(u2pl(command, tmp_path / "none.yaml"), "none.yaml cannot be read", "give a YAML file")
    refuse(u2pl("presets", "scene"), "no preset 'scene'", "scenes")
    (tmp_path / "bad.yaml").write_text("train: {steps: 3\n")
    refuse(u2pl(command, tmp_path / "bad.yaml"), "bad.yaml is not YAML")
    (tmp_path / "list.yaml").write_text("- train\n")
    refuse(u2pl(command, tmp_path / "list.yaml"), "list.yaml must hold sections")


def _no_labeled(root: Path) -> None:
    shutil.rmtree(root / "masks" / "train")


def _no_unlabeled(root: Path) -> None:
    shutil.rmtree(root / "images" / "train" / "more")


def _no_image(root: Path) -> None:
    shutil.rmtree(root / "images")
    (root / "images").mkdir()


def _mask_size(root: Path) -> None:
    Image.new("L", (60, 60)).save(root / "masks" / "train" / "b.png")


def _mask_value(root: Path) -> None:
    path = root / "masks" / "train" / "a.png"
    values = np.array(Image.open(path))
    values[-1, -1] = 4
    Image.fromarray(values).save(path)


def _mask_rgb(root: Path) -> None:
    path = root / "masks" / "train" / "c.png"
    Image.new("RGB", Image.open(path).size, (128, 64, 128)).save(path)


def _truncated(root: Path) -> None:
    path = root / "images" / "train" / "b.jpg"
    path.write_bytes(path.read_bytes()[:400])


def _truncated_unlabeled(root: Path) -> None:
    path = next((root / "images" / "train" / "more").iterdir())
    path.rename(path.with_name("hurt.jpg")).write_bytes(b"\xff\xd8\xff")


def _text_mask(root: Path) -> None:
    (root / "masks" / "val" / "v.png").write_text("mask")


def _twins(root: Path) -> None:
    shutil.copy(root / "images" / "train" / "a.png", root / "images" / "train" / "a.jpg")


@pytest.mark.parametrize(
    ("spoil", "fragments"),
    [
        (_no_labeled, ("no labeled image", "add masks")),
        (_no_unlabeled, ("no unlabeled image", "train supervised")),
        (_no_image, ("images holds no image", "put jpg or png files there")),
        (_mask_size, ("b.png is 60x60", "b.jpg is 80x64", "give both the same size")),
        (_mask_value, ("a.png holds the value 4", "4 classes", "correct the mask")),
        (_mask_rgb, ("c.png holds colours: #804080", "set data.mask_values")),
        (_truncated, ("b.jpg cannot be read", "replace or remove")),
        (_truncated_unlabeled, ("hurt.jpg is no JPEG", "or remove it")),
        (_text_mask, ("v.png is no JPEG", "or remove it")),
        (_twins, ("a.jpg", "the same name without the suffix", "rename one")),
    ],
    ids=lambda value: value.__name__.strip("_") if callable(value) else "",
)
def test_data(
    u2pl: Command,
    own_files: Path,
    yaml: Path,
    small: tuple[str, ...],
    tmp_path: Path,
    spoil: Spoil,
    fragments: tuple[str, ...],
) -> None:
    spoil(own_files)
    out = tmp_path / "run"
    refuse(u2pl("train", yaml, f"data.root={own_files}", *small, "--out", out), *fragments)
    assert not out.exists()


def test_an_image_both_labeled_and_for_validation(
    u2pl: Command, files: Path, yaml: Path, small: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "labeled.txt").write_text("train/a\nval/v\n")
    settings = (f"data.root={files}", f"data.labeled={tmp_path / 'labeled.txt'}")
    refuse(u2pl("train", yaml, *settings, *small, "--out", tmp_path / "run"), "val/v", "labeled and val")
    assert not (tmp_path / "run").exists()


def test_encoder_weights_of_something_else(
    u2pl: Command, files: Path, yaml: Path, small: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "text.pt").write_text("weights")
    save_file({"a": ones(2)}, tmp_path / "foreign.safetensors")
    for name in ("text.pt", "foreign.safetensors"):
        key = f"network.weights={tmp_path / name}"
        refuse(u2pl("train", yaml, f"data.root={files}", *small, key, "--out", tmp_path / "run"), name)
    assert not (tmp_path / "run").exists()


def test_a_run_that_is_there(u2pl: Command, run_folder: Path, files: Path, yaml: Path, small: tuple[str, ...]) -> None:
    before = {path: path.stat().st_mtime_ns for path in run_folder.iterdir()}
    again = ("train", yaml, f"data.root={files}", *small, "data.scale=0.5", "train.log_every=1", "--out", run_folder)
    refuse(u2pl(*again), str(run_folder), "already holds a run", "--resume")
    refuse(u2pl(*again, "train.lr=0.5", "--resume"), "train.lr: is 0.5 now but 0.01", "config.yaml")
    assert {path: path.stat().st_mtime_ns for path in run_folder.iterdir()} == before


def test_out_is_a_file(u2pl: Command, files: Path, yaml: Path, small: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = u2pl("train", yaml, f"data.root={files}", *small, "--out", tmp_path / "file")
    refuse(result, "file: cannot write there")


def test_evaluate(u2pl: Command, run_folder: Path, files: Path, own_files: Path, tmp_path: Path) -> None:
    images, masks = own_files / "images" / "val", own_files / "masks" / "val"
    refuse(u2pl("evaluate", tmp_path / "none"), "none is no run folder", "config.yaml is missing")
    refuse(u2pl("evaluate", run_folder, "--weights", "foo"), "--weights foo", "last or best")
    refuse(u2pl("evaluate", run_folder, "--images", images), "--images and --masks belong together")
    refuse(u2pl("evaluate", run_folder, "--masks", masks), "--images and --masks belong together")
    refuse(u2pl("evaluate", run_folder, "--images", images, "--masks", tmp_path / "no"), "no is missing")
    refuse(
        u2pl("evaluate", run_folder, "--images", tmp_path, "--masks", tmp_path / "set" / "masks"), "belong to no image"
    )
    refuse(u2pl("evaluate", run_folder, "data.val=null"), "no validation set")
    refuse(u2pl("evaluate", run_folder, "data.root=/nowhere"), "/nowhere")
    refuse(u2pl("evaluate", run_folder, "data.classes=sky,road"), "classes")
    Image.new("L", (5, 5)).save(masks / "v.png")
    refuse(u2pl("evaluate", run_folder, "--images", images, "--masks", masks), "v.png is 5x5")
    (masks / "v.png").unlink()
    refuse(u2pl("evaluate", run_folder, "--images", images, "--masks", masks), "v.jpg has no mask", "v.png")
    (tmp_path / "empty").mkdir()
    refuse(u2pl("evaluate", run_folder, "--images", tmp_path / "empty", "--masks", masks), "empty holds no image")
    twins = own_files / "images" / "train"
    shutil.copy(twins / "a.png", twins / "a.bmp")
    told = u2pl("evaluate", run_folder, "--images", twins, "--masks", own_files / "masks" / "train")
    refuse(told, "a.bmp", "two images of one mask")


def test_predict(u2pl: Command, run_folder: Path, files: Path, tmp_path: Path) -> None:
    image, out = files / "images" / "train" / "a.png", tmp_path / "out"
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("")
    refuse(u2pl("predict", run_folder, tmp_path / "none.png", "--out", out), "none.png is missing")
    refuse(u2pl("predict", run_folder, image, tmp_path / "empty", "--out", out), "empty holds no image")
    refuse(u2pl("predict", run_folder, tmp_path / "notes.txt", "--out", out), "notes.txt holds no image")
    refuse(u2pl("predict", run_folder, image, "--weights", "foo", "--out", out), "--weights foo", "last or best")
    refuse(u2pl("predict", tmp_path / "no", image, "--out", out), "no/last.safetensors is missing", "run folder")
    shutil.copy(image, tmp_path / "a.png")
    refuse(u2pl("predict", run_folder, image, tmp_path / "a.png", "--out", out), "the same mask")
    (tmp_path / "hurt.png").write_bytes(image.read_bytes()[:300])
    strict = u2pl("predict", run_folder, image, tmp_path / "hurt.png", "--strict", "--out", out)
    refuse(strict, "hurt.png cannot be read")
    assert not out.exists()
    shown = u2pl("predict", run_folder, image, tmp_path / "hurt.png", "--out", out)
    assert (shown.code, shown.err.count("\n")) == (1, 1)
    assert "hurt.png cannot be read" in shown.err
    assert "1 masks and overlays in" in shown.out
    assert sorted(path.name for path in out.iterdir()) == ["a.png", "a_overlay.jpg"]
    (tmp_path / "file").write_text("")
    refuse(u2pl("predict", run_folder, image, "--out", tmp_path / "file"), "file: cannot write there")


def test_predict_never_replaces_an_image(u2pl: Command, run_folder: Path, files: Path, tmp_path: Path) -> None:
    for name in ("a.png", "b_overlay.jpg", "b.jpg"):
        shutil.copy(files / "images" / "train" / ("a.png" if name == "a.png" else "b.jpg"), tmp_path / name)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    refuse(u2pl("predict", run_folder, tmp_path, "--out", tmp_path), "a.png would replace the image", "another folder")
    told = u2pl("predict", run_folder, tmp_path / "b.jpg", tmp_path / "b_overlay.jpg", "--out", tmp_path / "." / "")
    refuse(told, "b.jpg would replace the image", "b_overlay.jpg")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_predict_replaces_only_what_it_wrote(u2pl: Command, run_folder: Path, files: Path, tmp_path: Path) -> None:
    image, masks = files / "images" / "train" / "a.png", tmp_path / "masks"
    shutil.copytree(files / "masks" / "train", masks)
    true = (masks / "a.png").read_bytes()
    refuse(
        u2pl("predict", run_folder, image, "--out", masks),
        "a.png exists, and `u2pl predict` did not write it",
        "--overwrite",
    )
    assert (masks / "a.png").read_bytes() == true
    assert u2pl("predict", run_folder, image, "--out", masks, "--overwrite").code == 0
    assert (masks / "a.png").read_bytes() != true
    assert u2pl("predict", run_folder, image, "--out", masks).code == 0  # now it is its own


def test_predict_takes_nothing_that_it_wrote_as_an_image(
    u2pl: Command, run_folder: Path, files: Path, tmp_path: Path
) -> None:
    shutil.copytree(files / "images" / "train", tmp_path / "in")
    first = u2pl("predict", run_folder, tmp_path / "in", "--out", tmp_path / "in" / "out")
    again = u2pl("predict", run_folder, tmp_path / "in", "--out", tmp_path / "in" / "out")
    assert (first.code, again.code) == (0, 0)
    assert first.out == again.out


def test_predict_by_another_protocol(u2pl: Command, run_folder: Path, files: Path, tmp_path: Path) -> None:
    image = files / "images" / "train" / "a.png"
    for name, keys in {"plain": (), "other": ("evaluation.protocol=sliding", "evaluation.scales=[0.5,2]")}.items():
        assert u2pl("predict", run_folder, image, *keys, "--out", tmp_path / name).code == 0
    refuse(
        u2pl("predict", run_folder, image, "evaluation.windw=3", "--out", tmp_path / "no"),
        "unknown key evaluation.windw (did you mean window?)",
    )
    assert not (tmp_path / "no").exists()


def test_predict_has_a_limit_of_pixels(u2pl: Command, run_folder: Path, files: Path, tmp_path: Path) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    image = files / "images" / "train" / "a.png"
    try:
        shown = u2pl("predict", run_folder, image, "--max-pixels", "10", "--out", tmp_path / "out")
    finally:
        Image.MAX_IMAGE_PIXELS = limit
    assert shown.code == 1
    assert "a.png has more than 10 pixels" in shown.err


def test_hidden_files_are_no_images(u2pl: Command, run_folder: Path, files: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    shutil.copy(files / "images" / "train" / "a.png", tmp_path / "in")
    (tmp_path / "in" / "._a.png").write_bytes(b"left by another system")
    assert u2pl("predict", run_folder, tmp_path / "in", "--out", tmp_path / "out").code == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "a_overlay.jpg"]


@pytest.mark.parametrize("kind", ["foreign", "text", "truncated", "other network"])
def test_weights_of_a_run_that_are_none(
    u2pl: Command, run_folder: Path, files: Path, tmp_path: Path, kind: str
) -> None:
    path, saved = tmp_path / "last.safetensors", (run_folder / "last.safetensors").read_bytes()
    shutil.copy(run_folder / "config.yaml", tmp_path)
    if kind == "foreign":
        save_file({"a": ones(2)}, path)
    elif kind == "text":
        path.write_text("weights")
    elif kind == "truncated":
        path.write_bytes(saved[:-1000])
    else:
        path.write_bytes(saved.replace(b'\\"channels\\": 16', b'\\"channels\\": 17', 1))
        assert path.read_bytes() != saved
    image = files / "images" / "train" / "a.png"
    refuse(u2pl("predict", tmp_path, image, "--out", tmp_path / "out"), str(path))
    refuse(u2pl("evaluate", tmp_path), str(path))
    assert not (tmp_path / "out").exists()
