"""`python -m mltrack.tui.cli`: the command where no script is installed."""

from mltrack.tui.cli.main import main

main()
