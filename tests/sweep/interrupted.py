"""A driver in a separate process, to be interrupted or killed: ``python interrupted.py RESULTS``."""

import sys
from pathlib import Path

from stubs import planned

from iufbench.sweeps.drive import Sweep, carry_out
from iufbench.sweeps.local import LocalEngine
from iufbench.sweeps.screen import Screen

results = Path(sys.argv[1])
runs = [planned(results, number, "wait=60") for number in range(4)]
try:
    carry_out(
        Sweep("stub", {}, runs, results), LocalEngine(2, 1, function="stubs:act"), "local", Screen(), False
    )
except KeyboardInterrupt:
    sys.exit(130)
