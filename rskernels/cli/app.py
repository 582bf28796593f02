"""The rskernels command."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from rskernels import RejectionError
from rskernels.experiments.intervals import collect
from rskernels.experiments.report import table, write_report
from rskernels.experiments.runner import run_all
from rskernels.experiments.suite import DEMO, EXPERIMENTS, Experiment, Run, choose, make_runs
from rskernels.rsft.artifacts.checkpoint import CheckpointError
from rskernels.rsft.artifacts.figures import make_table, summary_table
from rskernels.rsft.data.bundled import DATASETS
from rskernels.rsft.data.samples import DataError
from rskernels.rsft.errors import TrainingError
from rskernels.rsft.extras import HINT
from rskernels.rsft.methods.config import (
    IMBALANCE,
    METHODS,
    MULTIMODAL_IMBALANCE,
    SELECTIONS,
    Config,
)
from rskernels.rsft.methods.dispatch import run

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
    freeze: Annotated[
        bool, typer.Option("--freeze", help="Keep M as the untrained model's ratios make it.")
    ] = Config.freeze,
    drift: Annotated[
        int | None,
        typer.Option(
            help="Epochs over which the class priors move from the long tail to its reverse.",
            show_default="they stay",
        ),
    ] = Config.drift,
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
    selection: Annotated[
        str,
        typer.Option(
            help=f"transfer, proposal: {', '.join(SELECTIONS)}; reject is the method, the others "
            "are what it is compared with."
        ),
    ] = Config.selection,
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
        if resume and overwrite:
            raise ValueError("--resume and --overwrite are both given; at most one is accepted")
        config = Config(
            data=data,
            method=method,
            envelope=envelope,
            half_life=half_life,
            freeze=freeze,
            drift=drift,
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
            selection=selection,
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


@app.command("compare")
def compare_command(
    experiments: Annotated[
        str | None,
        typer.Option(
            help=f"Some of {', '.join(e.name for e in EXPERIMENTS)}.", show_default="all of them"
        ),
    ] = None,
    cases: Annotated[
        str | None,
        typer.Option(
            help="Some of the cases, by their names in the tables, separated by semicolons; the "
            "first of an experiment always runs.",
            show_default="all of them",
        ),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(min=1, help="Runs of each case.", show_default="10; 2 if quick"),
    ] = None,
    seed: Annotated[int, typer.Option(help="The first seed.")] = Config.seed,
    quick: Annotated[
        bool, typer.Option("--quick", help="Two seeds and a few epochs: does it all work?")
    ] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Processes at a time.")] = 1,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the runs. Those that it holds are not made again.",
            show_default="runs/compare; runs/compare-quick if quick",
        ),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Folder of the report.", show_default="that of the runs")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Make anew the runs that --out already holds.")
    ] = False,
) -> None:
    """Compare rejection with what one would use instead, over data sets and seeds.

    Continues where it was interrupted.
    """
    with usage_errors(ValueError):
        chosen = choose(
            EXPERIMENTS,
            names=split(experiments, ","),
            cases=split(cases, ";"),
        )
        number = seeds or (2 if quick else 10)
        runs = make_runs(chosen, seeds=number, first_seed=seed, quick=quick)
    folder = out or Path("runs") / ("compare-quick" if quick else "compare")
    with errors_explained():
        # What cannot be written to is better known before the runs than after.
        (report or folder).mkdir(parents=True, exist_ok=True)
        run_all(runs, folder, jobs=jobs, overwrite=overwrite)
        show_report(chosen, runs, folder, report or folder, is_quick=quick)


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
    """Compare five methods over several seeds: accuracy, gradient samples, time, and spread."""
    with usage_errors(ValueError):
        options = {**DEMO.options, "epochs": epochs, "imbalance": imbalance}
        demo = DEMO._replace(options=options)
        runs = make_runs([demo], seeds=seeds, first_seed=seed)
    with errors_explained():
        run_all(runs, out, overwrite=True)
        show_report([demo], runs, out, out)


def split(names: str | None, separator: str) -> list[str] | None:
    """Return the names in a text; None for no text."""
    return None if names is None else [name.strip() for name in names.split(separator)]


def show_report(
    experiments: Sequence[Experiment],
    runs: Sequence[Run],
    out: Path,
    report: Path,
    *,
    is_quick: bool = False,
) -> None:
    """Write the report of finished runs, and print its tables."""
    compared = [(experiment, collect(experiment, runs, out)) for experiment in experiments]
    console = Console()
    if not console.is_terminal:
        console.width = 150
    for experiment, results in compared:
        console.print(f"\n{experiment.title}")
        headings, rows = table(results)
        console.print(make_table(rows, headings))
    typer.echo(f"report: {write_report(compared, report, is_quick=is_quick)}")


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
