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
    counted_on: tuple[TomogramGrid | None, str | None],
) -> int:
    """Write the alignment or the particles in a format and print the new files; stacks: box px and binning of RELION's
    2D stacks; kind: which of several kinds of particles; counted_on: the tomogram of a list, and M's .source."""
    if alignment is not None:
        from tiltwise.project.exporting import export_alignments

        files = export_alignments(project, alignment, output, only=only)
    elif particles == "relion":
        from tiltwise.cli.measuring import export_relion_shown

        files = export_relion_shown(project, output, stacks, only, kind)
    else:
        from tiltwise.project.particle_exchange import export_particles

        grid, source = counted_on
        given = {"grid": grid, "m_source": Path(source) if source else None}
        files = export_particles(project, str(particles), output, only=only, kind=kind, **given)
    for file in files:
        click.echo(file)
    return 0
