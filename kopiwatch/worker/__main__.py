"""Starts the worker by the path of this folder, with nothing but the standard library at hand."""

import os
import sys

# In the place of this folder, whose modules would shadow the library's, the one that holds the
# package: last, for it may be full of other packages.
del sys.path[0]
sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from kopiwatch.worker.program import main  # noqa: E402

main()
