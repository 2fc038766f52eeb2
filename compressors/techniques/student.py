"""Puts a given network in the model's place."""

from __future__ import annotations

import copy

from torch import fx

from compressors.further_models import check_same_interface, named_model
from compressors.recipe import Student
from compressors.registry import Context, register


@register(Student)
def put_student(model: fx.GraphModule, config: Student, context: Context) -> fx.GraphModule:
    """A copy of the further model that `config` names, in eval mode; a draft is the same.

    Raises InvalidRecipe for a name that is not given, and for a model with other inputs or outputs.
    """
    given = named_model("student.model", config.model, context.models)
    check_same_interface(f"student.model={config.model!r}: it", given, model, context.example_inputs)
    student: fx.GraphModule = copy.deepcopy(given)
    return student.eval()
