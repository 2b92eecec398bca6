"""`python -m us3l`."""

from us3l.cli import main

main()
