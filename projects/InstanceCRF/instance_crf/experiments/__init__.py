"""Experiments: the systems of the paper's tables and others, compared, reported and drawn."""
