"""The paper's tables, and what users would pick instead: networks, rows, evaluation, report."""
