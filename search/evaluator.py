"""Turns works into results: the stages of a trial, on one workbench."""

from __future__ import annotations

from collections.abc import Callable

from search.inputs import JobInputs
from search.stage_confirm import confirm
from search.stage_gate import gate
from search.stage_profile import profile
from search.stage_score import score
from search.stage_sensitivity import sense
from search.stage_soup import soup
from search.work import ConfirmWork, GateWork, ProfileWork, Result, ScoreWork, SensitivityWork, SoupWork, Work
from search.workbench import Workbench


def make_evaluator(inputs: JobInputs, *, threads: int) -> Callable[[Work], Result]:
    """The function that an evaluator process runs; its model and data are loaded at the first work that needs them."""
    bench = Workbench(inputs, threads=threads)

    def evaluate(work: Work) -> Result:
        match work:
            case ProfileWork():
                return profile(bench)
            case SensitivityWork():
                return sense(bench, work)
            case GateWork():
                return gate(bench, work)
            case ScoreWork():
                return score(bench, work)
            case SoupWork():
                return soup(bench, work)
            case ConfirmWork():
                return confirm(bench, work)

    return evaluate
