"""The data sets: one module each, one record format for all (`canonical`).

`builtin.register_all` registers them; nothing here reads a file before a data set is used.
"""
