"""`python -m graphc`: the command line."""

from graphc.cli import main

main()
