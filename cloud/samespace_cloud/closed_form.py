"""Embedding heads in closed form, from pooled features: no gradient step, one optimum."""

from __future__ import annotations

import torch
from torch import Tensor

from samespace_edge import ConfigError

_LEAST_SPREAD = 0.01


def fit_lda(
    features: Tensor, labels: Tensor, dim: int, shrinkage: float = 1.0, prior: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Linear discriminant directions, each weighted by how well it tells classes apart.

    With S_w and S_b the covariances within and between classes, and S_w regularised to
    S_w + shrinkage * mean(diag S_w) * I, the directions are the leading eigenvectors of
    S_w^-1/2 S_b S_w^-1/2 (Fisher 1936; Rao 1948), mapped back by S_w^-1/2. Direction i is scaled
    by sqrt(e_i / (1 + e_i)), the share of its variance that lies between classes, as
    probabilistic LDA does (Ioffe 2006).

    Args:
        features: (N, F).
        labels: int64 (N,), at least two classes; rows with -1 are left out.
        dim: number of directions; without a prior, those beyond the number of classes less one
            are zero.
        prior: S_b becomes S_b + prior * S_w * trace(S_b) / trace(S_w): classes to come may differ
            where those seen do not. Few classes say little of where others differ, so with some
            tens of them a prior of .1 to .3 keeps directions that discriminants throw away.
        shrinkage: of S_w; 1 suits some ten pictures a class.

    Returns the weight (dim, F) and bias (dim,) of a linear layer.
    """
    known = labels >= 0
    x, y = features[known].double(), labels[known]
    _, codes = torch.unique(y, return_inverse=True)
    classes = int(codes.max()) + 1 if len(codes) else 0
    if classes < 2:
        raise ConfigError(f"discriminant directions need at least two classes, not {classes}")
    mean = x.mean(0)
    counts = torch.bincount(codes, minlength=classes).double()
    centres = x.new_zeros(classes, x.shape[1]).index_add_(0, codes, x)
    centres /= counts[:, None]
    within_rows = x - centres[codes]
    within = within_rows.T @ within_rows / len(x)
    between_rows = (centres - mean) * (counts / len(x)).sqrt()[:, None]
    between = between_rows.T @ between_rows
    between += prior * within * (between.trace() / within.trace().clamp_min(1e-12))
    variance = max(float(within.diagonal().mean()), _least_variance(x))
    within.diagonal().add_(shrinkage * variance)

    rank = classes - 1 if prior == 0 else x.shape[1]
    values, vectors = torch.linalg.eigh(within)
    whiten = vectors @ torch.diag(values.clamp_min(1e-12).rsqrt()) @ vectors.T
    ratios, directions = torch.linalg.eigh(whiten @ between @ whiten)
    order = torch.argsort(ratios, descending=True)[: min(dim, rank, x.shape[1])]
    ratio = ratios[order].clamp_min(0)
    found = (whiten @ directions[:, order] * (ratio / (1 + ratio)).sqrt()).T
    weight = x.new_zeros(dim, x.shape[1])
    weight[: len(found)] = found
    return weight.float(), -(weight @ mean).float()


def _least_variance(features: Tensor) -> float:
    """Return the variance that features (N, F) are taken to have at least, for regularisation.

    A barely trained network gives almost the same features for every picture. A head that magnified
    the rest would magnify float32's rounding with it, and no two runtimes would agree. The standard
    deviation counts as a hundredth of the features' own size at least, which trained networks
    exceed by far.
    """
    return float((_LEAST_SPREAD * features.double()).square().mean())


def fit_ridge(features: Tensor, targets: Tensor, penalty: float = 1e-2) -> tuple[Tensor, Tensor]:
    """Ridge regression with an unpenalised intercept.

    Args:
        features: (N, F).
        targets: (N, D), such as the cloud model's unit vectors of the same pictures.
        penalty: as a share of the features' mean variance.

    Returns the weight (D, F) and bias (D,) of a linear layer.
    """
    x, y = features.double(), targets.double()
    mean_x, mean_y = x.mean(0), y.mean(0)
    x, y = x - mean_x, y - mean_y
    gram = x.T @ x
    variance = max(float(gram.diagonal().mean()), len(x) * _least_variance(features))
    gram.diagonal().add_(penalty * variance)
    weight = torch.linalg.solve(gram, x.T @ y).T
    return weight.float(), (mean_y - weight @ mean_x).float()


def class_moments(vectors: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Mean and variance of each class, (C, D) each; 0 for a class without vectors.

    Args:
        vectors: (N, D).
        labels: (N,), 0 to classes - 1, or -1 for rows that are left out.
    """
    known = labels >= 0
    x, y = vectors[known], labels[known]
    counts = torch.bincount(y, minlength=classes).clamp_min(1)[:, None]
    zeros = vectors.new_zeros(classes, vectors.shape[1])
    mean = zeros.index_add(0, y, x) / counts
    return mean, zeros.index_add(0, y, (x - mean[y]).square()) / counts


def class_centres(vectors: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Unit class means (C, D): a synthesised classifier (BCT, Shen et al. 2020, section 3.3).

    Args:
        vectors: unit vectors (N, D).
        labels: (N,), 0 to classes - 1, or -1 for rows that are left out.
    """
    known = labels >= 0
    sums = vectors.new_zeros(classes, vectors.shape[1])
    sums.index_add_(0, labels[known], vectors[known])
    return torch.nn.functional.normalize(sums)
