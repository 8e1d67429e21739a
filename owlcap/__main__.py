"""`python -m owlcap` is the `owlcap` command."""

from owlcap.cli import main

main()
