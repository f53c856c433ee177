"""Write the small bundle of `tests/export/conftest.py`, for suites in other environments.

python -m tests.make_bundle OUT [TARGET ...]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from samespace_edge import Resize
from samespace_export import TARGETS, Calibration, export_bundle
from tests.conftest import picture
from tests.export.conftest import SIZE, SmallNet, colourful, net_spec


def main(out: str, *targets: str) -> None:
    resize = Resize(SIZE, SIZE, "crop")
    pixels = np.stack([resize(picture(label, shot)) for label in range(16) for shot in range(8)])
    export_bundle(
        colourful(SmallNet()),
        net_spec(),
        Path(out),
        targets=targets or tuple(TARGETS),
        calibration=Calibration(pixels),
        overwrite=True,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
