"""The datasets that can be converted. A new one is a file and a row here."""

from __future__ import annotations

from samespace.conversion import _cub_200, _deepfashion2, _grocery_store, _in_shop, _sop
from samespace.conversion._formats import Converter

CONVERTERS: dict[str, Converter] = {
    "grocery-store": _grocery_store.CONVERTER,
    "deepfashion2": _deepfashion2.CONVERTER,
    "in-shop": _in_shop.CONVERTER,
    "sop": _sop.CONVERTER,
    "cub-200": _cub_200.CONVERTER,
}
"""By name; docs/datasets.md describes each."""
