"""`python -m samespace`, and `torchrun -m samespace`: the command line."""

from samespace.cli import main

if __name__ == "__main__":
    main()
