"""The command that writes a trained network for programs without u2pl."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from u2pl.paths import argument, output
from u2pl.report.printing import say, show

console = Console()


def export(
    run: Annotated[
        Path,
        typer.Argument(
            parser=argument("RUN"), help="A finished run folder made by `u2pl train`, or a .safetensors file."
        ),
    ],
    file_format: Annotated[str, typer.Option("--format", help="onnx (onnxruntime) or pt2 (torch.export).")] = "onnx",
    out: Annotated[
        Path | None, typer.Option(parser=output(), help="File to write; FILE.json describes it. Default: in the run.")
    ] = None,
    weights: Annotated[str, typer.Option(help="`last` or `best` (highest validation mIoU).")] = "last",
    int8: Annotated[
        bool, typer.Option("--int8", help="Also write FILE.int8.onnx, and score both on validation.")
    ] = False,
) -> None:
    """Write the network as a file that runs without u2pl, and check that it predicts the same.

    It takes images (B, 3, H, W), float32 RGB in [0, 1], of any size, and returns class scores (B, C, H, W).
    """
    from u2pl.commands.export import export as run_export
    from u2pl.report.exports_table import exports_table

    done = run_export(run, out, name=file_format, weights=weights, int8=int8, say=partial(say, console))
    rows = [
        (
            done.path.name,
            f"{done.megabytes:.1f}",
            f"{done.seconds:.0f}",
            f"{done.agreement.difference:.1g}",
            f"{100 * done.agreement.equal:.2f} %",
            f"{done.faster:.2f}x PyTorch",
        )
    ]
    eight = done.quantized
    if eight is not None:
        rows.append((eight.path.name, f"{eight.megabytes:.1f}", "", "", "", f"{eight.faster:.2f}x float"))
    show(console, exports_table(rows))
    if eight is not None:
        say(
            console,
            f"mIoU on {eight.images} validation images: float {eight.float_miou:.1f}, int8 {eight.miou:.1f}",
        )
    say(console, f"checked on {done.agreement.images} images; written to {done.path}, described in {done.path}.json")
