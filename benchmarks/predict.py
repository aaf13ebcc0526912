"""How fast images are predicted and scored, beside a plain loop: images per second, medians of alternating runs.

The plain loop is that of ``examples/plain_pytorch.py``: eager fp32, one image at a time, argmax. To predict, it writes
the mask with Pillow, alone or with an overlay (Pillow's blend). To score, it counts a confusion matrix. `u2pl predict`
always writes both files.

    python benchmarks/predict.py CAMVID [--run RUN] [--images 24] [--repeats 5] [--network fpn] [--threads 2]

CAMVID is a data set in the layout `folder`, with jpg images in ``images/val``. Without --run, weights are random.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from torch import Tensor

from u2pl.build.network import build_network
from u2pl.commands.predict import predict_files
from u2pl.config.overrides import load_config
from u2pl.data.batches import Evaluation
from u2pl.data.classes import read_classes
from u2pl.data.files import FileSample
from u2pl.data.loading import loader
from u2pl.data.readers.pascal_voc import voc_palette
from u2pl.engine.checkpoint import save_weights
from u2pl.engine.evaluate import evaluate
from u2pl.engine.machine import best_precision, make_fabric
from u2pl.predictor import Predictor

NETWORKS = {
    "fpn": ("network.name=smp", "network.architecture=FPN", "network.encoder=mobilenet_v2"),
    "deeplab": ("network.name=deeplabv3plus", "network.encoder=resnet18"),
}


def random_weights(path: Path, keys: tuple[str, ...], classes: tuple[str, ...]) -> Path:
    """A file of weights of a network that nobody trained."""
    torch.manual_seed(0)
    config = load_config("folder", [*keys, "method.name=supervised"])
    network = config.network.model_dump(exclude_none=True, exclude={"weights", "pretrained"})
    description = {
        "classes": list(classes),
        "palette": [list(colour) for colour in voc_palette(len(classes))],
        "scale": 1.0,
        "method": "supervised",
        "network": network,
    }
    save_weights(path, build_network(config, len(classes)), description)
    return path


class PlainLoop:
    """One image after the other."""

    def __init__(self, weights: Path, samples: list[FileSample]) -> None:
        predictor = Predictor.load(weights)
        predictor.network.to(memory_format=torch.contiguous_format)  # as a network is built
        self.network, self.samples, self.classes = predictor.network, samples, len(predictor.classes)
        self.colours = np.array(predictor.palette, dtype=np.uint8).tobytes()

    @torch.no_grad()
    def classes_of(self, image: Tensor) -> Tensor:
        return self.network(image.unsqueeze(0)).logits.argmax(dim=1)[0]

    def predict(self, out: Path, *, overlay: bool) -> None:
        for number, sample in enumerate(self.samples):
            image = sample.image()
            predicted = self.classes_of(image.float().div(255)).to(torch.uint8)
            mask = Image.fromarray(predicted.numpy(), mode="P")
            mask.putpalette(self.colours)
            mask.save(out / f"{number}.png")
            if overlay:
                photograph = Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy()))
                Image.blend(photograph, mask.convert("RGB"), 0.55).save(out / f"{number}.jpg")

    def score(self) -> Tensor:
        counts = torch.zeros(self.classes**2, dtype=torch.int64)
        for image, mask in loader(Evaluation(self.samples)):
            predicted, known = self.classes_of(image), mask < self.classes
            counts += torch.bincount(mask[known] * self.classes + predicted[known], minlength=self.classes**2)
        return counts


def seconds(runs: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each run, after one of each that does not count."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if repeat:
                taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--network", choices=NETWORKS, default="fpn")
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    folder = Path(tempfile.mkdtemp())
    classes = read_classes(options.root / "classes.txt")
    weights = options.run or random_weights(folder / "w.safetensors", NETWORKS[options.network], classes)
    paths = sorted((options.root / "images" / "val").rglob("*.jpg"))[: options.images]
    masks = [options.root / "masks" / path.relative_to(options.root / "images").with_suffix(".png") for path in paths]
    samples = [FileSample(p.stem, p, m, len(classes)) for p, m in zip(paths, masks, strict=True)]
    plain, console, network = PlainLoop(weights, samples), Console(file=sys.stderr), Predictor.load(weights).network
    fabrics = {p: make_fabric(accelerator="cpu", devices=1, nodes=1, precision=p) for p in ("fp32", "bf16")}

    def predict(precision: str) -> None:
        predict_files(weights, paths, folder / precision, console=console, device="cpu", precision=precision)

    def score(precision: str) -> None:
        evaluate(fabrics[precision], network, loader(Evaluation(samples)), len(classes))

    taken = seconds(
        {
            "plain loop, masks": lambda: plain.predict(folder, overlay=False),
            "plain loop, masks and overlays": lambda: plain.predict(folder, overlay=True),
            "predict fp32": lambda: predict("fp32"),
            "predict bf16": lambda: predict("bf16"),
            "plain loop, scores": plain.score,
            "evaluate fp32": lambda: score("fp32"),
            "evaluate bf16": lambda: score("bf16"),
        },
        options.repeats,
    )
    name, native = options.run or options.network, best_precision(on_cpu=True)
    print(f"{name}, {torch.get_num_threads()} threads, {len(paths)} images; this processor multiplies {native}")
    for name, value in taken.items():
        loop = "plain loop, scores" if "evaluate" in name or "scores" in name else "plain loop, masks"
        print(f"{name:32} {len(paths) / value:6.1f} images/s  {taken[loop] / value:5.2f} x {loop}")


if __name__ == "__main__":
    main()
