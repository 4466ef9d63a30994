"""The close of an object as a rule of two words: asked for, and done when nothing needs the object any more (R-CLOSE).

Must not know what the objects are, nor who depends on whom.
"""

from dataclasses import dataclass

__all__ = ["Closing"]


@dataclass
class Closing:
    """One object's. `asked`: it takes no calls any more (R-CLOSE-6), and no event callback of it starts (R-CLOSE-11)."""

    asked: bool = False
    done: bool = False

    def finish(self, *successors: "Closing", busy: bool = False) -> bool:
        """R-CLOSE-2, -5. True once: when the close that was asked for is done now."""
        now = self.asked and not self.done and not busy and all(successor.done for successor in successors)
        self.done = self.done or now
        return now

    def renew(self) -> None:
        """Another object has taken the place of the one that is closed."""
        self.asked = self.done = False
