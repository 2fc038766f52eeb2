"""Another network in the model's place."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, fx, nn

from compressors.errors import InvalidRecipe
from compressors.pipeline import run_recipe
from compressors.programs import to_modules
from compressors.recipe import Distillation, Recipe, StructuredPruning, Student
from compressors.registry import Context, apply
from tests.conformance.technique import Case, TechniqueConformance, context_for
from tests.models import export, exported

CASES = (Case("mlp", Student()),)


class Narrow(nn.Module):
    """What `mlp` takes and gives, through three neurons."""

    def __init__(self, inputs: int = 5, outputs: int = 3) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, 3)
        self.last = nn.Linear(3, outputs)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(torch.relu(self.first(x)))
        return out


class TwoAnswers(Narrow):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        answer = super().forward(x)
        return answer, answer + 1


class TwoQuestions(Narrow):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x + y)


def student(made: nn.Module, *shapes: tuple[int, ...]) -> fx.GraphModule:
    return to_modules(export(made.eval(), tuple(torch.rand(2, *shape) for shape in shapes or ((5,),))))


@pytest.fixture(scope="module")
def narrow() -> fx.GraphModule:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return student(Narrow())


@pytest.mark.parametrize("case", CASES, ids=str)
class TestStudent(TechniqueConformance):
    @pytest.fixture
    def context(self, case: Case, model: fx.GraphModule, narrow: fx.GraphModule) -> Context:
        return replace(context_for(case.model, model), models={"student": narrow})


@pytest.fixture
def context(narrow: fx.GraphModule) -> Context:
    return replace(context_for("mlp", to_modules(exported("mlp"))), models={"student": narrow, "small": narrow})


def test_it_is_a_copy_in_eval_mode(context: Context, narrow: fx.GraphModule) -> None:
    model = to_modules(exported("mlp"))
    training = copy.deepcopy(narrow).train()
    put = apply(model, Student(model="small"), replace(context, models={"small": training}))
    assert not put.training
    assert training.training
    assert put.state_dict().keys() == narrow.state_dict().keys()
    assert put.get_parameter("first.weight") is not training.get_parameter("first.weight")


def test_later_steps_see_the_student(context: Context) -> None:
    """Its own channels are pruned, and the original teaches it."""
    model = to_modules(exported("mlp"))
    recipe = Recipe((Student(), StructuredPruning(keep={"first": 2}), Distillation(samples=48, alpha=1.0)))
    assert run_recipe(model, recipe, context).get_parameter("first.weight").shape == (2, 5)


def test_a_name_that_is_not_given_is_refused(context: Context) -> None:
    model = to_modules(exported("mlp"))
    with pytest.raises(
        InvalidRecipe,
        match=r"student.model='smal': no further model has this name; did you mean 'small'\? given are \['small', 'stu",
    ):
        apply(model, Student(model="smal"), context)
    with pytest.raises(InvalidRecipe, match="none are given; add it to the further models"):
        apply(model, Student(), replace(context, models={}, draft=True))
    with pytest.raises(InvalidRecipe, match=r"student.model='': names no model"):
        Student(model="")


@pytest.mark.parametrize(
    ("made", "shapes", "message"),
    [
        (TwoQuestions(), ((5,), (5,)), r"it takes 2 inputs \['x', 'y'\], the original 1 \['x'\]"),
        (Narrow(inputs=6), ((6,),), r"it does not take the original's inputs \{'x': 'float32\[2, 5\]'\}: .*shapes"),
        (Narrow(outputs=4), ((5,),), r"it gives output 0 as float32\[2, 4\], the original as float32\[2, 3\]"),
        (TwoAnswers(), ((5,),), "it gives 2 outputs, the original 1"),
        (Narrow().double(), None, "it does not take the original's inputs .*dtype"),
    ],
)
def test_another_interface_is_refused(
    context: Context, made: nn.Module, shapes: tuple[tuple[int, ...], ...] | None, message: str
) -> None:
    if shapes is None:
        given = to_modules(export(made.eval(), (torch.rand(2, 5, dtype=torch.float64),)))
    else:
        given = student(made, *shapes)
    for draft in (False, True):
        with pytest.raises(InvalidRecipe, match=f"student.model='student': {message}"):
            apply(to_modules(exported("mlp")), Student(), replace(context, models={"student": given}, draft=draft))
