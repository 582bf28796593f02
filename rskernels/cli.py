"""The rskernels command."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from rskernels import RejectionError
from rskernels.rsft.checkpoint import CheckpointError
from rskernels.rsft.config import IMBALANCE, METHODS, MULTIMODAL_IMBALANCE, Config
from rskernels.rsft.data import DATASETS
from rskernels.rsft.demo import compare, make_configs, run_demo
from rskernels.rsft.errors import TrainingError
from rskernels.rsft.extras import HINT
from rskernels.rsft.methods import run
from rskernels.rsft.report import make_table, summary_table
from rskernels.rsft.samples import DataError

try:
    import typer
    from rich.console import Console
except ModuleNotFoundError as missing:
    raise SystemExit(f"the rskernels command needs {missing.name}: {HINT}") from missing

ERRORS = (
    OSError,
    ValueError,
    CheckpointError,
    ModuleNotFoundError,
    RejectionError,
    TrainingError,
)

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def about() -> None:
    """Rejection sampling for PyTorch, and fine-tuning built on it."""


@app.command("train")
def train_command(
    data: Annotated[str, typer.Option(help=f"Data set: {', '.join(DATASETS)}.")] = Config.data,
    path: Annotated[
        str | None, typer.Option(help="Where the data are: of mnist the folder, of npz the file.")
    ] = Config.path,
    method: Annotated[str, typer.Option(help=f"Method: {', '.join(METHODS)}.")] = Config.method,
    envelope: Annotated[
        str,
        typer.Option(
            help="Policy of the envelope constant M: max, quantile:0.9, budget:0.5, decayed, "
            "leave_one_out, fixed:20 or tail."
        ),
    ] = Config.envelope,
    half_life: Annotated[
        float | None,
        typer.Option(
            help="Samples after which a quantile, budget or decayed envelope has forgotten half of "
            "what it saw; "
            "inf never forgets.",
            show_default="one pass over the pool",
        ),
    ] = Config.half_life,
    imbalance: Annotated[
        float | None,
        typer.Option(
            help="Most frequent class of the training pool over its rarest.",
            show_default=f"{IMBALANCE:g}; 1 for transfer and proposal; "
            f"{MULTIMODAL_IMBALANCE:g} for multimodal",
        ),
    ] = Config.imbalance,
    epochs: Annotated[int, typer.Option(help="Passes over the training pool.")] = Config.epochs,
    batch_size: Annotated[int, typer.Option(help="Samples of a batch.")] = Config.batch_size,
    lr: Annotated[float, typer.Option(help="Learning rate of SGD.")] = Config.lr,
    momentum: Annotated[float, typer.Option(help="Momentum of SGD.")] = Config.momentum,
    seed: Annotated[int, typer.Option(help="Decides everything random.")] = Config.seed,
    threads: Annotated[int, typer.Option(help="Threads of torch.")] = Config.threads,
    pretrain_epochs: Annotated[
        int, typer.Option(help="transfer, proposal: passes over the shifted images beforehand.")
    ] = Config.pretrain_epochs,
    ratio: Annotated[
        str, typer.Option(help="transfer: p_target and p_source are of two models or densities.")
    ] = Config.ratio,
    proposal: Annotated[
        str, typer.Option(help="tuned: normal, or coupling, a network on top of it.")
    ] = Config.proposal,
    rounds: Annotated[int, typer.Option(help="tuned: times it is tuned.")] = Config.rounds,
    draws: Annotated[int, typer.Option(help="tuned: accepted in a round.")] = Config.draws,
    form: Annotated[
        str, typer.Option(help="parameter: chain, random-walk Metropolis, or independent draws.")
    ] = Config.form,
    steps: Annotated[
        int,
        typer.Option(help="parameter: proposals of a chain, half of them burn-in; or draws."),
    ] = Config.steps,
    chains: Annotated[int, typer.Option(help="parameter: chains side by side.")] = Config.chains,
    tau: Annotated[
        float, typer.Option(help="parameter: temperature of the mean loss.")
    ] = Config.tau,
    prior: Annotated[
        float, typer.Option(help="parameter: standard deviation of the normal prior.")
    ] = Config.prior,
    acceptance: Annotated[
        float, typer.Option(help="parameter: acceptance that a chain's σ is tuned to.")
    ] = Config.acceptance,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the results.", show_default="runs/DATA-METHOD-seedSEED"),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in --out, bit-identically.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a run that --out already holds.")
    ] = False,
) -> None:
    """Fine-tune by rejection: of samples, of inputs, of proposals or of parameters."""
    with usage_errors(ValueError):
        config = Config(
            data=data,
            method=method,
            envelope=envelope,
            half_life=half_life,
            imbalance=imbalance,
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            momentum=momentum,
            seed=seed,
            threads=threads,
            path=path,
            pretrain_epochs=pretrain_epochs,
            ratio=ratio,
            proposal=proposal,
            rounds=rounds,
            draws=draws,
            form=form,
            steps=steps,
            chains=chains,
            tau=tau,
            prior=prior,
            acceptance=acceptance,
        )
    folder = out or Path("runs") / f"{data}-{method}-seed{seed}"
    with errors_explained():
        summary = run(config, folder, resume=resume, overwrite=overwrite)
    Console().print(summary_table(summary))
    typer.echo(f"curves: {folder / 'curves.png'}")


@app.command("demo")
def demo_command(
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each method.")] = 6,
    epochs: Annotated[int, typer.Option(help="Passes over the training pool.")] = Config.epochs,
    imbalance: Annotated[
        float, typer.Option(help="Most frequent class of the training pool over its rarest.")
    ] = IMBALANCE,
    seed: Annotated[int, typer.Option(help="The first seed.")] = Config.seed,
    out: Annotated[
        Path, typer.Option(help="Folder for the results; an earlier demo there is replaced.")
    ] = Path("runs/demo"),
) -> None:
    """Compare every method over several seeds: accuracy, gradient samples, time, and spread."""
    with usage_errors(ValueError):
        base = Config(epochs=epochs, imbalance=imbalance, seed=seed)
        make_configs(base, seeds=seeds)
    with errors_explained():
        runs = run_demo(base, out, seeds=seeds)
    headings, rows = compare(runs)
    console = Console()
    if not console.is_terminal:
        console.width = 120
    # Measures down, methods across: the other way round is wider than a terminal.
    first, *others = zip(headings, *rows, strict=True)
    console.print(make_table(others, ["", *first[1:]]))
    typer.echo(f"table: {out / 'demo.md'}; figure: {out / 'demo.png'}")


@contextmanager
def usage_errors(kind: type[ValueError]) -> Iterator[None]:
    """Report errors of a kind as options that are refused."""
    try:
        yield
    except kind as error:
        raise typer.BadParameter(str(error)) from error


@contextmanager
def errors_explained() -> Iterator[None]:
    """Turn what can go wrong in a run into a message and an exit status."""
    try:
        with usage_errors(DataError):
            yield
    except ERRORS as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error


def main() -> None:
    """Run the command."""
    app()
