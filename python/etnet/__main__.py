"""`python -m etnet`: the same command line as `etnet`."""

from __future__ import annotations

from etnet.cli.main import main

if __name__ == "__main__":
    main()
