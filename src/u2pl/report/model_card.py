"""The README.md of a model on the Hugging Face Hub: what it is, how it was trained, how good it is, how to use it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import yaml

from u2pl.engine.bootstrap import Gain
from u2pl.printable import printable

_PUNCTUATION = re.compile(r"([!-/:-@\[-`{-~])")  # all of ASCII: in Markdown, a backslash takes its meaning away
#: What is in the files of a run, by their names without their endings.
_FILES = {
    "config": "every setting of the training",
    "metrics": "losses and scores by step",
    "last": "the weights at the end of training",
    "best": "the weights of the best validation",
    "validation": "counts of pixels for each validation image, without the images",
}


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What a card says. Scores are in percent."""

    repository: str  #: ``user/name``
    weights: str  #: ``last`` or ``best``
    tags: Sequence[str]  #: for the Hub's search
    facts: Sequence[tuple[str, str]]  #: of the training: what, and its value
    counts: Mapping[str, int]  #: images by kind; empty if the run does not know
    iou: Mapping[str, float | None]  #: of each class; None: not in the validation images
    miou: float | None = None  #: None: the run has no validation images
    interval: tuple[float, float] | None = None  #: 95 %, over draws of validation images
    groups: int | None = None  #: of validation images, that are drawn whole; None: each image is drawn by itself
    gain: Gain | None = None  #: since the warm-up on labels only
    files: Sequence[str] = ()  #: that are pushed with the card
    removed: Sequence[str] = ()  #: keys of config.yaml without their paths

    def markdown(self) -> str:
        """The card, with the Hub's YAML in front. Names of any kind are shown as they are, and format nothing."""
        parts = [self._front(), self._use(), self._training(), self._scores(), self._limits(), self._files()]
        return "\n".join(parts)

    def _front(self) -> str:
        about = {"library_name": "u2pl", "pipeline_tag": "image-segmentation", "tags": list(self.tags)}
        text = yaml.safe_dump(about, sort_keys=False, allow_unicode=True)
        title = escaped(self.repository.partition("/")[2])
        return (
            f"---\n{text}# license: fill in, such as apache-2.0\n---\n\n# {title}\n\n"
            f"Segments images into {len(self.iou)} classes. Trained with u2pl.\n"
        )

    def _use(self) -> str:
        return f"""## Use

```python
import u2pl
from torchvision.io import decode_image

predictor = u2pl.Predictor.from_hub("{self.repository}")
mask = predictor.mask(decode_image("photo.jpg", mode="RGB"))  # (3, H, W) uint8 -> (H, W) uint8, indices of classes
```

```
u2pl predict hf://{self.repository} photo.jpg --out masks
```
"""

    def _training(self) -> str:
        rows = [(escaped(what), escaped(value)) for what, value in self.facts]
        rows += [(f"{kind} images", f"{count}") for kind, count in self.counts.items()]
        return "## Training\n\n" + table(("", ""), rows)

    def _scores(self) -> str:
        if self.miou is None:
            return "## Scores\n\nThere were no validation images: how good this model is was not measured.\n"
        lines = [f"mIoU {self.miou:.1f} %{self._on_images()}"]
        if self.interval is not None:
            low, high = self.interval
            lines[0] += f"; 95 % interval {low:.1f} to {high:.1f} (bootstrap over {self._drawn()})"
        if self.gain is not None:
            between = self.gain.between()
            sure = "no interval: too few groups of images" if between is None else f"95 % interval {between}"
            lines.append(f"{self.gain.points:+.1f} mIoU since its warm-up on labels only; {sure}")
        shown = {name: "-" if value is None else f"{value:.1f}" for name, value in self.iou.items()}
        rows = [(f"{index}", escaped(name), iou) for index, (name, iou) in enumerate(shown.items())]
        return "## Scores\n\n" + "".join(f"{line}.\n\n" for line in lines) + table(("index", "class", "IoU %"), rows)

    def _on_images(self) -> str:
        return f" on {self.counts['validation']} validation images" if "validation" in self.counts else ""

    def _drawn(self) -> str:
        return "these images" if self.groups is None else f"{self.groups} groups of these images"

    def _limits(self) -> str:
        lines = ["Each pixel gets one of the classes above, also in an image that shows none of them."]
        if self.miou is not None:
            lines.append("The scores are of images from the same data set. Expect less of other places and cameras.")
        if self.interval is not None:
            lines.append("The interval covers the choice of the images, not another training.")
        if self.weights == "best":
            lines.append("The best weights were chosen on the validation images, so their score is a little too high.")
        if unseen := [escaped(name) for name, value in self.iou.items() if value is None and self.miou is not None]:
            lines.append(f"Not in the validation images, so without a score: {', '.join(unseen)}.")
        return "## Limits\n\n" + "".join(f"- {line}\n" for line in lines)

    def _files(self) -> str:
        lines = [f"- `{name}`: {_FILES[name.rpartition('.')[0]]}" for name in self.files]
        if self.removed:
            lines.append(f"- `config.yaml` is without paths: {', '.join(f'`{key}`' for key in self.removed)}")
        return "## Files\n\n" + "".join(f"{line}\n" for line in lines)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table. Its cells are Markdown."""
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, ["---"] * len(head), *rows))


def escaped(text: str) -> str:
    """Text as Markdown that shows it and nothing else: no link, no HTML, no new line."""
    return _PUNCTUATION.sub(r"\\\1", printable(text))
