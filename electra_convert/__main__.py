"""`python -m electra_convert` is the command line."""

from electra_convert.cli import main

main(prog_name="electra-convert")
