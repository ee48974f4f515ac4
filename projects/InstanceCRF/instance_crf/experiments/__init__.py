"""The systems of the paper's tables, and others: trained, compared, reported and drawn."""
