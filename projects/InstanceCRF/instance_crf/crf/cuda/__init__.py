"""Accelerated mean-field on CUDA, in Triton kernels that are compiled at first use. Tests hold it
to the plain PyTorch reference, as they do `instance_crf.crf.cpu`."""
