"""The fault campaign: what the cache and the artifact do when processes are killed and files are damaged.

`python -m tests.faults --rounds 200 --seed 0` prints counts, and fails at the first broken promise.
"""
