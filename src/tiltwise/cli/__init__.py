"""The command line: `tiltwise COMMAND ...`. One command for each stage is derived from the table of stages.

Nothing here loads numerics: help and status answer in about a second. Every error that a user can cause is one line on
standard error, exit code 2; a run in which an item failed ends with exit code 3.
"""

import difflib
import signal
import sys
from collections.abc import Sequence
from typing import Any

import click

from tiltwise import pipeline
from tiltwise.cli import commands
from tiltwise.cli.stage_command import stage_command
from tiltwise.data.errors import InputError, StageError, machine_fault

FAULT = 2
FAILED = 3
INTERRUPTED = 130


class TiltwiseGroup(click.Group):
    """The commands of a project, then one for each stage, whose parameters are read when its command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self.commands, *(stage.name for stage in pipeline.STAGES)]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name in pipeline.BY_NAME:
            return stage_command(pipeline.BY_NAME[name])
        return self.commands.get(name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        known = self.list_commands(ctx)
        close = difflib.get_close_matches(args[0], known, n=1)
        if args[0] not in known and not args[0].startswith("-"):
            raise InputError(
                f"no command {args[0]!r}" + (f"; did you mean {close[0]!r}?" if close else "; see: tiltwise -h")
            )
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Projects"):
            formatter.write_dl([(name, command.get_short_help_str(80)) for name, command in self.commands.items()])
        with formatter.section("One stage at a time"):
            formatter.write_dl([(stage.name, stage.help) for stage in pipeline.STAGES])


@click.group(cls=TiltwiseGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="tiltwise")
@click.option("--debug", is_flag=True, help="Show the traceback of an error (may stand anywhere).")
def tiltwise(debug: bool) -> None:
    """Cryo-electron tomography and subtomogram averaging, from tilt images to maps whose resolution can be believed.

    A first project: tiltwise new P; tiltwise import P FILES; tiltwise run P; tiltwise report P.
    """


for command in commands.COMMANDS:
    tiltwise.add_command(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: run a command and leave with its exit code; no traceback unless --debug is given."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    signal.signal(signal.SIGTERM, _interrupt)  # a service manager, or a queue, stops a run as Ctrl-C does
    try:
        code = tiltwise.main([word for word in words if word != "--debug"], prog_name="tiltwise", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        code = FAULT
    except (InputError, click.ClickException) as error:
        if debug:
            raise
        code = _say(error.format_message() if isinstance(error, click.ClickException) else str(error))
    except StageError as error:
        if debug:
            raise
        code = _say(str(error), FAILED)
    except OSError as error:
        if debug:
            raise
        code = _say(machine_fault(error))
    except (KeyboardInterrupt, click.Abort):
        click.echo("tiltwise: interrupted; what was finished is kept, run again to go on", err=True)
        code = INTERRUPTED
    except Exception as error:
        if debug:
            raise
        code = _say(f"{type(error).__name__}: {error} (unexpected; --debug shows where)", 1)
    sys.exit(code or 0)


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def _say(message: str, code: int = FAULT) -> int:
    click.echo(f"tiltwise: error: {' '.join(message.split())}", err=True)
    return code
