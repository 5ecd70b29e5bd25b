"""`python -m innerloop` is the command `innerloop`."""

from innerloop.cli import main

raise SystemExit(main())
