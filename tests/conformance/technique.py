"""What every technique must do. Subclass it, name the configurations, and the same questions are asked of all.

A technique belongs to a configuration class (`compressors.recipe.STEPS`) and a registered function. The rows here are
made up and few: what is tested is the contract, not the quality of the result.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from torch import Tensor, fx

from compressors.artifact import build_artifact
from compressors.errors import InvalidRecipe
from compressors.onnx_export import check_parity, serialize
from compressors.onnx_runtime import OnnxRuntime
from compressors.pipeline import run_recipe
from compressors.programs import to_modules
from compressors.recipe import STEPS, Recipe
from compressors.recipes.step import Step
from compressors.registry import Context, apply, registered
from compressors.state import state_of
from compressors.tasks import task
from compressors.training import Batch, Training
from tests.models import example_inputs, exported

ROWS = 48


@dataclass(frozen=True)
class Case:
    """One configuration on one of the small models. before: steps that it needs in front of it."""

    model: str
    config: Step
    before: tuple[Step, ...] = ()

    def __str__(self) -> str:
        return f"{self.config.technique}-{self.model}"


def rows(name: str, count: int = ROWS) -> tuple[Tensor, ...]:
    """Inputs like the model's examples, `count` rows of each."""
    generator = torch.Generator().manual_seed(5)
    made = []
    for example in example_inputs(name):
        shape = (count, *example.shape[1:])
        if example.is_floating_point():
            made.append(torch.rand(shape, generator=generator))
        else:
            made.append(torch.randint(0, int(example.max()) + 1, shape, generator=generator))
    return tuple(made)


def context_for(name: str, model: fx.GraphModule, *, seed: int = 0) -> Context:
    """Calibration inputs, and labels that are the original's own answers, so that tuning has something to learn."""
    inputs = rows(name)
    with torch.no_grad():
        answers = model(*inputs)
    target = answers.argmax(1)

    def fetch(positions: npt.NDArray[np.int64]) -> Batch:
        at = torch.from_numpy(positions)
        return tuple(tensor[at] for tensor in inputs), target[at], answers[at]

    def calibration() -> Iterator[tuple[Tensor, ...]]:
        for start in range(0, ROWS, 16):
            yield tuple(tensor[start : start + 16] for tensor in inputs)

    return Context(
        example_inputs=example_inputs(name),
        seed=seed,
        calibration=calibration,
        training=Training(task=task("classification"), rows=ROWS, fetch=fetch),
        original=copy.deepcopy(model).eval(),
    )


class TechniqueConformance:
    """Fixtures to provide: `case`, parametrised over cases. Override `tolerance` where numbers are stored in integers.

    draft_bytes: largest relative difference between the file of a draft and the real one (compressed tables and
    constants that happen to be equal make some).
    """

    tolerance = 1e-4
    draft_bytes = 0.03

    @pytest.fixture
    def case(self) -> Case:
        raise pytest.UsageError("provide the fixture `case`")

    @pytest.fixture
    def model(self, case: Case) -> fx.GraphModule:
        return to_modules(exported(case.model))

    @pytest.fixture
    def context(self, case: Case, model: fx.GraphModule) -> Context:
        return context_for(case.model, model)

    @pytest.fixture
    def start(self, case: Case, model: fx.GraphModule, context: Context) -> fx.GraphModule:
        return run_recipe(model, Recipe(case.before), context)

    @pytest.fixture
    def changed(self, case: Case, start: fx.GraphModule, context: Context) -> fx.GraphModule:
        return apply(start, case.config, context)

    def test_it_is_declared_registered_and_documented(self, case: Case) -> None:
        kind = type(case.config)
        assert kind in STEPS
        assert kind in registered()
        assert kind.summary
        assert kind.__doc__ and not kind.__doc__.startswith(f"{kind.__name__}(")
        kind()  # every field has a default

    def test_its_configuration_round_trips(self, case: Case) -> None:
        recipe = Recipe((*case.before, case.config))
        assert Recipe.from_json(recipe.to_json()) == recipe
        assert Recipe.from_json(recipe.to_json()).key == recipe.key

    def test_an_unknown_field_is_refused(self, case: Case) -> None:
        document = Recipe((*case.before, case.config)).to_json()
        document["steps"][-1]["no_such_field"] = 1
        with pytest.raises(InvalidRecipe, match=f"{case.config.technique}.no_such_field"):
            Recipe.from_json(document)

    def test_the_input_is_untouched(self, case: Case, start: fx.GraphModule, context: Context) -> None:
        weights = {name: tensor.clone() for name, tensor in start.state_dict().items()}
        code, training, state = start.code, start.training, copy.deepcopy(state_of(start))
        apply(start, case.config, context)
        assert start.code == code
        assert start.training == training
        assert start.state_dict().keys() == weights.keys()
        assert all(torch.equal(tensor, weights[name]) for name, tensor in start.state_dict().items())
        assert state_of(start).masks.keys() == state.masks.keys()
        assert state_of(start).encodings.keys() == state.encodings.keys()
        assert (state_of(start).activations is None) == (state.activations is None)

    def test_the_same_seed_gives_the_same_bytes(self, case: Case, model: fx.GraphModule, context: Context) -> None:
        recipe = Recipe((*case.before, case.config))
        one, other = (
            serialize(build_artifact(run_recipe(model, recipe, context), context.example_inputs)) for _ in range(2)
        )
        assert one == other

    def test_it_runs_in_both_modes(self, case: Case, changed: fx.GraphModule) -> None:
        inputs = rows(case.model, 8)
        expected = to_modules(exported(case.model))(*inputs).shape
        for training in (True, False):
            assert copy.deepcopy(changed).train(training)(*inputs).shape == expected

    def test_it_survives_export_and_reload(
        self, case: Case, changed: fx.GraphModule, context: Context, tmp_path: Path
    ) -> None:
        """With another batch size than the example's."""
        path = tmp_path / "model.onnx"
        path.write_bytes(serialize(build_artifact(changed, context.example_inputs)))
        onnx.checker.check_model(str(path))
        session = OnnxRuntime().load(path, 1)
        inputs = rows(case.model, 7)
        with torch.no_grad():
            scale = float(changed.eval()(*inputs).abs().max())
        check_parity(changed, session, inputs, tolerance=self.tolerance * max(scale, 1.0))

    def test_a_draft_costs_what_the_result_costs(self, case: Case, model: fx.GraphModule, context: Context) -> None:
        """Without data, and with the size in bytes of the real file."""
        recipe = Recipe((*case.before, case.config))
        bare = replace(context, calibration=None, training=None, original=None, draft=True)
        draft = build_artifact(run_recipe(model, recipe, bare), context.example_inputs)
        real = build_artifact(run_recipe(model, recipe, context), context.example_inputs)
        assert [node.op_type for node in draft.graph.node] == [node.op_type for node in real.graph.node]
        assert len(serialize(draft)) == pytest.approx(len(serialize(real)), rel=self.draft_bytes)

    def test_missing_data_is_named(self, case: Case, start: fx.GraphModule, context: Context) -> None:
        if case.config.uses_calibration():
            with pytest.raises(InvalidRecipe, match=f"{case.config.technique} reads calibration inputs"):
                apply(start, case.config, replace(context, calibration=None))
        if case.config.uses_training():
            with pytest.raises(InvalidRecipe, match=f"{case.config.technique} trains on labelled rows"):
                apply(start, case.config, replace(context, training=None))
