"""python -m saevx: the command line."""

from .cli import main

main(prog_name="saevx")
