"""The data sets: one module each, one record format for all (`canonical`).

Importing `builtin` registers them; nothing here reads a file before a data set is used.
"""
