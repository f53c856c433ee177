"""Does a new cloud model search the old one's gallery, and what does that cost it?

    python -m benchmarks.upgrades --data DATA --out runs/upgrades [--groups grocery] [--seeds 0 1]

The old model is small and knows half of the train labels; the new one is larger and knows all.
Every training is kept in `--out`, so a stopped study goes on. About 15 minutes a seed and group on
two cores.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from benchmarks._result import write
from benchmarks.study._runs import Group
from benchmarks.study._upgrades import UPGRADE_COLUMNS, upgrade_rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the datasets")
    parser.add_argument("--out", type=Path, default=Path("runs/upgrades"))
    parser.add_argument("--groups", nargs="*", default=["grocery", "furniture"])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    arguments = parser.parse_args()
    torch.set_num_threads(min(2, torch.get_num_threads()))
    rows = []
    for name in arguments.groups:
        group = Group(name, arguments.data, arguments.out)
        for seed in arguments.seeds:
            rows += upgrade_rows(group, seed)
    notes = [
        "furniture3d is RENDERED; grocery pictures are photographs.",
        "Old: the start of EfficientNet-Lite0 at 48 px, on half of the train labels. New:"
        " EfficientNet-Lite0 without its last stage at 80 px, on all. Both from ImageNet weights.",
    ]
    write("upgrades", UPGRADE_COLUMNS, rows, seeds=arguments.seeds, notes=notes)


if __name__ == "__main__":
    main()
