"""Accelerated mean-field on the CPU: kernels that numba compiles at first use, no compiler needed.

The plain PyTorch reference is `..mean_field` on `..permutohedral_lattice`; tests hold this package
to it. From the outside in: `mean_field` (forward and backward pass), `plan` (what an image needs:
lattices of all kernels in one, threads), `lattice` (how one is built), `pixels` (what is done at
each pixel), `blur` (what is done on the lattice), `lanes`, `threads` and `jit`.
"""
