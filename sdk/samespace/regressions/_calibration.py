"""Whether a classifier is as often right as it says."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from samespace.regressions._checks import Texts
from samespace.regressions._predictions import Predictions
from samespace.regressions._report import Calibration

BINS = 15
_LEAST = 1e-38  # about the smallest float32


def expected_calibration_error(
    scores: NDArray[np.float64], right: NDArray[np.bool_], bins: int = BINS
) -> float:
    """ECE: the mean distance between confidence and accuracy (Guo et al. 2017, eq. 3).

    Args:
        scores: (N,), 0 to 1, of the answers.
        right: (N,): whether they are right.
        bins: how many, of as equal a number of pictures as can be (the paper's are of equal
            width); equal scores are never parted, so that the order of the pictures is nothing.
    """
    ordered = np.sort(scores)
    edges = ordered[(np.arange(1, bins) * len(ordered)) // bins]
    place = np.searchsorted(np.unique(edges), scores, side="right")
    gaps = np.bincount(place, scores - right, minlength=bins)
    return float(np.abs(gaps).sum() / len(scores))


def calibration(predictions: Predictions, labels: Texts) -> Calibration | None:
    """ECE and, from probabilities, Brier score and NLL.

    Args:
        predictions: of N pictures.
        labels: (N,), each among the model's classes where those are known.

    None where the predictions have no scores, or there are no pictures.
    """
    p = predictions
    if p.scores is None or not len(labels):
        return None
    ece = expected_calibration_error(p.scores, p.predicted == labels)
    brier = nll = None
    if p.probabilities is not None and p.classes is not None:
        place = {name: i for i, name in enumerate(p.classes)}
        truth = np.array([place[name] for name in labels])
        probabilities = p.probabilities
        given = np.take_along_axis(probabilities, truth[:, None], 1)[:, 0].astype(np.float64)
        squares = np.einsum("nc,nc->n", probabilities, probabilities, dtype=np.float64)
        brier = float(np.mean(squares - 2 * given + 1))
        nll = float(-np.log(np.maximum(given, _LEAST)).mean())
    return Calibration(len(labels), ece, brier, nll)
