"""Bayesian optimisation on few trials: a Gaussian process on ranks, expected improvement, a pool of candidates.

Written out because a library's process takes 0.1 to 1 s per suggestion at this size, and keeps state between them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize
from scipy.special import ndtr, ndtri
from scipy.stats import rankdata

from search.samplers.encoding import Encoding, Point
from search.samplers.history import History, Told, scalar
from search.samplers.strategy import Ground, register

Array = NDArray[np.float64]

_BEST, _RECENT, _OPEN = 40, 24, 16
_STARTUP = 6  # trials at random before the process is asked
_EXPLORE = (
    6  # every so many trials one is drawn at random: the process trusts choices that it has hardly seen too little
)
_STEPS = 12  # of L-BFGS on the likelihood
_POOL, _NEAR = 384, 192  # candidates anywhere, and next to the best ones
_JITTER = 1e-6


@dataclass(frozen=True)
class _Hyper:
    """weights: squared inverse length per dimension, (dimensions,). noise: variance, of a signal with variance 1."""

    weights: Array
    noise: float


@register("gp", solver_starts=False)
class GaussianProcess:
    """Matern-5/2 with a length per knob, lengths by maximum a posteriori; values become normal scores of their ranks
    (Salinas et al. 2020, arXiv:1909.13595), which takes outliers, limits and failures alike. Open trials count with the
    value that the process expects of them (Ginsbourger et al. 2010). O(trials^3) on at most 80 of them: about 15 ms.
    """

    def __init__(self, ground: Ground) -> None:
        self._ground = ground

    def suggest(self, history: History, number: int, attempt: int) -> tuple[dict[str, Any], str]:
        random, encoding = self._ground.random(number, attempt), self._ground.encoding
        told = history.part(_BEST, _RECENT)
        if len(told) < _STARTUP or number % _EXPLORE == 0:
            return encoding.uniform(random), "random"
        weights = random.dirichlet(np.ones(history.objectives))
        points = [encoding.encode(t.knobs) for t in told]
        scores = normal_scores(told, weights)
        hyper = fitted(_squares(points, points), scores)
        for _, knobs in history.last_open(_OPEN):
            believed = Posterior(points, scores, hyper).at([encoding.encode(knobs)])[0]
            points, scores = [*points, encoding.encode(knobs)], np.append(scores, believed)
        posterior = Posterior(points, scores, hyper)
        best = [points[i] for i in np.argsort(-scores[: len(told)])[:6]]
        pool = _pool(encoding, best, random)
        gain = posterior.expected_improvement(pool)
        near = _neighbours(encoding, [pool[i] for i in np.argsort(-gain)[:4]], 64, 0.05, random)
        refined = posterior.expected_improvement(near)
        chosen = near[int(refined.argmax())] if refined.max() > gain.max() else pool[int(gain.argmax())]
        return encoding.decode(chosen.unit, chosen.choices), "gp"


def normal_scores(told: list[Told], weights: Array) -> Array:
    """(trials,) standard normal quantiles of the ranks; equal values get equal scores."""
    ranks = rankdata(scalar(told, tuple(weights)))
    return np.asarray(ndtri((ranks - 0.5) / len(told)), dtype=np.float64)


def fitted(squares: Array, scores: Array) -> _Hyper:
    """squares: (dimensions, trials, trials) as from `_squares`. Cost: O(steps x (trials^3 + dimensions x trials^2))."""
    dimensions, count, _ = squares.shape

    def loss(theta: Array) -> tuple[float, Array]:
        weights, noise = np.exp(theta[:-1]), np.exp(theta[-1])
        kernel, slope = _matern(np.tensordot(weights, squares, 1))
        lower = cholesky(kernel + (noise + _JITTER) * np.eye(count), lower=True)
        inverse = cho_solve((lower, True), np.eye(count))
        alpha = inverse @ scores
        value = 0.5 * scores @ alpha + np.log(np.diag(lower)).sum()
        outer = 0.5 * (inverse - np.outer(alpha, alpha))
        gradient = np.empty(dimensions + 1)
        gradient[:-1] = weights * np.tensordot(squares, outer * slope, 2)
        gradient[-1] = noise * np.trace(outer)
        # log-normal priors: a length of about the whole range, noise of a tenth of the variance
        prior, spread = np.append(np.full(dimensions, 0.0), np.log(0.05)), np.append(np.full(dimensions, 1.5), 1.0)
        z = (theta - prior) / spread
        return float(value + 0.5 * z @ z), gradient + z / spread

    start = np.append(np.zeros(dimensions), np.log(0.05))
    bounds = [(-6.0, 6.0)] * dimensions + [(-9.0, 0.5)]
    theta = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": _STEPS}).x
    return _Hyper(np.exp(theta[:-1]), float(np.exp(theta[-1])))


class Posterior:
    """The process given what was observed. The incumbent is the best expected value of an observed point."""

    def __init__(self, points: list[Point], scores: Array, hyper: _Hyper) -> None:
        self._points, self._hyper = points, hyper
        kernel, _ = _matern(np.tensordot(hyper.weights, _squares(points, points), 1))
        self._lower = cholesky(kernel + (hyper.noise + _JITTER) * np.eye(len(points)), lower=True)
        self._alpha = cho_solve((self._lower, True), scores)
        self._incumbent = float((kernel @ self._alpha).max())

    def at(self, points: list[Point]) -> tuple[Array, Array]:
        """(means, standard deviations), each (points,)."""
        cross, _ = _matern(np.tensordot(self._hyper.weights, _squares(points, self._points), 1))
        explained = solve_triangular(self._lower, cross.T, lower=True)
        return cross @ self._alpha, np.sqrt(np.maximum(1.0 - (explained**2).sum(axis=0), 1e-12))

    def expected_improvement(self, points: list[Point]) -> Array:
        """(points,) over the incumbent; Jones et al. 1998, equation 15."""
        mean, deviation = self.at(points)
        z = (mean - self._incumbent) / deviation
        density = np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi)
        gain: Array = deviation * (z * ndtr(z) + density)
        return gain


def _matern(squares: Array) -> tuple[Array, Array]:
    """Matern-5/2 of squared distances, and its derivative by them."""
    root = np.sqrt(5.0 * np.maximum(squares, 0.0))
    decay = np.exp(-root)
    return (1.0 + root + root * root / 3.0) * decay, -(5.0 / 6.0) * (1.0 + root) * decay


def _squares(left: list[Point], right: list[Point]) -> Array:
    """(dimensions, left, right): squared differences of numeric knobs, 0 or 1 for choices."""
    units = [np.stack([p.unit for p in side]) for side in (left, right)]
    choices = [np.stack([p.choices for p in side]) for side in (left, right)]
    numeric = (units[0].T[:, :, None] - units[1].T[:, None, :]) ** 2
    differ = choices[0].T[:, :, None] != choices[1].T[:, None, :]
    return np.concatenate([numeric, differ.astype(np.float64)])


def _pool(encoding: Encoding, best: list[Point], random: np.random.Generator) -> list[Point]:
    units = random.random((_POOL, len(encoding.numeric)))
    choices = random.integers(0, np.array(encoding.sizes, dtype=np.int64), (_POOL, len(encoding.sizes)))
    anywhere = [Point(u, c) for u, c in zip(units, choices, strict=True)]
    return anywhere + _neighbours(encoding, best, _NEAR, 0.15, random)


def _neighbours(
    encoding: Encoding, around: list[Point], count: int, step: float, random: np.random.Generator
) -> list[Point]:
    """Each numeric knob moves by a normal step with probability one half; a choice changes with one sixth."""
    found = []
    sizes = np.array(encoding.sizes, dtype=np.int64)
    for i in range(count):
        centre = around[i % len(around)]
        moved = random.random(len(centre.unit)) < 0.5
        unit = np.clip(centre.unit + moved * random.normal(0.0, step, len(centre.unit)), 0.0, 1.0)
        drawn = random.integers(0, sizes, len(sizes))
        changed = random.random(len(sizes)) < 1 / 6
        found.append(Point(unit, np.where(changed, drawn, centre.choices)))
    return found
