"""``python -m alfwatchd``."""

import sys

from alfwatchd.cli import main

sys.exit(main())
