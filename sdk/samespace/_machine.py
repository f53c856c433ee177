"""What a figure was measured on."""

from __future__ import annotations

import os
import platform
from typing import Any

from samespace_edge import instruction_set, processor_name


def machine() -> dict[str, Any]:
    """Return what a figure was measured on: processor, instruction set, cores, system, Python."""
    return {
        "processor": processor_name(),
        "instructions": instruction_set(),
        "cores": os.cpu_count() or 1,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }
