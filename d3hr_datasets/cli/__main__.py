"""`python -m d3hr_datasets.cli`: the `d3hr` command, for `accelerate launch -m` and `torchrun -m`."""

from __future__ import annotations

from d3hr_datasets.cli.app import app

if __name__ == "__main__":
    app()
