"""`salience study`: the main job."""

from __future__ import annotations

from pathlib import Path

import click

from salience.cli.loading import quiet_transformers
from salience.cli.options import require_folder, shared_options, stdout_for_results
from salience.cli.results import present


@click.command()
@click.option("--quick", is_flag=True, help="The same path on a few pictures: to see that it works, not to measure.")
@shared_options(out="build/study", writes="report.html, results.json and figures/")
def study(quick: bool, out: Path, seed: int, device: str, as_json: bool) -> None:
    """Fit a scorer, run the whole comparison on the bundled model and unseen pictures, and write the report.

    Takes minutes on two CPU cores. A killed run continues where it stopped when you start it again.

    \b
    Example:
      salience study --quick --out build/quick
    """
    with stdout_for_results(as_json):
        require_folder(out)
        from salience.lab.study import run as studies

        with quiet_transformers():
            results = studies.run(out, quick=quick, seed=seed, device=device)
    present(results, as_json=as_json)
