"""Soup stage: averages tuned trials of one architecture, writes the file and scores it."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import fx

from compressors.training import Run
from compressors.weight_averaging import greedy_soup
from search.evaluation import Evaluation
from search.stage_clock import StageClock
from search.stage_score import artifact_path, checkpoint, checkpoint_key, tuned_model, validate, write_artifact
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
    metric, error = validate(bench, path, clock)
    content = path.read_bytes()
    return Scored(
        trial=work.trial,
        rung=0,
        metric=metric,
        metric_error=error,
        samples=sum(s.samples for _, own in work.members for s in [own.distillation] if s is not None),
        speed=None,
        size_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        artifact=artifact_path(work.trial),
        stages=clock.stages,
    )


@torch.no_grad()
def float_metric(bench: Workbench, model: fx.GraphModule) -> float:
    """Of the model in torch, on the validation split."""
    part, task = bench.splits.validation, bench.task
    rows = bench.rows(part.dataset)
    model.eval()
    statistics = []
    for batch in bench.batches(part.rows):
        with bench.slot.shared():
            outputs = model(*bench.tensors(rows.inputs(batch))).float().numpy()
        statistics.append(task.statistics(outputs, task.as_target(rows.target(batch))))
    return Evaluation(task, np.concatenate(statistics), rows.groups(part.rows)).metric
