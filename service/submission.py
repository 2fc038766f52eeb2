"""A specification is checked against what it names before any row is written."""

from __future__ import annotations

from compressors.descriptions import DatasetDescription, ModelDescription
from search.spec import JobSpec
from service.catalogue import Catalogue
from service.intake import Intake
from service.problems import FieldError, invalid
from service.refusals import Unknown


def check_submission(spec: JobSpec, catalogue: Catalogue, intake: Intake, prefix: str = "") -> None:
    """Raises Problem 422 with every unknown id or, if all are known, every misfit. prefix: put before field names."""
    errors: list[FieldError] = []
    model: ModelDescription | None = None
    try:
        model = catalogue.model(spec.model).description
    except Unknown:
        errors.append(FieldError("model", f"no model has the id {spec.model!r}; upload it with POST /v1/models"))
    for name, model_id in spec.models.items():
        try:
            catalogue.model(model_id)
        except Unknown:
            message = f"no model has the id {model_id!r}; upload it with POST /v1/models"
            errors.append(FieldError(f"models.{name}", message))
    descriptions: dict[str, DatasetDescription] = {}
    for role in ("train", "validation", "test"):
        dataset_id = getattr(spec.data, role)
        if dataset_id is None:
            continue
        try:
            descriptions[dataset_id] = catalogue.dataset(dataset_id).description
        except Unknown:
            message = f"no dataset has the id {dataset_id!r}; upload it with POST /v1/datasets"
            errors.append(FieldError(f"data.{role}", message))
    if model is not None and not errors:
        errors.extend(intake.fit(spec, model, descriptions))
    if errors:
        raise invalid(FieldError(prefix + e.field, e.message) for e in errors)
