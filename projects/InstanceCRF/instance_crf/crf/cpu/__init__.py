"""Accelerated mean-field on the CPU: kernels that numba compiles at first use, no compiler needed.

The plain PyTorch reference is `instance_crf.crf.mean_field` with
`instance_crf.crf.gaussian_filter.PermutohedralFilter`; tests hold this package to it.
"""
