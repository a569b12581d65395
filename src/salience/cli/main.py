"""The `salience` command group."""

import click


@click.group()
def main() -> None:
    """Keep what matters."""
