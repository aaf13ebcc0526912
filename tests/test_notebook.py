"""The notebook runs from its first cell to its last, and shows pictures."""

from __future__ import annotations

from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[1] / "examples" / "first_model.ipynb"
#: A training of a moment instead of minutes.
SHORT = (
    '*("data.train=12", "data.val=2", "data.labeled=4", "data.height=32", "data.width=48", "network.channels=16"),'
    '*("network.low_level_channels=8", "network.embedding_dim=8", "train.crop_size=32", "train.batch_size=2"),'
    '*("train.log_every=2", "data.workers=0"),'
)


def test_the_notebook_runs(tmp_path: Path) -> None:
    nbclient, nbformat = (pytest.importorskip(name) for name in ("nbclient", "nbformat"))
    book = nbformat.read(NOTEBOOK, as_version=4)
    assert all(not cell.get("outputs") for cell in book.cells)  # nothing of a former run
    first = book.cells[1]
    assert "STEPS = 300" in first.source
    assert "[*keys, " in first.source
    first.source = first.source.replace("STEPS = 300", "STEPS = 6").replace("[*keys, ", f"[*keys, {SHORT} ")
    client = nbclient.NotebookClient(book, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    outputs = [output for cell in book.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 3
    assert any("teacher" in output.get("data", {}).get("text/plain", "") for output in outputs)
    assert (tmp_path / "runs" / "first" / "last.safetensors").exists()
