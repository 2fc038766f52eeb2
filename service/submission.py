"""A specification is checked against what it names before any row is written."""

from __future__ import annotations

from compressors.descriptions import DatasetDescription, ModelDescription
from search.spec import JobSpec
from service.catalogue import Catalogue
from service.intake import Intake
from service.problems import FieldError, invalid
from service.refusals import Unknown
from service.tables import datasets
from service.versions import Resolved, references


def check_submission(spec: JobSpec, catalogue: Catalogue, intake: Intake, prefix: str = "") -> Resolved:
    """The specification with ids in the place of names. prefix: put before field names.

    Raises Problem 422 with every unknown id and name or, if all are known, every misfit.
    """
    found = catalogue.resolve(spec)
    if not isinstance(found, Resolved):
        raise invalid(FieldError(prefix + missing.field, str(missing)) for missing in found)
    spec = found.spec
    errors: list[FieldError] = []
    model: ModelDescription | None = None
    data: dict[str, DatasetDescription] = {}
    for field, table, key in references(spec):
        try:
            if table is datasets:
                data[key] = catalogue.dataset(key).description
            elif field == "model":
                model = catalogue.model(key).description
            else:
                catalogue.model(key)
        except Unknown as error:
            text = f"no {error.kind} has the id {key!r}; upload it with POST /v1/{table.name}"
            errors.append(FieldError(field, text))
    if model is not None and not errors:
        errors.extend(intake.fit(spec, model, data))
    if errors:
        raise invalid(FieldError(prefix + e.field, e.message) for e in errors)
    return found
