"""``python -m benchmarks STAGE``: measure, print a table, and end with one line of JSON."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from importlib import import_module

import torch
from rich.console import Console

from benchmarks.harness.options import Options, parse
from benchmarks.harness.result import completed, report
from engine.errors import EngineError
from engine.session import take


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0, or that of the error, told in one message."""
    try:
        options = parse(arguments)
        measured(options)
    except EngineError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def measured(options: Options) -> None:
    """Measure with run directories in a folder that is gone afterwards. Raises EngineError subclasses."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    take(options.device)  # which keeps freed memory on a CPU, for both sides
    load = os.getloadavg()[0]
    home = os.environ.get("WMDD_HOME")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["WMDD_HOME"] = folder
        try:
            figures = import_module(f"benchmarks.stages.{options.stage}").measure(options)
        finally:
            if home is None:
                del os.environ["WMDD_HOME"]
            else:
                os.environ["WMDD_HOME"] = home
    report(completed(options, load, figures), options, Console(width=None if sys.stdout.isatty() else 120))


if __name__ == "__main__":
    sys.exit(main())
