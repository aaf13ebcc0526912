"""Compiled networks: how many graphs a training has, what runs without them, and what is said where there are none."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tiny_run import KillAt, KilledError, TinyNetwork
from u2pl.engine import compiling
from u2pl.engine.compiling import compile_networks, compiler_errors_are_bad_input, eagerly, missing_compiler
from u2pl.errors import InputError
from u2pl.methods import EmaTeacher, MeanTeacher
from u2pl.networks import deeplabv3plus, smp_network

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
COMPILED = "train.compile=true"


class Counting:
    """A backend that compiles nothing, and keeps the shape of the images and whether a graph trains."""

    def __init__(self) -> None:
        self.graphs: list[tuple[int, bool]] = []

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        (image,) = [each for each in inputs if each.dim() == 4 and each.shape[1] == 3 and each.shape[-1] > 8]
        self.graphs.append((len(image), torch.is_grad_enabled()))
        return graph.forward


@pytest.fixture
def counting() -> Iterator[Counting]:
    """Lets everything that is compiled run as it is, and counts it."""
    torch._dynamo.reset()
    backend = Counting()
    with torch.compiler.set_stance("default", force_backend=backend):
        yield backend
    torch._dynamo.reset()


#: Graphs (images, trains) of runs of 2 labeled and 2 unlabeled images. The order is that of the first passes.
GRAPHS = {
    "method.name=supervised": [(2, True)],
    "method.teacher.passes=1": [(2, True), (4, False), (4, True)],
    "method.masked_consistency=true": [(2, True), (4, False), (4, True), (2, True)],  # as many images as in the warm-up
    "method.teacher.passes=2": [(2, True), (2, False), (4, True), (4, False)],
    "method.name=fixmatch": [(2, False), (4, True)],
    "method.name=unimatch": [(4, True), (4, True)],  # with dropped features; two strong views
}


@pytest.mark.parametrize("override", GRAPHS)
def test_each_kind_of_pass_is_compiled_once(
    tmp_path: Path, tiny_train: Callable[..., Any], counting: Counting, override: str
) -> None:
    more = ("train.eval_every=5", "method.diagnose=true", override)
    if override.endswith(("supervised", "match")):
        more = (*more, "method.contrast=null")
    tiny_train(tmp_path / "run", COMPILED, *more)
    assert counting.graphs == GRAPHS[override]
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    compared = not override.startswith("method.name=")  # scored after the warm-up, too
    assert sum("student/miou" in json.loads(line) for line in lines) == 4 + compared
    tiny_train(tmp_path / "run", COMPILED, *more, resume=True)  # only scores it
    assert counting.graphs == GRAPHS[override]


def test_seeds_from_tags_need_no_further_graphs(
    tmp_path: Path, tiny_train: Callable[..., Any], counting: Counting
) -> None:
    weak = ("method.name=weak_u2pl", "method.cam.warmup=0.25", "method.schedule.warmup=0.5")
    tiny_train(tmp_path / "run", COMPILED, *weak, "data.kind=objects", "data.labeled=0", "data.tags=masks")
    assert counting.graphs == [(2, True), (2, False), (4, True)]


@pytest.mark.parametrize(
    "build",
    [
        lambda: deeplabv3plus(num_classes=3, encoder="resnet18", channels=8, embedding_dim=8, auxiliary=True),
        lambda: smp_network(num_classes=3, architecture="FPN", embedding_dim=8, classification=True),
        lambda: smp_network(num_classes=3, architecture="Unet", embedding_dim=8),
    ],
)
def test_a_network_is_one_graph(counting: Counting, build: Callable[[], nn.Module]) -> None:
    network, images = build().train(), torch.rand(2, 3, 48, 48)
    torch.compile(network, fullgraph=True, dynamic=False)(images, dropped=1)
    assert counting.graphs == [(2, True)]


def test_whole_images_are_not_compiled(counting: Counting) -> None:
    network = TinyNetwork(num_classes=3).eval()
    method = MeanTeacher(EmaTeacher(network))
    compile_networks(network, method)
    for side in (32, 40):
        with eagerly(network), torch.no_grad():
            method.teacher(torch.rand(1, 3, side, side))
            network(torch.rand(1, 3, side, side))
    assert counting.graphs == []
    with torch.no_grad():
        method.teacher(torch.rand(1, 3, 48, 48))
    assert counting.graphs == [(1, False)]  # as soon as the context ends


def test_compiled_networks_keep_names_types_and_copies() -> None:
    plain = TinyNetwork(num_classes=3)
    network = copy.deepcopy(plain)
    method = MeanTeacher(EmaTeacher(network))
    names = list(method.state_dict())
    compile_networks(network, method)
    assert type(network) is TinyNetwork
    assert list(network.state_dict()) == list(plain.state_dict())
    assert list(method.state_dict()) == names
    assert method.teacher.network._compiled_call_impl is not None
    assert copy.deepcopy(network)._compiled_call_impl is None
    assert all(torch.equal(one, other) for one, other in zip(network.parameters(), plain.parameters(), strict=True))


def test_a_network_that_is_not_compiled_needs_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.compiler, "set_stance", None)
    with eagerly(TinyNetwork(num_classes=3)):
        pass


def without_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)


def test_what_a_machine_lacks_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in ("CC", "CXX"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(compiling.sys, "platform", "linux")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(compiling, "find_spec", lambda name: name)
    monkeypatch.setattr(compiling.sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    assert missing_compiler(CPU) == missing_compiler(CUDA) == "no Python.h here"
    (tmp_path / "Python.h").touch()
    assert missing_compiler(CPU) is None
    assert missing_compiler(CUDA) is None
    assert missing_compiler(torch.device("mps")) == "no compiler for mps"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (6, 1))
    assert missing_compiler(CUDA) == "the GPU is too old for Triton"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 0))
    monkeypatch.setattr(shutil, "which", lambda name: name if name == "clang" else None)
    assert missing_compiler(CUDA) is None
    assert missing_compiler(CPU) == "no C++ compiler (g++) here"
    monkeypatch.setenv("CXX", "clang")
    assert missing_compiler(CPU) is None
    without_programs(monkeypatch)
    assert missing_compiler(CUDA) == "no C compiler (gcc) here"
    monkeypatch.setattr(compiling, "find_spec", lambda name: None)
    assert missing_compiler(CUDA) == "no Triton here"


def test_a_machine_without_compiler_is_told_before_training(
    tmp_path: Path, tiny_train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    without_programs(monkeypatch)
    with pytest.raises(InputError, match=r"^train\.compile: no C\+\+ compiler .*; install it, or set train\.compile="):
        tiny_train(tmp_path / "run", COMPILED)
    assert not (tmp_path / "run").exists()
    tiny_train(tmp_path / "run", "train.steps=1")


def broken(graph: Any, inputs: Any) -> Any:
    raise ValueError("\nthe compiler has a bug\nand tells a long story")


def test_an_error_of_the_compiler_is_one_line(tmp_path: Path, tiny_train: Callable[..., Any]) -> None:
    torch._dynamo.reset()
    with (
        torch.compiler.set_stance("default", force_backend=broken),
        pytest.raises(InputError, match=r"ValueError: the compiler has a bug\); set train\.compile=false") as told,
    ):
        tiny_train(tmp_path / "run", COMPILED)
    assert len(str(told.value).splitlines()) == 1
    torch._dynamo.reset()


def test_other_errors_are_not_the_compilers(tmp_path: Path) -> None:
    for error in (ValueError("shape"), InputError("train.lr: too large"), RuntimeError("out of memory")):
        with pytest.raises(type(error), match=str(error)), compiler_errors_are_bad_input():
            raise error
    wrapped = torch._dynamo.exc.BackendCompilerFailed(broken, torch.OutOfMemoryError("no GiB left"), None)
    with pytest.raises(torch.OutOfMemoryError, match="no GiB left"), compiler_errors_are_bad_input():
        raise wrapped


def weights(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "last.ckpt", weights_only=True)


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


@pytest.mark.slow
def test_a_compiled_run_that_stopped_ends_like_one_that_did_not(tmp_path: Path, tiny_train: Callable[..., Any]) -> None:
    """With real kernels. It stops in the middle of either phase; the second part compiles anew."""
    keys = (COMPILED, "train.save_every=1", "train.log_every=1", "train.eval_every=8")
    tiny_train(tmp_path / "whole", *keys)
    for stop in (3, 9):
        torch._dynamo.reset()
        with pytest.raises(KilledError):
            tiny_train(tmp_path / "parts", *keys, resume=stop > 3, watchers=(KillAt(stop),))
    torch._dynamo.reset()
    tiny_train(tmp_path / "parts", *keys, resume=True)
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    for part in ("student", "method", "optimizer"):
        assert equal(whole[part], parts[part]), part
    tiny_train(tmp_path / "plain", *keys, "train.compile=false")
    plain = weights(tmp_path / "plain")["student"]
    assert any(not torch.equal(value, plain[name]) for name, value in whole["student"].items())  # its own dropout


def test_a_run_goes_on_as_it_began(tmp_path: Path, tiny_train: Callable[..., Any]) -> None:
    tiny_train(tmp_path / "run", "train.steps=2")
    with pytest.raises(InputError, match=r"^train\.compile: is True now but False in"):
        tiny_train(tmp_path / "run", "train.steps=2", COMPILED, resume=True)
    tiny_train(tmp_path / "run", "train.steps=2", "train.compile=auto", resume=True)
