"""Whether a job's model, data and techniques fit together, decided from descriptions alone before any search starts.

All problems are reported at once. Imports neither torch nor optuna: the HTTP process calls this at POST /v1/jobs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from compressors.descriptions import DatasetDescription, ModelDescription
from compressors.recipe import STEPS, Phase
from compressors.tasks import describe
from search.fit_data import check_datasets, check_inputs, check_rows
from search.fit_target import check_group, check_target, check_task_fields
from search.problems import Problem
from search.spec import TECHNIQUES, JobSpec

__all__ = ["Problem", "check_fit"]

_CHANGING = tuple(
    s.technique
    for s in STEPS
    if s.technique in TECHNIQUES and s.phase in (Phase.STUDENT, Phase.SHAPE, Phase.SPARSITY, Phase.ENCODING)
)
_COMPRESSIBLE = ("Conv", "Linear")


def check_fit(
    spec: JobSpec, model: ModelDescription, datasets: Mapping[str, DatasetDescription]
) -> tuple[Problem, ...]:
    """Every reason why this job could not run; empty if it can. datasets: by the identifiers in `spec.data`."""
    problems = [*_model(spec, model), *_techniques(spec, model)]
    problems += [*check_task_fields(spec), *check_datasets(spec.data, datasets)]
    for role in ("train", "validation", "test"):
        name = getattr(spec.data, role)
        if name is not None and name in datasets:
            problems += check_inputs(spec, role, model, datasets[name])
            problems += check_target(spec, role, model, datasets[name])
            problems += check_group(spec, role, datasets[name])
    if spec.data.train in datasets:
        problems += check_rows(spec, datasets)
    return tuple(dict.fromkeys(problems))


# --- model ------------------------------------------------------------------------------------------------------------


def _model(spec: JobSpec, model: ModelDescription) -> Iterator[Problem]:
    if model.unsupported is not None:
        yield Problem("model", f"{spec.target.runtime} cannot run it: {model.unsupported}")
    if not model.batch_is_dynamic:
        fixed = next((t for t in model.inputs if not t.shape or t.shape[0] is not None), None)
        if fixed is None or not fixed.shape:
            name = "input" if fixed is None else fixed.name
            yield Problem(
                "model", f"input {name!r} has no batch dimension; let dimension 0 of every input be the batch"
            )
        else:
            remedy = f'dynamic_shapes={{"{fixed.name}": {{0: torch.export.Dim("batch")}}}}'
            yield Problem(
                "model",
                f"the batch of input {fixed.name!r} is fixed at {fixed.shape[0]}, but tuning needs other sizes; "
                f"export with {remedy}",
            )
    if len(model.outputs) != 1:
        names = ", ".join(repr(t.name) for t in model.outputs)
        what = "the logits only" if spec.task == "classification" else "that of the task only"
        yield Problem(
            "model", f"{len(model.outputs)} outputs ({names}), {spec.task} needs 1; return {what} and export again"
        )
        return
    yield from (Problem("model", message) for message in describe(spec.task).output_problems(model.outputs[0]))


def _techniques(spec: JobSpec, model: ModelDescription) -> Iterator[Problem]:
    if not set(spec.allowed) & set(_CHANGING):
        yield Problem(
            "techniques",
            f"{list(spec.allowed)} leaves size and speed as they are: distillation only tunes what another technique "
            f"made smaller; add at least one of {', '.join(_CHANGING)}",
        )
    if not any(layer.kind.startswith(_COMPRESSIBLE) for layer in model.layers):
        kinds = ", ".join(sorted({layer.kind for layer in model.layers})) or "none"
        yield Problem(
            "model",
            f"no convolution or linear layer that a technique could make smaller (layers: {kinds}); upload another",
        )
