"""What a process of the pool runs: batches of pictures on stdin, vectors on stdout.

    python -m samespace.pool BUNDLE VARIANT RUNTIME

The messages are pickles between a process and the one that started it; nobody else can write them.
When that one is gone, stdin ends, and so does this.
"""

from __future__ import annotations

import os
import pickle
import sys

from samespace.pool._embed import embed_each
from samespace_edge import Embedder, SamespaceError


def main() -> None:
    """See the module."""
    # What a library prints must not end up between the vectors.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)

    def say(message: object) -> None:
        pickle.dump(message, out)
        out.flush()

    bundle, variant, runtime = sys.argv[1:]
    try:
        model = Embedder(bundle, variant=variant, runtime=runtime)
    except SamespaceError as error:
        say(str(error))
        return
    try:
        say(None)
        while True:
            say(embed_each(model, pickle.load(sys.stdin.buffer)))
    except (EOFError, BrokenPipeError):
        os._exit(0)  # nobody is left to be told


if __name__ == "__main__":
    main()
