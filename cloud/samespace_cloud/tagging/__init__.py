"""Taggers: classifiers whose next version makes few new mistakes (PCT, Yan et al. 2021).

>>> from samespace_cloud.tagging import FromPictures, TaggerConfig, UpdateConfig
>>> from samespace_cloud.tagging import open_labelled, train_tagger, update_tagger
>>> data = open_labelled("photos/manifest.csv")  # doctest: +SKIP
>>> config = TaggerConfig(FromPictures("lite0-edge", 64), init="imagenet")
>>> old = train_tagger(data, config, "runs/old")  # doctest: +SKIP
>>> new = update_tagger(data, config, UpdateConfig(), old, "runs/new")  # doctest: +SKIP
>>> new.metrics["negative_flips"]  # doctest: +SKIP
0.021
"""

from samespace_cloud.tagging.checkpoint import TaggerCheckpoint, ensemble_of
from samespace_cloud.tagging.config import TaggerConfig
from samespace_cloud.tagging.data import open_labelled
from samespace_cloud.tagging.fitting import DivergedError
from samespace_cloud.tagging.interpolation import interpolate
from samespace_cloud.tagging.methods import METHODS
from samespace_cloud.tagging.model import Tagger
from samespace_cloud.tagging.predictions import predictions_of
from samespace_cloud.tagging.reference import SavedLogits, TaggerReference
from samespace_cloud.tagging.sees import FromPictures, FromVectors
from samespace_cloud.tagging.training import train_tagger
from samespace_cloud.tagging.update_config import UpdateConfig
from samespace_cloud.tagging.updating import update_tagger

__all__ = [
    "METHODS",
    "DivergedError",
    "FromPictures",
    "FromVectors",
    "SavedLogits",
    "Tagger",
    "TaggerCheckpoint",
    "TaggerConfig",
    "TaggerReference",
    "UpdateConfig",
    "ensemble_of",
    "interpolate",
    "open_labelled",
    "predictions_of",
    "train_tagger",
    "update_tagger",
]
