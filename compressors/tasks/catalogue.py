"""The tasks of this installation: the ones that come with it and those of packages that name the entry point group."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from importlib.metadata import entry_points
from types import MappingProxyType

from compressors.errors import InvalidData
from compressors.tasks import label_tasks, position_tasks, value_tasks
from compressors.tasks.description import TaskDescription
from compressors.tasks.registry import add, registered

GROUP = "bantam.tasks"
BUILT_IN = (label_tasks, value_tasks, position_tasks)  # importing them registers their tasks

_logger = logging.getLogger(__name__)


def descriptions() -> dict[str, TaskDescription]:
    """By name. Packages are looked up once per process."""
    _from_packages()
    return registered()


def describe(name: str) -> TaskDescription:
    """Raises InvalidData for a name that is not known, or whose package cannot be loaded."""
    broken = _from_packages()
    known = registered()
    if name in known:
        return known[name]
    if name in broken:
        raise InvalidData(f"task={name!r}: {broken[name]}")
    raise InvalidData(f"task={name!r}: unknown; known are {sorted(known)}")


@functools.cache
def _from_packages() -> Mapping[str, str]:
    """Adds the tasks of other packages. Returns those that could not be added, with the reason.

    One bad package must not take the others down, so nothing is raised before a job asks for its task.
    """
    broken: dict[str, str] = {}
    for entry in entry_points(group=GROUP):
        origin = f"entry point {entry.name!r} = {entry.value!r}"
        try:
            found = entry.load()
            description = found() if isinstance(found, type) else found
            if not isinstance(description, TaskDescription):
                raise TypeError(f"is {type(description).__name__}, not a TaskDescription")
            if description.name != entry.name:
                raise ValueError(f"describes the task {description.name!r}; both names must be the same")
            if registered().get(entry.name) is not description:  # its module may have used the decorator
                add(description)
        except Exception as error:  # a package may raise whatever it likes while it is imported
            broken[entry.name] = f"{origin} cannot be loaded: {type(error).__name__}: {error}"
            _logger.warning("task %r: %s", entry.name, broken[entry.name])
    return MappingProxyType(broken)
