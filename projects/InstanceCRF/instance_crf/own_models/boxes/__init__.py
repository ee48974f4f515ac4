"""Adapters for the outputs of detectors, a module each."""
