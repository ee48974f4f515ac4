"""``python -m instance_crf``: the command ``instance-crf``."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
