"""`python -m samespace_edge`: see `samespace_edge._measure`."""

from samespace_edge._measure import main

main()
