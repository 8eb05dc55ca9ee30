"""Sampling: the statistics of a class -> a group of `ipc` latents that represents it.

Pure functions. All random numbers come from CPU generators seeded by (seed, class, candidate), so that the
same group is drawn on every device, in every order and at every batch size.

What is promised: groups are equal to the bit for any number of threads, in all processes and DataLoader
workers, and under any settings of the caller (`numerics.torch_settings`), on one version of PyTorch and one
instruction set of the CPU. On other instruction sets "moment_matched", "modes" and "curated" are equal to the
bit where the C library's logarithm and cosine are, as they were on all that were tried (SSE, AVX2, AVX-512).
Noise of "search" is float32, which PyTorch draws with other last bits without AVX2: its groups agree to 1e-5,
unless two candidates have the same loss to rounding and the other one is taken.
"""
