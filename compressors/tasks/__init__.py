"""What a model is for, in two halves.

A `TaskDescription` says what outputs and targets must look like; a `Task` holds loss, metric and divergence. Importing
this package imports no torch, and so do descriptions: the HTTP process checks jobs with them. `task` imports the rest.
"""

from __future__ import annotations

from compressors.tasks.catalogue import describe, descriptions
from compressors.tasks.contract import Task, standard_error
from compressors.tasks.description import MetricDescription, TargetFacts, TaskDescription, TaskOptions
from compressors.tasks.loading import task

__all__ = [
    "MetricDescription",
    "TargetFacts",
    "Task",
    "TaskDescription",
    "TaskOptions",
    "describe",
    "descriptions",
    "standard_error",
    "task",
]
