"""Does a new cloud model search the old one's gallery, and what does that cost it?

    python -m benchmarks.upgrades --data DATA --out runs/upgrades

The old model is small and knows half of the train labels; the new one is larger and knows all. A
chain of three updates goes from a quarter to all. Every training is kept in `--out`, so a stopped
study goes on. About an hour and a half on two cores.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from benchmarks._result import write
from benchmarks.study._chain import CHAIN_COLUMNS, chain_rows
from benchmarks.study._runs import Group
from benchmarks.study._upgrades import UPGRADE_COLUMNS, upgrade_rows

NOTES = [
    "furniture3d is RENDERED; grocery pictures are photographs.",
    "Old: the start of EfficientNet-Lite0 at 48 px, on half of the train labels. New:"
    " EfficientNet-Lite0 without its last stage at 64 px, on all. Both from ImageNet weights.",
    "Gallery-aware: taught with the gallery's pictures too, without labels; for photo_to_shop those"
    " of photo_to_photo, since both tasks share their models.",
    "Adapters are fitted on the train pictures. Side information: 128 numbers of EfficientNet-Lite0"
    " with its ImageNet weights, stored with every item when it was indexed.",
]
CHAIN_NOTES = [
    NOTES[0],
    "Versions 1 to 4 know 25, 50, 75 and 100 % of the train labels: EfficientNet-Lite0's start at"
    " 48 and at 64 px, then twice without its last stage at 64 px. Each is trained gallery-aware"
    " against the one before it and has never seen the others.",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the datasets")
    parser.add_argument("--out", type=Path, default=Path("runs/upgrades"))
    parser.add_argument("--parts", nargs="*", default=["methods", "chain"])
    parser.add_argument("--groups", nargs="*", default=["grocery", "furniture"])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    arguments = parser.parse_args()
    torch.set_num_threads(min(2, torch.get_num_threads()))
    groups = [Group(name, arguments.data, arguments.out) for name in arguments.groups]
    seeds = arguments.seeds
    rows: list[dict[str, Any]]
    if "methods" in arguments.parts:
        rows = [row for group in groups for row in upgrade_rows(group, seeds)]
        write("upgrades", UPGRADE_COLUMNS, rows, seeds=seeds, notes=NOTES)
    if "chain" in arguments.parts:
        rows = [row for group in groups for row in chain_rows(group, seeds)]
        write("upgrade_chain", CHAIN_COLUMNS, rows, seeds=seeds, notes=CHAIN_NOTES)


if __name__ == "__main__":
    main()
