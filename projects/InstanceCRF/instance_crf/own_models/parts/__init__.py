"""Adapters for the outputs of part models, a module each."""
