"""What a worker hands to a search: the specification and the files that it names, already checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from compressors.descriptions import DatasetDescription, ModelDescription
from search.spec import JobSpec


@dataclass(frozen=True, kw_only=True)
class ModelFile:
    """path: a .pt2 that passed intake. sha256: of the uploaded bytes (hex)."""

    path: Path
    sha256: str
    description: ModelDescription


@dataclass(frozen=True, kw_only=True)
class DatasetFile:
    path: Path
    sha256: str
    description: DatasetDescription


@dataclass(frozen=True, kw_only=True)
class JobInputs:
    """datasets: by the identifier used in `spec.data`. models: by the names in `spec.models`. workspace: this job's own
    folder, kept between coordinators.

    cache: folder of the content-addressed stage cache, shared by all jobs of this machine.
    """

    job_id: str
    spec: JobSpec
    model: ModelFile
    datasets: Mapping[str, DatasetFile]
    workspace: Path
    cache: Path
    models: Mapping[str, ModelFile] = field(default_factory=dict)
