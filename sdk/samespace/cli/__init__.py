"""The command line `samespace`.

Exit codes: 0 done; 1 the answer is no (a gate, a check or a dataset that did not pass); 2 wrong
usage; 3 something could not be done, and stderr says what and how to mend it; 130 interrupted.
"""

from __future__ import annotations

import sys

EXIT_NO = 1
EXIT_ERROR = 3
EXIT_INTERRUPTED = 130


def main() -> None:
    """Entry point of the script `samespace`."""
    try:
        from samespace.cli._root import run
    except ImportError as error:
        print(
            f'samespace: the command line needs {error.name}: pip install "samespace[sdk]"',
            file=sys.stderr,
        )
        sys.exit(EXIT_ERROR)
    sys.exit(run())


__all__ = ["EXIT_ERROR", "EXIT_INTERRUPTED", "EXIT_NO", "main"]
