"""From the name of a task to the object that computes."""

from __future__ import annotations

import pkgutil

from compressors.errors import InvalidData
from compressors.tasks.catalogue import describe
from compressors.tasks.contract import Task
from compressors.tasks.description import TaskOptions


def task(name: str, options: TaskOptions | None = None) -> Task:
    """Imports the implementation, and torch with it. Options that are left out take the task's own values.

    Raises InvalidData for a task or metric that is not known, and for an implementation that cannot be loaded.
    """
    description = describe(name)
    complete = description.complete(options or TaskOptions())
    try:
        kind = pkgutil.resolve_name(description.implementation)
    except (ImportError, AttributeError, ValueError) as error:
        raise InvalidData(f"task={name!r}: {description.implementation} cannot be loaded: {error}") from error
    if not (isinstance(kind, type) and issubclass(kind, Task)):
        raise InvalidData(f"task={name!r}: {description.implementation} is not a subclass of compressors.tasks.Task")
    made: Task = kind(description, complete)
    return made
