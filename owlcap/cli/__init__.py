"""The `owlcap` command. Each command reads its arguments first and imports heavy libraries only then."""

from owlcap.cli.app import app, main

__all__ = ["app", "main"]
