"""`python -m salience` is the command `salience`."""

from salience.cli.main import main

main()
