"""Families of networks: each a frozen row of data that knows its text, its layers and its cost."""
