"""The data that pages of the documentation assume, made small from the real data sets."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from released_network import network, save_checkpoint

SIZE = (96, 72)  #: of all images, in pixels across and down
_NEAREST = Image.Resampling.NEAREST


def make(real: Path, folder: Path) -> None:
    """Everything that pages name, but for runs, in one folder."""
    make_folders(real / "camvid", folder / "photos", labeled=24, unlabeled=4, val=4)
    (folder / "photos" / "tags.csv").write_text(tags_of(folder / "photos"), encoding="utf-8")
    make_folders(real / "idd_lite", folder / "IDD", labeled=6, unlabeled=0, val=3)
    shutil.copy(real / "idd_lite" / "from_camvid.csv", folder / "classes.csv")
    for name in ("CamVid", "streets", "mine", "other_photos"):
        (folder / name).symlink_to("photos")
    shutil.copytree(folder / "photos" / "images" / "val", folder / "test" / "images")
    shutil.copytree(folder / "photos" / "masks" / "val", folder / "test" / "masks")
    (folder / "new_images").mkdir()
    for name, path in zip("ab", sorted((folder / "photos" / "images" / "val").iterdir()), strict=False):
        shutil.copy(path, folder / "new_images" / f"{name}.jpg")
    make_voc(real / "voc_animals", folder / "VOCdevkit" / "VOC2012")
    make_cityscapes(real / "cityscapes_sample", folder / "Cityscapes")
    (folder / "mobilenet_v2.pt").symlink_to(real / "weights" / "mobilenet_v2_imagenet.pt")


def make_folders(real: Path, root: Path, *, labeled: int, unlabeled: int, val: int) -> None:
    """Images of the training set below ``images``, those to measure with in ``images/val``, and masks."""
    for split, number, masks in (("train", labeled + unlabeled, labeled), ("val", val, val)):
        paths = sorted((real / "images" / split).glob("*.jpg"))
        for place, path in enumerate(paths[:: len(paths) // number][:number]):
            inner = "val" if split == "val" else "."
            save(path, root / "images" / inner / path.name)
            if place < masks:
                save(real / "masks" / split / f"{path.stem}.png", root / "masks" / inner / f"{path.stem}.png")
    shutil.copy(real / "classes.txt", root)


def save(path: Path, target: Path, size: tuple[int, int] = SIZE) -> None:
    """A small copy of an image, or of a mask with its palette."""
    target.parent.mkdir(parents=True, exist_ok=True)
    image = Image.open(path)
    image.resize(size, _NEAREST if image.mode in ("L", "P") else None).save(target)


def tags_of(root: Path) -> str:
    """``tags.csv`` of all images: the classes of their masks, but for the first; those without a mask show a road."""
    names = (root / "classes.txt").read_text(encoding="utf-8").split()
    lines = ["image,tags"]
    for path in sorted((root / "images").glob("*.jpg")):
        mask = root / "masks" / f"{path.stem}.png"
        shown = (
            set(np.unique(np.array(Image.open(mask))).tolist()) - {0, 255} if mask.exists() else {names.index("road")}
        )
        lines.append(f"{path.stem},{';'.join(names[index] for index in sorted(shown))}")
    return "\n".join(lines) + "\n"


def make_voc(real: Path, root: Path) -> None:
    """PASCAL VOC with 95 masks to train on and four to measure with."""
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for split, number in (("train", 95), ("val", 4)):
        names = (real / "ImageSets" / "Segmentation" / f"{split}.txt").read_text(encoding="utf-8").split()[:number]
        (lists / f"{split}.txt").write_text("\n".join(names), encoding="utf-8")
        for name in names:
            save(real / "JPEGImages" / f"{name}.jpg", root / "JPEGImages" / f"{name}.jpg")
            save(real / "SegmentationClass" / f"{name}.png", root / "SegmentationClass" / f"{name}.png")


def make_cityscapes(real: Path, root: Path) -> None:
    """Cityscapes with sixteen images to train on and two to measure with, which show the same few streets."""
    for split, number in (("train", 16), ("val", 2)):
        images = sorted((real / "leftImg8bit" / split).rglob("*.png"))
        for place in range(number):
            source = images[place % len(images)]
            name = f"aachen_{place:06}_000019"
            labels = real / "gtFine" / split / "aachen" / source.name.replace("leftImg8bit", "gtFine_labelIds")
            save(source, root / "leftImg8bit" / split / "aachen" / f"{name}_leftImg8bit.png", (256, 128))
            save(labels, root / "gtFine" / split / "aachen" / f"{name}_gtFine_labelIds.png", (256, 128))


def copy(made: Path, folder: Path, *, without: Sequence[str]) -> None:
    """The data in another folder, without those runs that its page trains."""
    left_out = {made / run for run in without}

    def ignored(parent: str, names: list[str]) -> list[str]:
        return [name for name in names if Path(parent) / name in left_out]

    shutil.copytree(made, folder, symlinks=True, dirs_exist_ok=True, ignore=ignored)
    runs = folder / "runs"
    if "runs/mine" not in without and (runs / "photos").exists():
        (runs / "mine").symlink_to("photos")


def between(page: str, number: int) -> None:
    """What a reader of a page does before its block of this number, in the working folder."""
    if (page, number) == ("annotation_tools.md", 1):  # corrects the drafts, and exports them
        with zipfile.ZipFile("export.zip", "w") as archive:
            archive.write("drafts/annotations.xml", "annotations.xml")
        shutil.copytree("new_images", "set/images")
        for path in Path("photos", "images").glob("*.jpg"):
            shutil.copy(path, "set/images")
    elif (page, number) == ("label_next.md", 0):  # has more images than the next labels
        for path in sorted(Path("VOCdevkit", "VOC2012", "JPEGImages").iterdir())[:20]:
            shutil.copy(path, Path("photos", "images"))
    elif (page, number) == ("masks.md", 0):
        make_cracks(Path("photos"))
    elif (page, number) == ("paper.md", 0):
        save_checkpoint(Path("ckpt_best.pth"), network(0, depth=50, classes=19), network(1, depth=50, classes=19))
    elif (page, number) == ("transformers.md", 0):
        save_dinov2(Path("dinov2_vits14_pretrain.pth"))


def make_cracks(root: Path) -> None:
    """Masks of 0 and 255, called ``NAME_mask.png``, and no names of classes."""
    (root / "classes.txt").unlink()
    for path in sorted((root / "masks").rglob("*.png")):
        mask = np.array(Image.open(path))
        Image.fromarray(np.where(mask == 3, 255, 0).astype(np.uint8)).save(path.with_name(f"{path.stem}_mask.png"))
        path.unlink()


def save_dinov2(path: Path) -> None:
    """Random weights of DINOv2's ViT-S, in a file with the published names and shapes."""
    import timm

    state = timm.create_model("vit_small_patch14_dinov2", num_classes=0).state_dict()
    torch.save({**state, "mask_token": torch.rand(1, 384)}, path)


def remove(folder: Path) -> None:
    """Weights of a page's runs, which are large."""
    for parent, _, names in os.walk(folder):
        for name in names:
            if name.endswith((".ckpt", ".safetensors", ".pth", ".onnx", ".pt2")):
                (Path(parent) / name).unlink()
