"""What export writes, as the user sees it."""

from collections.abc import Sequence
from pathlib import Path

import click

from tiltwise.data.volume import TomogramGrid


def export_and_show(
    project: Path,
    output: Path,
    *,
    alignment: str | None,
    particles: str | None,
    stacks: tuple[int | None, int],
    only: Sequence[str] | None,
    kind: str,
    grid: TomogramGrid | None,
) -> int:
    """Write the alignment or the particles in a format and print the new files; stacks: box px and binning of RELION's
    2D stacks; kind: which of several kinds of particles."""
    if alignment is not None:
        from tiltwise.project.exporting import export_alignments

        files = export_alignments(project, alignment, output, only=only)
    elif particles == "relion":
        from tiltwise.cli.measuring import export_relion_shown

        files = export_relion_shown(project, output, stacks, only, kind)
    else:
        from tiltwise.project.particle_exchange import export_particles

        files = export_particles(project, str(particles), output, only=only, kind=kind, grid=grid)
    for file in files:
        click.echo(file)
    return 0
