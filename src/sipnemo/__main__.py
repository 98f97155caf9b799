"""`python -m sipnemo` is `sipnemo`."""

import sys

from sipnemo.app.cli import main

sys.exit(main())
