"""`python -m patchmi`: the command line where no script of the package is on the path."""

import sys

from patchmi.cli import main

sys.exit(main())
