"""Soup stage: averages tuned trials of one architecture, writes the file and scores it."""

from __future__ import annotations

from torch import fx

from compressors.training import Run
from compressors.weight_averaging import greedy_soup
from search.stage_clock import StageClock
from search.stage_score import artifact_path, checkpoint, checkpoint_key, scored, tuned_model, write_artifact
from search.work import Scored, SoupWork
from search.workbench import Workbench


def soup(bench: Workbench, work: SoupWork) -> Scored:
    """The members are judged in float, on the validation split; the result as any trial, by its file."""
    clock = StageClock()
    recipe = work.members[0][1]
    path = bench.inputs.workspace / artifact_path(work.trial)
    with clock.stage("average"):
        models = {str(number): tuned_model(bench, number, own) for number, own in work.members}
        made = greedy_soup(models, lambda model: float_metric(bench, model), prepare=bench.reestimate)
    made.model.eval()
    checkpoint(bench, work.trial).save(made.model, None, Run(start=0, stop=0, seen=0), checkpoint_key(recipe))
    write_artifact(bench, made.model, recipe, path, clock)
    samples = sum(own.distillation.samples for _, own in work.members if own.distillation is not None)
    return scored(bench, work.trial, clock, rung=0, samples=samples)


def float_metric(bench: Workbench, model: fx.GraphModule) -> float:
    """Of the model in torch, on the validation split."""
    return bench.evaluate_model(model, bench.splits.validation).metric
