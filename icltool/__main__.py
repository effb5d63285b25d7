"""`python -m icltool` is `icltool`."""

from __future__ import annotations

from icltool.cli.app import main

if __name__ == "__main__":
    main()
