"""What does the README's example print?

    python -m benchmarks.quickstart [--folder .]

Runs the README's Python beside the `demo-out` that `make demo` left in a folder.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

from benchmarks._result import write

ROOT = Path(__file__).parent.parent
COLUMNS = {"line": "a line that the example prints"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(), help="where demo-out is")
    folder = parser.parse_args().folder
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", blocks[0]], cwd=folder, capture_output=True, text=True, check=True
    )
    write("quickstart", COLUMNS, [{"line": line} for line in done.stdout.splitlines()])


if __name__ == "__main__":
    main()
