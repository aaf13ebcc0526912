"""How fast a GPU trains: a step of U2PL, its network passes alone, compiled and not; and whole trainings.

Each case prints one line, and is written to a file of JSON at once. The most important cases come first. A case that
cannot end in the time left is skipped. A case that fails prints its error, and the others go on.

- *step*: a whole step (losses, backward, optimizer, teacher update). The paper's network for PASCAL VOC: DeepLabv3+ on
  ResNet-101, output stride 8, 21 classes, 8 + 8 crops of 513, all queues of the bank full. *passes*: the network passes
  of such a step alone. Both are medians of runs that alternate, several between two looks at the clock.
- *memory*: the largest of each, in GiB. That of the passes is without the bank.
- *busy*: time of all kernels of a step, over the time of the step.
- *train*: `u2pl train` on drawn scenes as a process of its own, an FPN on MobileNetV2 with 8 + 8 crops of 352.

    python benchmarks/gpu.py --out gpu.json [--minutes 6] [--device cpu --small]
"""

from __future__ import annotations

import argparse
import gc
import json
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from training import Shape, Training, alternate, full_contrast
from u2pl.engine.compiling import compile_networks
from u2pl.engine.machine import make_fabric
from u2pl.methods import U2PL, EmaTeacher

PAPER = Shape("voc", 21, 513, 129, 256, [50_000] + 20 * [30_000], {"encoder": "resnet101", "output_stride": 8})
TINY = Shape("tiny", 5, 65, 17, 16, 5 * [2000], {"encoder": "resnet18", "channels": 16, "embedding_dim": 16})
TARGETS = {"step_ms": 120.0, "ratio": 1.03, "more_gib": 1.0}  # of the paper's shape in bf16 with two teacher passes
#: On a CPU, kernels take minutes to compile. A trial of this script does without them.
_NO_KERNELS = "torch.compiler.set_stance('default', force_backend='eager')"
_GIB = 2**30
_MARGIN = 10.0  # seconds that stay for the last lines


@dataclass(frozen=True)
class Case:
    """What is measured, and the seconds that it takes at most, as far as one knows."""

    name: str
    seconds: float
    precision: str = "bf16"
    passes: tuple[int, ...] = (2, 1)  #: of the teacher
    mode: str | None = None  #: of `torch.compile`; None: not compiled
    tuned: bool = False  #: cuDNN tries several algorithms
    whole: bool = True  #: measure whole steps, too
    trains: bool = False  #: a training as a process of its own


CASES = (
    Case("bf16", 45),
    Case("bf16, compiled", 150, mode="default"),
    Case("bf16, cudnn.benchmark", 45, passes=(2,), tuned=True),
    Case("train", 60, trains=True),
    Case("train, compiled", 100, trains=True, mode="default"),
    Case("fp32 (TF32)", 50, precision="fp32"),
    Case("bf16, CUDA graphs", 150, passes=(2,), mode="reduce-overhead", whole=False),
    Case("fp32 (TF32), compiled", 150, precision="fp32", mode="default"),
    Case("fp32 (TF32), cudnn.benchmark", 45, precision="fp32", passes=(2,), tuned=True),
    Case("bf16, autotuned", 200, passes=(2,), mode="max-autotune-no-cudagraphs", whole=False),
)


