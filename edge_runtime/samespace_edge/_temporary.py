"""Files are written under another name first, so that nobody ever reads half of one."""

from __future__ import annotations

import os
import threading
from pathlib import Path


def temporary_for(path: Path) -> Path:
    """Return a name in the folder of `path` that no other process and no other thread uses."""
    return path.with_name(f".{path.name}.{os.getpid()}.{threading.get_native_id()}")


def name_once(temporary: Path, path: Path) -> bool:
    """Give a file its name unless another file has it; return whether it did.

    A rename would replace the other file, which its maker may be using already.
    """
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError:  # a file system without links
        temporary.rename(path)
        return True
    finally:
        temporary.unlink(missing_ok=True)
    return True
