"""Downloads of public datasets, as samespace manifests with their usual protocol.

Nothing is downloaded and no picture is moved: `convert` reads the lists that a dataset comes with
and writes a CSV. Which datasets, from where, and what each protocol is: docs/datasets.md.

>>> from samespace.conversion import convert
>>> done = convert("in-shop", "in-shop", "in-shop/manifest.csv")  # doctest: +SKIP
>>> done.counts["queries"]  # doctest: +SKIP
14218
"""

from samespace.conversion._convert import Conversion, convert
from samespace.conversion._formats import Converter
from samespace.conversion._table import CONVERTERS

__all__ = ["CONVERTERS", "Conversion", "Converter", "convert"]
