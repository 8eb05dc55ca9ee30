"""`d3hr build`, which kills itself once: `python -m tests.support.dying_build MARK build ...`.

The second process dies when it has written a chunk, unless the file MARK is there; it is, from then on.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any
from unittest import mock

from d3hr_datasets.build import chunk_builder as inverting
from d3hr_datasets.build.chunks import write_chunk
from d3hr_datasets.cli.app import app


def main(mark: Path) -> None:
    def write_and_die(*arguments: Any, **options: Any) -> None:
        write_chunk(*arguments, **options)
        if os.environ["RANK"] == "1" and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    with mock.patch.object(inverting, "write_chunk", write_and_die):
        app(sys.argv[2:])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
