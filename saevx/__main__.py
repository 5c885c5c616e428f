"""`python -m saevx` runs the command line where the script `saevx` is not on the path."""

from saevx.cli import main

main(prog_name="saevx")
