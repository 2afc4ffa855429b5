"""Run the command line as ``python -m dtrain``; see launcher/main.py."""

import sys

from dtrain.launcher.main import main

if __name__ == "__main__":
    sys.exit(main())
