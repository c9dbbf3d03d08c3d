"""What every assembly has."""

from abc import ABC, abstractmethod
from typing import Any


class Assembly(ABC):
    """`usage`, `model` and `error` are the last that any event named; `done`: the closing event has come."""

    def __init__(self) -> None:
        self.usage: dict[str, Any] | None = None
        self.model: str | None = None
        self.error: Any = None
        self.done = False

    @abstractmethod
    def add(self, event: dict[str, Any]) -> bool:
        """Takes one event; whether it carries generated content. Never raises."""

    @abstractmethod
    def result(self) -> dict[str, Any] | None:
        """The answer as far as it has come, or None if no event was understood."""
