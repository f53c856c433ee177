"""Linear fine-tuning from a manifest to a checkpoint that ships, and what linearity buys.

>>> from samespace_cloud.tuning import TuneConfig, forget_pictures, tune_base, tune_tagger
>>> base = tune_base(open_labelled("ours.csv"), TuneConfig(...), "runs/base")  # doctest: +SKIP
>>> data = open_labelled("customers.csv")  # doctest: +SKIP
>>> tuned = tune_tagger(data, TuneConfig(...), "runs/all", base=base)  # doctest: +SKIP
>>> acme = tuned.chosen(where={"customer": "acme"})  # doctest: +SKIP
>>> forget_pictures(tuned, data, acme, "runs/without-acme")  # doctest: +SKIP
"""

from importlib import import_module
from typing import Any

_WHERE = {
    "Confidence": "sureness",
    "Forgotten": "changing",
    "Influences": "influences",
    "TuneConfig": "config",
    "TunedCheckpoint": "checkpoint",
    "confidence_of": "sureness",
    "export_classifier": "graphs",
    "forget_pictures": "changing",
    "influence_of": "influences",
    "merge_tuned": "merging",
    "remove_tuned": "merging",
    "tune_base": "training",
    "tune_embedding": "embedding",
    "tune_tagger": "training",
    "update_tuned": "changing",
}

__all__ = sorted(_WHERE, key=lambda n: (not n[0].isupper(), n))


def __getattr__(name: str) -> Any:
    # Importing the package is quick; torch can wait until something of it is used.
    if name in _WHERE:
        return getattr(import_module(f"samespace_cloud.tuning.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'samespace_cloud.tuning' has no attribute {name!r}")
