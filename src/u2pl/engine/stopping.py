"""Signals that ask a program to stop: Ctrl-C, a closed terminal, a scheduler that takes the machine back."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_fabric import Fabric

#: Signals that stop a command, by name; a system may lack some. SLURM sends USR1 where a job asks for a warning.
NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")


class Stopped(BaseException):
    """A signal asked the program to stop. The exit code is 128 + ``number``, as in a shell.

    Args:
        number: of the signal.
        step: the training is saved after this many steps; None: nothing new was saved.
    """

    def __init__(self, number: int, step: int | None = None) -> None:
        self.number, self.step = number, step
        super().__init__(f"stopped by {signal.Signals(number).name}")


def stop_on_signals() -> None:
    """From now on, the signals raise :class:`Stopped` in the main thread, wherever it is."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(number)

    _handle(stop)


class Deferred:
    """A context in which the first signal only sets :attr:`number`, and the next one raises :class:`Stopped` at once.

    Signals reach only the main thread. In another one this does nothing.
    """

    def __init__(self) -> None:
        self.number = 0  #: of the signal that came; 0: none
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Deferred:
        self._before = _handle(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.number:
            raise Stopped(number)
        self.number = number

    def agreed(self, fabric: Fabric, *, now: bool) -> int:
        """The signal that came to any process, or 0. All processes get the same answer at the same step.

        With several processes, the host waits for the device, so they only ask ``now`` and then.
        """
        if fabric.world_size == 1:
            return self.number
        if not now:
            return 0
        import torch  # here: the command line imports this module before it knows whether it needs PyTorch

        number = torch.tensor(self.number, device=fabric.device)
        return int(fabric.all_reduce(number, reduce_op="max"))  # type: ignore[arg-type]


def _handle(handler: Any) -> dict[int, Any]:
    """Set the handler of all signals. Returns the former handlers by number."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    numbers = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
    return {number: signal.signal(number, handler) for number in numbers}