class Bench:
    """Measures cases on one device."""

    def __init__(self, device: str, *, small: bool, repeats: int) -> None:
        self.device, self.small, self.repeats = device, small, repeats
        self.shape = TINY if small else PAPER
        self.cuda = device == "cuda"

    def measure(self, case: Case, left: float) -> Iterator[dict[str, Any]]:
        """A result for each number of teacher passes, or of a training."""
        if case.trains:
            yield self.training(compiled=case.mode is not None, left=left)
            return
        torch.manual_seed(0)
        torch.backends.cudnn.benchmark = case.tuned
        torch.compiler.reset()
        dtype = torch.bfloat16 if case.precision == "bf16" else torch.float32
        training = Training(self.shape, device=self.device, dtype=dtype, tuned=True)
        teacher = EmaTeacher(training.student)
        method = U2PL(teacher, contrast=full_contrast(self.shape, self.device)).to(self.device)
        if case.mode is not None:
            self.compile(training, method, case.mode)
        seconds = 0.0
        for passes in case.passes:
            teacher.passes = passes  # type: ignore[assignment]
            runs: dict[str, Callable[[], object]] = {"passes": partial(network_passes, training, teacher)}
            if case.whole:
                runs = {"step": partial(training.step, method), **runs}
            seconds += self.first(runs)  # of all graphs so far
            yield {"teacher_passes": passes, **self.timed(runs, method), "first_seconds": seconds}

    def compile(self, training: Training, method: U2PL, mode: str) -> None:
        if mode == "default":
            compile_networks(training.student, method)
            return
        for network in (training.student, method.teacher.network):
            network.compile(dynamic=False, mode=mode)

    def first(self, runs: dict[str, Callable[[], object]]) -> float:
        """Seconds of the first run of each: mostly compilation, or the search for algorithms."""
        began = time.perf_counter()
        for run in runs.values():
            run()
        self.wait()
        return time.perf_counter() - began

    def timed(self, runs: dict[str, Callable[[], object]], method: U2PL) -> dict[str, Any]:
        together = 1 if self.small else 4
        ms = alternate(runs, repeats=self.repeats, device=self.device, together=together)
        result: dict[str, Any] = {f"{name}_ms": value for name, value in ms.items()}
        if "step" in ms:
            result["ratio"] = ms["step"] / ms["passes"]
        if not self.cuda:
            return result
        assert method.contrast is not None
        bank = method.contrast.bank.keys
        result["bank_gib"] = bank.numel() * bank.element_size() / _GIB
        for name, run in runs.items():
            result[f"{name}_gib"] = self.memory(run) - (result["bank_gib"] if name == "passes" else 0)
        if "step" in ms:
            result["more_gib"] = result["step_gib"] - result["passes_gib"] - result["bank_gib"]
        for name, run in runs.items():
            kernels = self.kernels(run)
            result[f"{name}_busy"] = sum(kernels.values()) / ms[name]
            result[f"{name}_kernels_ms"] = dict(list(kernels.items())[:30])
        return result

    def memory(self, run: Callable[[], object]) -> float:
        torch.cuda.reset_peak_memory_stats()
        run()
        return torch.cuda.max_memory_allocated() / _GIB

    def kernels(self, run: Callable[[], object]) -> dict[str, float]:
        """Milliseconds of each kernel of a run, the longest first."""
        self.wait()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            run()
            self.wait()
        times = {event.key[:100]: event.self_device_time_total / 1000 for event in profile.key_averages()}
        return dict(sorted(times.items(), key=lambda item: -item[1]))

    def training(self, *, compiled: bool, left: float) -> dict[str, Any]:
        """Steps per second of a training without its first half, and the seconds of all."""
        side, steps = (64, 8) if self.small else (352, 160)
        keys = [
            *("network.name=smp", "network.architecture=FPN", "network.encoder=mobilenet_v2"),
            *(f"train.crop_size={side}", f"train.steps={steps}", "train.batch_size=8", "train.save_every=0"),
            *(f"train.log_every={steps // 8}", "method.schedule.warmup=0.1", f"train.compile={str(compiled).lower()}"),
            *(f"data.height={side}", f"data.width={4 * side // 3}", "data.train=64", "data.val=8", "data.labeled=16"),
            *(f"train.accelerator={self.device}", "data.cache=true", f"data.workers={0 if self.small else 8}"),
        ]
        began = time.perf_counter()
        with TemporaryDirectory() as folder:
            program = f"import torch; {_NO_KERNELS}; " * self.small + "from u2pl.cli import main; main()"
            command = [sys.executable, "-c", program, "train", "scenes", *keys, "--out", f"{folder}/run"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=left, check=False)
            if done.returncode:
                raise RuntimeError(done.stderr.strip().splitlines()[-1] if done.stderr else "training failed")
            seconds = time.perf_counter() - began
            lines = map(json.loads, (Path(folder) / "run" / "metrics.jsonl").read_text().splitlines())
            speeds = [line["steps_per_second"] for line in lines if "steps_per_second" in line]
        speed = statistics.median(speeds[len(speeds) // 2 :])
        return {"steps_per_second": speed, "step_ms": 1000 / speed, "seconds": seconds}

    def wait(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()

    def free(self) -> None:
        """Give back the memory of the last case."""
        gc.collect()
        if self.cuda:
            torch.cuda.empty_cache()


def network_passes(training: Training, teacher: EmaTeacher) -> None:
    """The network passes of a step under a trivial loss, and the optimizer."""
    weak, (strong,) = training.batch.unlabeled_views()
    both = torch.cat((training.batch.image, strong))
    with training.autocast:
        for images in (weak, both) if teacher.passes == 2 else (both,):
            teacher(images)
        output = training.student(both)
    training.learn(output.logits.mean() + output.embedding.mean())


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise TimeoutError after so many seconds."""

    def end(*_: Any) -> None:
        raise TimeoutError(f"stopped after {seconds:.0f} s")

    signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def line_of(name: str, result: dict[str, Any]) -> str:
    """A row of the table."""
    if "problem" in result:
        return f"{name:32} {result['problem']}"
    cells = [f"{name:32}", f"{result.get('teacher_passes', '-'):>6}"]
    for key, digits in (("step_ms", 1), ("passes_ms", 1), ("ratio", 3), ("step_gib", 2), ("passes_gib", 2)):
        cells.append(f"{result[key]:>10.{digits}f}" if key in result else f"{'-':>10}")
    cells.append(f"{result['step_busy']:>6.0%}" if "step_busy" in result else f"{'-':>6}")
    first = result.get("first_seconds", result.get("seconds"))
    return " ".join([*cells, f"{first:>7.0f} s"])


def measure_all(bench: Bench, cases: Sequence[Case], *, out: Path, end: float) -> None:
    """Measure the cases until ``end`` on the clock of :func:`time.perf_counter`. The file is complete after each."""
    device = torch.cuda.get_device_name() if bench.cuda else "cpu"
    report: dict[str, Any] = {"torch": torch.__version__, "device": device, "shape": asdict(bench.shape), "cases": []}
    print(f"torch {torch.__version__}, {device}, {bench.shape.name}; bf16 with 2 passes should need at most", end=" ")
    print("{step_ms:.0f} ms, a ratio of {ratio}, and {more_gib:.0f} GiB beside passes and bank".format(**TARGETS))
    heads = ("step ms", "passes ms", "ratio", "step GiB", "passes GiB")
    print(f"{'case':32} passes", *(f"{head:>10}" for head in heads), f"{'busy':>6} {'first':>9}", flush=True)

    def keep(case: Case, result: dict[str, Any]) -> None:
        report["cases"].append({"case": case.name, **result})
        print(line_of(case.name, result), flush=True)
        out.write_text(json.dumps(report, indent=1))

    for case in cases:
        left = end - time.perf_counter()
        if left < (0 if bench.small else case.seconds):
            keep(case, {"problem": f"skipped: it may take {case.seconds:.0f} s, {max(left, 0):.0f} s are left"})
            continue
        limit = max(1.0, left if bench.small else min(left, 2 * case.seconds))
        try:
            with limited(limit):
                for result in bench.measure(case, limit):
                    keep(case, result)
        except Exception as error:
            reason = next(iter(str(error).splitlines()), "")
            keep(case, {"problem": f"failed: {type(error).__name__}: {reason[:160]}"})
        bench.free()


def main() -> None:
    began = time.perf_counter()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--minutes", type=float, default=6.0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--small", action="store_true", help="a tiny shape without kernels, to try this script")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", default="", help="names of cases, separated by ;")
    arguments = parser.parse_args()
    fabric = make_fabric(accelerator=arguments.device, devices=1, nodes=1, precision="fp32")  # sets TF32
    bench = Bench(fabric.device.type, small=arguments.small, repeats=arguments.repeats)
    only = arguments.only.split(";") if arguments.only else [case.name for case in CASES]
    with torch.compiler.set_stance("default", force_backend="eager") if arguments.small else nullcontext():
        cases = [case for case in CASES if case.name in only]
        measure_all(bench, cases, out=arguments.out, end=began + 60 * arguments.minutes - _MARGIN)


if __name__ == "__main__":
    main()
