"""Groups of commands whose modules are imported only when a command is named."""

from __future__ import annotations

import difflib
import importlib
import typing

import click

from pile_tools.arguments import checked


class LazyGroup(click.Group):
    """A group whose commands are imported only when named; its help lists them by section.

    Each module has a `command`.
    """

    sections: typing.Mapping[str, typing.Mapping[str, str]] = {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of the commands, in the order in which data flows."""
        return [name for section in self.sections.values() for name in section]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """The command with this name, whose module is imported now, or None."""
        module = next((section[name] for section in self.sections.values() if name in section), None)
        if module is None:
            return None
        command: click.Command = importlib.import_module(module).command
        return checked(command)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the arguments name. Raises UsageError, with names that resemble a mistyped one."""
        names = self.list_commands(ctx)
        if args[0] not in names and not args[0].startswith("-"):
            close = difflib.get_close_matches(args[0], names, n=2, cutoff=0.7)
            advice = f" (did you mean {' or '.join(close)}?)" if close else ""
            raise click.UsageError(f"No such command {args[0]!r}{advice}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the sections of commands with the whole first sentence of each."""
        for heading, modules in self.sections.items():
            rows = []
            for name in modules:
                command = self.get_command(ctx, name)
                assert command is not None
                rows.append((name, command.get_short_help_str(limit=1000)))
            with formatter.section(heading):
                formatter.write_dl(rows)


def lazy_group(sections: typing.Mapping[str, typing.Mapping[str, str]]) -> type[LazyGroup]:
    """A `LazyGroup` of the commands in these modules, by section of the help and name."""
    return type("Group", (LazyGroup,), {"sections": sections})
