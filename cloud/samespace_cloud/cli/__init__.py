"""Sub-commands that train and export; the command line's root finds them by entry point.

They import torch only when they run, so that `samespace --help` is quick. Until then OpenMP reads
no settings, so this is the place for them.
"""

import os

# Threads that wait for one another in a busy loop stop one another where another process uses a
# core: with two cores a training took 3.5 times as long next to one busy process, with these
# settings twice. Alone it takes as long with them as without. The first is the standard's; the
# second gives GNU's OpenMP some microseconds of the loop back.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("GOMP_SPINCOUNT", "2000")
