"""Run the command line: python -m project <verb> key=value ..."""

import sys

from project.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
