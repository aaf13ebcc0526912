"""Draws the pictures of docs/explanation/method.md from a diagnosed run on the procedural scenes.

u2pl train scenes method.diagnose=true method.contrast.bank_size=20000 train.eval_every=25 --out runs/explain
python benchmarks/explain.py runs/explain [--out docs/pictures] [--scene 4]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from torch import Tensor

from u2pl import PseudoLabel, Reliability, load_network
from u2pl.build import build_source
from u2pl.config.overrides import load_saved
from u2pl.data.source import DataSource
from u2pl.pixels.negative_keys import NegativeKeys
from u2pl.report.pictures import coloured
from u2pl.report.plot_style import COLOURS, GRAY, figure_of, save
from u2pl.structures import IGNORE_INDEX

SCENES, NAMED = 8, 0.025  # of a batch, whose quantile is gamma_t; share of an image from which a class carries its name


def show(axes: Axes, picture: Tensor, title: str) -> None:
    """A picture without ticks."""
    axes.imshow(picture, cmap="gray", vmin=0)
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=8)


def show_classes(axes: Axes, mask: Tensor, source: DataSource, title: str) -> None:
    """Coloured, with the name of a class in the middle of its largest part: no colour need be known."""
    show(axes, coloured(mask, source.palette).permute(1, 2, 0), title)
    for index, name in enumerate(source.classes):
        left = (mask == index).float()[None]
        if left.mean() > NAMED:
            while (smaller := -F.max_pool2d(-F.pad(left, (1, 1, 1, 1)), 3, stride=1)).any():
                left = smaller
            y, x = left[0].nonzero()[0].tolist()
            axes.text(x, y, name, fontsize=5.5, ha="center", va="center", bbox={"color": "white", "pad": 0.8})


def draw_partition(source: DataSource, image: Tensor, truth: Tensor, logits: Tensor, scene: int, path: Path) -> Tensor:
    """The teacher's logits (B, C, H, W) of one scene among others, split. Returns its unreliable pixels (H, W)."""
    reliability, pseudo = Reliability(), PseudoLabel.from_logits(logits)
    axes = (figure := figure_of(6.0, 4.1)).subplots(2, 3).flat
    show(axes[0], image[scene].permute(1, 2, 0), "unlabeled image")
    show_classes(axes[1], truth[scene], source, "true classes")
    show_classes(axes[2], pseudo.label[scene], source, "teacher's prediction")
    show(axes[3], pseudo.entropy[scene], f"its entropy\nblack: 0\nwhite: {pseudo.entropy[scene].max():.1f} nats")
    for panel, progress in ((axes[4], 0.0), (axes[5], 0.5)):
        parts, known = reliability.partition(pseudo, progress), truth != IGNORE_INDEX
        right = [(pseudo.label == truth)[known & part].float().mean() for part in (parts.reliable, parts.unreliable)]
        told = f"white: reliable, {right[0]:.0%} right\nblack: unreliable, {right[1]:.0%} right"
        show(panel, parts.reliable[scene].float(), f"alpha = {reliability.alpha_t(progress):.2f}\n{told}")
    save(figure, path)
    return reliability.partition(pseudo, 0.0).unreliable[scene]


def draw_ranks(source: DataSource, image: Tensor, probability: Tensor, where: Tensor, path: Path) -> None:
    """Of all pixels (H, W) ``where`` holds, the one that hesitates most between two classes of (C, H, W)."""
    (low, high), top = NegativeKeys().ranks(len(source.classes)), probability.topk(3, dim=0).values
    y, x = divmod(int((2 * top[1] - top[0] - top[2]).where(where, -9.0).argmax()), where.shape[1])
    values, order = probability[:, y, x].sort(descending=True)
    left, axes = (figure := figure_of(6.0, 2.9)).subplots(1, 2, width_ratios=(1, 1.4))
    show(left, image.permute(1, 2, 0), "an unreliable pixel: the dot")
    left.plot(x, y, "wo", markersize=5, markeredgecolor="black")
    axes.axhspan(low - 0.5, high - 0.5, color="#E8E8E8")
    bars = axes.barh(range(len(values)), values, color=[COLOURS[0]] * low + [GRAY] * (len(values) - low))
    axes.bar_label(bars, labels=[f"{value:.3f}" for value in values.tolist()], fontsize=7, padding=2)
    axes.set_yticks(range(len(values)), [f"{source.classes[c]}  {rank}" for rank, c in enumerate(order)], fontsize=8)
    axes.text(0.68, 0.5, "perhaps one of these", ha="center", va="center", fontsize=8)
    told = f"surely none of these:\nr_l = {low} <= rank < r_h = {high}\n\na negative key for each of them"
    axes.text(0.68, (low + high - 1) / 2, told, ha="center", va="center", fontsize=8)
    axes.set(xlim=(0, 1), ylim=(len(values) - 0.5, -0.5), xticks=[], xlabel="probability of each class, by rank")
    save(figure, path)


def draw_bank(run: Path, classes: tuple[str, ...], path: Path) -> None:
    """How the queues fill over training, and which true classes their keys have at the end."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    fills = {line["step"]: [line[f"queue/fill/{name}"] for name in classes] for line in lines if "queue/fill" in line}
    truth = torch.load(run / "last.ckpt", weights_only=True)["method"]["contrast.bank.truth"][:-1].long()
    rows = [keys[keys != IGNORE_INDEX].bincount(minlength=len(classes)) for keys in truth.chunk(len(classes))]
    top, matrix = (figure := figure_of(6.0, 5.6)).subplots(2, 1, height_ratios=(1, 3))
    top.plot(list(fills), list(fills.values()), "o-", color=GRAY, markersize=3)
    top.set_title(f"keys in each of the {len(classes)} queues, by step", fontsize=8)
    top.set_ylim(bottom=0)
    matrix.imshow(torch.stack([row / row.sum() for row in rows]), cmap="Blues", vmax=1.5, aspect="auto")
    for row, counts in enumerate(rows):
        for column, share in enumerate((100 * counts / counts.sum()).tolist()):
            box = {"facecolor": "none"} if row == column else None
            matrix.text(column, row, f"{share:.0f}", ha="center", va="center", fontsize=8, bbox=box)
    matrix.set_xticks(range(len(classes)), classes, rotation=40, ha="right", fontsize=7)
    matrix.set_yticks(range(len(classes)), [f"queue of {name}" for name in classes], fontsize=7)
    matrix.set_title("true classes of its keys at the end, in %; boxed: its own class, which should be 0", fontsize=8)
    save(figure, path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a diagnosed run on scenes")
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"), help="folder of the pictures")
    parser.add_argument("--scene", type=int, default=4, help=f"which of {SCENES} unlabeled scenes to show")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    config, scene = load_saved(options.run / "config.yaml"), options.scene
    source = build_source(config.data, seed=config.seed)
    image, truth = (torch.stack([getattr(s, kind)() for s in source.unlabeled[:SCENES]]) for kind in ("image", "mask"))
    with torch.no_grad():
        logits = load_network(options.run / "last.safetensors")(image / 255).logits
    unreliable = draw_partition(source, image, truth, logits, scene, options.out / "explain_partition.png")
    draw_ranks(source, image[scene], logits[scene].softmax(dim=0), unreliable, options.out / "explain_ranks.png")
    draw_bank(options.run, source.classes, options.out / "explain_bank.png")
