"""``python -m lichen`` is `lichen`."""

import sys

from lichen.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
