"""`python -m saevx`, the command line for where scripts are not on the path."""

from saevx.cli import main

main(prog_name="saevx")
