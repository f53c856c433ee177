"""One file per question: it prints where it runs and writes JSON, which the docs are made from."""
