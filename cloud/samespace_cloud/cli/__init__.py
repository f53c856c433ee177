"""Sub-commands that train and export; the command line's root finds them by entry point.

They import torch only when they run, so that `samespace --help` is quick.
"""
