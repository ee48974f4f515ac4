"""Accelerated mean-field on CUDA: Triton kernels that are compiled at first use.

The plain PyTorch reference is `..mean_field` with `..gaussian_filter`; tests hold this package to
it. From the outside in: `mean_field` (forward and backward pass), `lattice` (the lattices of all
kernels in one, splat and blur, normalisation) and `kernels`.
"""
