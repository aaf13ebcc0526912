"""Lines of progress in a pipe."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from u2pl.report.progress import ProgressBar


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("u2pl.report.progress.time.perf_counter", clock)
    return clock


def lines(clock: Clock, *reports: tuple[float, int, dict[str, float]], steps: int = 1000) -> list[str]:
    """What is printed for reports of (seconds since the last one, steps done, numbers)."""
    text = StringIO()
    bar = ProgressBar(Console(file=text, width=40), title="u2pl")
    bar.begin(steps)
    for seconds, done, numbers in reports:
        clock.now += seconds
        bar.step(done, {"loss/supervised": 1.25, "steps_per_second": 2.0, **numbers})
    return text.getvalue().splitlines()


def test_a_line_is_whole_and_start_up_does_not_count(clock: Clock) -> None:
    first, second = lines(clock, (600.0, 10, {}), (40.0, 90, {}))
    assert first == "u2pl 10/1000 supervised 1.25 2.0 steps/s, 8 min left"  # 990 steps at 2 a second
    assert second == "u2pl 90/1000 supervised 1.25 2.0 steps/s, 8 min left"  # 910 steps at 80 in 40 seconds


def test_a_line_every_half_minute(clock: Clock) -> None:
    assert len(lines(clock, *((10.0, 10 * n, {}) for n in range(1, 13)))) == 3


def test_long_times_are_in_hours(clock: Clock) -> None:
    assert lines(clock, (1.0, 10, {}), steps=40_000)[0].endswith(", 5.6 h left")


@pytest.mark.parametrize(
    ("numbers", "shown"),
    [
        ({"waiting": 0.5}, ", 50 % waiting for data, "),
        ({"waiting": 0.01}, "steps/s, "),
        ({"waiting": 0.2, "memory_gib": 21.64}, "steps/s, 21.6 GiB, 20 % waiting for data, "),
    ],
)
def test_what_the_machine_does(clock: Clock, numbers: dict[str, float], shown: str) -> None:
    assert shown in lines(clock, (1.0, 10, numbers))[0]


def test_images_are_counted_with_their_speed(clock: Clock) -> None:
    text = StringIO()
    bar = ProgressBar(Console(file=text, width=40), title="suggest")
    bar.counted("looking at images", 0, 200)
    for done in (50, 100, 150):
        clock.now += 20.0
        bar.counted("looking at images", done, 200)
    bar.counted("drafting masks", 0, 2)  # counts anew
    clock.now += 40.0
    bar.counted("drafting masks", 2, 2)
    assert text.getvalue().splitlines() == ["looking at images 100/200 2.5 images/s", "drafting masks 2/2 0.1 images/s"]
