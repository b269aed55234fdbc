"""`python -m freefast`."""

import sys

from freefast.cli import main

sys.exit(main())
