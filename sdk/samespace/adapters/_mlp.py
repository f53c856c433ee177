"""A small net that adds to the affine map what a matrix cannot do."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samespace.adapters._affine import best_ridge
from samespace.adapters._pairs import Pairs
from samespace.adapters._quality import mean_cosine
from samespace_edge import AdapterLayers, ConfigError

HIDDEN = 256
"""Hidden units, as in Drift-Adapter (EMNLP 2025)."""

# How much of what the net says is added: with few pairs none of it may be best.
_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
# Share of the pairs that say when to stop.
_STOPPING = 0.1


def fit_mlp(
    fit: Pairs, choose: Pairs, *, rank: int | None = None, hidden: int = HIDDEN, seed: int = 0
) -> tuple[AdapterLayers, dict[str, Any]]:
    """The affine map, and a net with one hidden layer fitted to what it leaves over.

    The net is scikit-learn's `MLPRegressor`, stopped early on a tenth of `fit`. Only so much of it
    is added, by quarters, as has the largest mean cosine on `choose`; that may be none.

    Args:
        rank: of the affine map's matrix.
        hidden: units of the hidden layer.
        seed: of the net's start and batches.
    """
    if hidden < 1:
        raise ConfigError(f"a net has 1 hidden unit or more, not {hidden}")
    affine, ridge = best_ridge(fit, choose, rank)
    scale_x = _scales(fit, affine.centre)
    left = fit.y - affine(fit.x)
    scale_y = float(np.sqrt(np.mean(np.square(left, dtype=np.float64)))) or 1.0
    net = _train((fit.x - affine.centre) / scale_x, left / np.float32(scale_y), hidden, seed)
    (first, second), (first_bias, second_bias) = net.coefs_, net.intercepts_

    def with_share(share: float) -> AdapterLayers:
        out = share * scale_y
        residual = ((first / scale_x[:, None], first_bias), (second * out, second_bias * out))
        return AdapterLayers(affine.centre, affine.linear, affine.bias, residual if share else ())

    tried = {share: with_share(share) for share in _SHARES}
    scores = {s: mean_cosine(layers(choose.x), choose.y) for s, layers in tried.items()}
    best = max(_SHARES, key=lambda s: scores[s])
    return tried[best], {"ridge": ridge, "hidden": hidden, "epochs": net.n_iter_, "share": best}


def _scales(pairs: Pairs, centre: NDArray[np.float32]) -> NDArray[np.float32]:
    """What columns are divided by (I,): one number for the vectors, one for the side information,
    so that both are about 1 and their directions stay."""
    squares = np.square(pairs.x - centre, dtype=np.float64).mean(0)
    scales = np.empty(squares.size, np.float32)
    end = squares.size - pairs.side_dim
    for columns in (slice(0, end), slice(end, None)):
        if squares[columns].size:
            scales[columns] = np.sqrt(squares[columns].mean()) or 1.0
    return scales


def _train(x: NDArray[np.float32], y: NDArray[np.float32], hidden: int, seed: int) -> Any:
    try:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.neural_network import MLPRegressor
    except ImportError:
        raise ConfigError(
            'an adapter of kind mlp needs scikit-learn: pip install "samespace[analysis]"'
        ) from None
    kept = max(_STOPPING, 2.5 / len(x))  # scikit-learn wants two rows of it at least
    net = MLPRegressor(
        hidden_layer_sizes=(hidden,),
        batch_size=min(256, int(len(x) * (1 - kept))),
        learning_rate_init=3e-3,
        max_iter=200,
        tol=1e-3,
        early_stopping=True,
        validation_fraction=kept,
        n_iter_no_change=5,
        random_state=seed,
    )
    with warnings.catch_warnings():
        # 200 rounds are what it gets; whether they helped is measured afterwards.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return net.fit(x, y)
