"""Notices pseudo-labels that train nothing, because none of them is reliable."""

from __future__ import annotations

from collections.abc import Callable, Mapping

STEPS = 500  #: without one, before it is said
_LOSS = "loss/unsupervised"


class Silence:
    """Says once if no pseudo-label has trained for 500 steps: the mean of L_u was exactly 0.

    Args:
        say: called with the line.
        key: the key that sets how confident a pseudo-label must be.
    """

    def __init__(self, say: Callable[[str], None], key: str) -> None:
        self.say, self.key = say, key
        self.heard: int | None = None  # the last step at which a pseudo-label trained, or training began to use them
        self.said = False

    def read(self, done: int, losses: Mapping[str, float]) -> None:
        """Read the mean losses of the steps up to ``done``, since the last reading."""
        if losses.get(_LOSS, 1.0) != 0.0 or self.heard is None:
            self.heard = done
        elif done - self.heard >= STEPS and not self.said:
            self.said = True
            self.say(
                f"no pseudo-label has trained for {done - self.heard} steps: none is confident enough; lower {self.key}"
            )
