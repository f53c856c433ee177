"""Processes that embed pictures: on this machine, or on many through Ray.

>>> with open_pool(Embedder("cloud.bundle"), workers=8) as pool:  # doctest: +SKIP
...     for names, vectors in pool.run((n, n) for n in batches_of_paths):
...         ...

Batches are taken as they are needed, and come back in the order in which they are done. A picture
that cannot be embedded comes back as the reason, even where it kills the process that tries.
"""

from samespace.pool._embed import Made, embed_each
from samespace.pool._pool import HerePool, Pool, open_pool
from samespace.pool._processes import ProcessPool
from samespace.pool._sources import is_url, located, opened, stamp, stamps

__all__ = [
    "HerePool",
    "Made",
    "Pool",
    "ProcessPool",
    "embed_each",
    "is_url",
    "located",
    "open_pool",
    "opened",
    "stamp",
    "stamps",
]
