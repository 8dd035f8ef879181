"""A Progress that records its messages."""

from __future__ import annotations

from iufbench.support.progress import Progress


class Notes(Progress):
    def __init__(self) -> None:
        super().__init__(-1)
        self.said: list[str] = []

    def say(self, text: str, level: int = 0) -> None:
        self.said.append(text)

    @property
    def text(self) -> str:
        return "\n".join(self.said)
