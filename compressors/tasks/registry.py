"""Task descriptions by name."""

from __future__ import annotations

from typing import TypeVar

from compressors.tasks.description import TaskDescription

D = TypeVar("D", bound=type[TaskDescription])
_DESCRIPTIONS: dict[str, TaskDescription] = {}


def register_task(description: D) -> D:
    """Declares a task. A second one of the same name raises ValueError."""
    add(description())
    return description


def add(description: TaskDescription) -> None:
    """Raises ValueError for a name that is taken."""
    taken = _DESCRIPTIONS.get(description.name)
    if taken is not None:
        kind = type(taken)
        raise ValueError(f"task {description.name!r} is registered already: {kind.__module__}.{kind.__qualname__}")
    _DESCRIPTIONS[description.name] = description


def registered() -> dict[str, TaskDescription]:
    """In the order of registration."""
    return dict(_DESCRIPTIONS)
