"""Run the command `innerloop` with `python -m innerloop`."""

from innerloop.cli import main

if __name__ == "__main__":  # processes that it starts import this file
    raise SystemExit(main())
