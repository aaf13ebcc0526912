"""What each format of `u2pl export` costs and gives: size, time of the export, agreement with PyTorch, and speed.

    python benchmarks/export.py runs/photos [--formats onnx,pt2,int8] [--out runs/export]

The table is Markdown. Speeds are those of an image of 480x360 on the CPU, as multiples of PyTorch's. `equal pixels` is
the share of pixels with the same class as in PyTorch. A file of 8 bits is scored on the validation images of the run,
beside the float file that it is made from.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

from u2pl.commands.export import ExportedFile, export
from u2pl.report.grid import Grid

FORMATS = ("onnx", "pt2", "int8")
HEADER = ("format", "MB", "export, s", "largest difference", "equal pixels", "mIoU", "speed")
_WEIGHTS = "last.safetensors"


def rows(run: Path, formats: list[str], out: Path) -> list[tuple[str, ...]]:
    """A row for PyTorch and for each format."""
    found = [("PyTorch", f"{(run / _WEIGHTS).stat().st_size / 1e6:.1f}", "", "", "", "", "1.00")]
    if "onnx" in formats or "int8" in formats:
        done = export(run, out / "network.onnx", int8="int8" in formats, say=_quiet)
        eight = done.quantized
        if "onnx" in formats:
            found.append(row("onnx", done, "" if eight is None else f"{eight.float_miou:.1f}"))
        if eight is not None:
            speed = f"{eight.faster * done.faster:.2f}"
            found.append(("int8", f"{eight.megabytes:.1f}", "", "", "", f"{eight.miou:.1f}", speed))
    if "pt2" in formats:
        found.append(row("pt2", export(run, out / "network.pt2", name="pt2", say=_quiet)))
    return found


def row(name: str, done: ExportedFile, miou: str = "") -> tuple[str, ...]:
    """The numbers of one file."""
    agreed = done.agreement
    return (
        name,
        f"{done.megabytes:.1f}",
        f"{done.seconds:.0f}",
        f"{agreed.difference:.1g}",
        f"{100 * agreed.equal:.2f} %",
        miou,
        f"{done.faster:.2f}",
    )


def _quiet(line: str) -> None:
    """Say nothing."""


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="a finished run folder")
    parser.add_argument("--formats", default=",".join(FORMATS))
    parser.add_argument("--out", type=Path, help="folder to keep the files in; default: they are removed")
    options = parser.parse_args(arguments)
    formats = options.formats.split(",")
    if unknown := set(formats) - set(FORMATS):
        parser.error(f"--formats: {', '.join(sorted(unknown))} is none of {', '.join(FORMATS)}")
    if not (options.run / _WEIGHTS).is_file():
        parser.error(f"{options.run} has no {_WEIGHTS}; give the folder of a finished run")
    with TemporaryDirectory() as folder:
        found = rows(options.run, formats, options.out or Path(folder))
    print(Grid(HEADER, tuple(found), "Speed: as a multiple of PyTorch's, one image of 480x360 on the CPU.").markdown())


if __name__ == "__main__":
    main()
