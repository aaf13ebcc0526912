"""The prompt answers at once: what needs no PyTorch does not import it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from typing import Any

import pytest

HEAVY = {"torch", "torchvision", "timm", "numpy", "lightning_fabric", "PIL", "matplotlib", "tensorboard", "jinja2"}
REPORT = """
import json, resource, sys
sys.argv = ["u2pl", *sys.argv[1:]]
from u2pl.cli import main
try:
    main()
except SystemExit:
    pass
usage = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({"modules": sorted(sys.modules), "seconds": usage.ru_utime + usage.ru_stime}), file=sys.stderr)
"""


def started(*arguments: str, **environment: str) -> dict[str, Any]:
    """The modules that a command imports, and the seconds of CPU that it takes."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(REPORT), *arguments],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **environment},
    )
    return json.loads(done.stderr.splitlines()[-1])


@pytest.mark.parametrize(
    "arguments",
    [(), ("--help",), ("train", "--help"), ("report", "--help"), ("splits", "--help"), ("presets",)],
    ids=" ".join,
)
def test_what_needs_no_pytorch_does_not_import_it(arguments: tuple[str, ...]) -> None:
    report = started(*arguments)
    modules = {name.partition(".")[0] for name in report["modules"]}
    assert not modules & HEAVY
    assert len(report["modules"]) < 900
    assert report["seconds"] < 2  # a quarter of a second on an idle machine


def test_completion_in_a_shell_does_not_import_it_either() -> None:
    report = started(_U2PL_COMPLETE="complete_bash", COMP_WORDS="u2pl tr", COMP_CWORD="1")
    assert not {name.partition(".")[0] for name in report["modules"]} & HEAVY


def test_the_package_imports_nothing_until_it_is_used() -> None:
    script = "import sys, u2pl; print('torch' in sys.modules, u2pl.Predictor.__name__, 'torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert shown.stdout.split() == ["False", "Predictor", "True"]


def test_every_public_name_is_there() -> None:
    import u2pl

    for name in u2pl.__all__:
        assert getattr(u2pl, name) is not None
        assert name in dir(u2pl)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        u2pl.nothing  # noqa: B018
