"""Run the command `innerloop` with `python -m innerloop`."""

from innerloop.cli import main

raise SystemExit(main())
