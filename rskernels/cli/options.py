"""The options of a command, made of the fields of its configuration."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Annotated, Any, get_type_hints

import typer
from typer.core import TyperCommand

from rskernels.cli.errors import usage_errors
from rskernels.experiments.config import GradientConfig, SampleConfig, TuneConfig
from rskernels.language.config import LanguageConfig
from rskernels.rsft.config import METHOD, RUN
from rskernels.rsft.options import Option, Options

CONFIGS: dict[str, type[Options]] = {
    "train": GradientConfig,
    "tune": TuneConfig,
    "sample": SampleConfig,
    "rft": LanguageConfig,
}
OUTPUT = "Output"

Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Continue the run in --out, bit-identically.",
        rich_help_panel=OUTPUT,
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite", help="Replace a run that --out already holds.", rich_help_panel=OUTPUT
    ),
]


def folder_option(default: str) -> Any:
    """Return the option that names the folder of the results."""
    return typer.Option(
        help="Folder for the results.", show_default=default, rich_help_panel=OUTPUT
    )


class Command(TyperCommand):
    """A command that says of an option of another one where it belongs."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments of a command line."""
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter:
            raise
        except Exception as error:
            name = getattr(error, "option_name", None)
            commands = commands_with(name) if hasattr(error, "possibilities") else []
            if not commands:
                raise
            raise typer.BadParameter(
                f"{name} is no option of `rskernels {self.name}` but of "
                f"{' and '.join(f'`rskernels {command}`' for command in commands)}",
                ctx=ctx,
            ) from error


def commands_with(name: str | None) -> list[str]:
    """Return the commands that have an option of this name, as ``"--tau"``."""
    return [
        command
        for command, config in CONFIGS.items()
        if name in {flag_of(field.name) for field in dataclasses.fields(config)}
    ]


def flag_of(field: str) -> str:
    """Return the option of a field of a configuration, as ``"--batch-size"``."""
    return f"--{field.replace('_', '-')}"


def with_options(
    config_type: type[Options],
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command, which takes a configuration first, an option for each of its fields."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        names = [field.name for field in dataclasses.fields(config_type)]

        @functools.wraps(command)
        def with_config(**arguments: Any) -> None:
            values = {name: arguments.pop(name) for name in names}
            with usage_errors(ValueError):
                config = config_type(**values)
            command(config, **arguments)

        hints = get_type_hints(command, include_extras=True)
        own = list(inspect.signature(command).parameters.values())[1:]
        parameters = [
            *parameters_of(config_type),
            *(
                p.replace(annotation=hints[p.name], kind=inspect.Parameter.KEYWORD_ONLY)
                for p in own
            ),
        ]
        with_config.__annotations__ = {p.name: p.annotation for p in parameters}
        with_config.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return with_config

    return decorate


def parameters_of(config_type: type[Options]) -> list[inspect.Parameter]:
    """Return a parameter for each field, as typer reads it; those of the method come first."""
    types = get_type_hints(config_type)
    order = {METHOD: 0, RUN: 2}
    fields = sorted(
        dataclasses.fields(config_type),
        key=lambda field: order.get(field.metadata["option"].panel, 1),
    )
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=Annotated[types[field.name], typer_option(field)],
        )
        for field in fields
    ]


def typer_option(field: dataclasses.Field[Any]) -> Any:
    """Return what typer is to know of a field."""
    option: Option = field.metadata["option"]
    choices = option.accepted.choices if option.accepted else ()
    default: bool | str = field.default is not None and not isinstance(field.default, bool)
    if option.shown is not None or (field.default is None and option.usual is not None):
        default = option.shown or str(option.usual)
    return typer.Option(
        flag_of(field.name),
        help=f"{option.help} One of {', '.join(choices)}." if choices else option.help,
        rich_help_panel=option.panel,
        show_default=default,
        autocompletion=completion(choices) if choices else None,
    )


def completion(choices: Iterable[str]) -> Callable[[str], list[str]]:
    """Return what completes the beginning of a choice."""
    return lambda incomplete: [choice for choice in choices if choice.startswith(incomplete)]
