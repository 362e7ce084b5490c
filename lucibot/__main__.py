"""`python -m lucibot` is `lucibot`."""

import sys

from lucibot.cli import main

if __name__ == "__main__":
    sys.exit(main())
