"""Adapters: maps between two models' vectors, fitted in seconds from pictures that both embedded.

>>> from samespace.adapters import fit_adapter
>>> fit = fit_adapter(old_vectors, new_vectors, source=old, target=new)  # doctest: +SKIP
>>> lifted = fit.adapter.apply(gallery_vectors)  # doctest: +SKIP
"""

from samespace.adapters._embed import MOST_PAIRS, embed_pairs, embed_train_pictures
from samespace.adapters._files import VectorFile, check_names, read_vectors
from samespace.adapters._fit import AdapterFit, fit_adapter
from samespace.adapters._kinds import KINDS, Kind
from samespace.adapters._models import ModelLike, model_of
from samespace.adapters._pairs import LEAST_PAIRS
from samespace.adapters._quality import Quality, measure
from samespace_edge import Adapter, AdapterLayers

__all__ = [
    "KINDS",
    "LEAST_PAIRS",
    "MOST_PAIRS",
    "Adapter",
    "AdapterFit",
    "AdapterLayers",
    "Kind",
    "ModelLike",
    "Quality",
    "VectorFile",
    "check_names",
    "embed_pairs",
    "embed_train_pictures",
    "fit_adapter",
    "measure",
    "model_of",
    "read_vectors",
]
