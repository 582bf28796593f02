"""The command: what each subcommand takes, writes and refuses."""

import dataclasses
import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

import rskernels
from rskernels.cli.app import app
from rskernels.cli.options import CONFIGS, flag_of
from rskernels.rsft.rules import RULES, Rule

TINY = ["train", "--epochs", "2", "--imbalance", "20", "--data", "digits", "--test-fraction", "0.8"]


@pytest.fixture
def invoke(monkeypatch):
    # Wide and plain, so that messages are neither wrapped nor coloured.
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


def test_help_lists_the_commands_and_the_version_is_shown(invoke):
    output = invoke("--help").output
    assert all(command in output for command in (*CONFIGS, "compare", "demo", "--show-completion"))
    assert invoke("--version").output == f"rskernels {rskernels.__version__}\n"


@pytest.mark.parametrize("command", CONFIGS)
def test_help_has_every_option_of_the_command_with_its_choices_and_no_other(invoke, command):
    output = invoke(command, "--help").output
    own = {field.name: field for field in dataclasses.fields(CONFIGS[command])}
    for field in own.values():
        option = field.metadata["option"]
        assert f"{flag_of(field.name)} " in output
        assert option.panel in output
        choices = option.accepted.choices if option.accepted else ()
        assert all(choice in output for choice in choices)
    assert all(flag in output for flag in ("--out ", "--resume ", "--overwrite "))
    for config in CONFIGS.values():
        for field in dataclasses.fields(config):
            assert field.name in own or f"{flag_of(field.name)} " not in output


@pytest.mark.parametrize("command", CONFIGS)
def test_an_option_of_another_command_is_refused_with_the_command_that_has_it(invoke, command):
    own = {field.name for field in dataclasses.fields(CONFIGS[command])}
    for other, config in CONFIGS.items():
        for field in dataclasses.fields(config):
            if field.name in own:
                continue
            result = invoke(command, flag_of(field.name), "1")
            assert result.exit_code == 2
            assert f"{flag_of(field.name)} is no option of `rskernels {command}`" in result.output
            assert f"`rskernels {other}`" in result.output
    unknown = invoke(command, "--nonsense", "1")
    assert unknown.exit_code == 2
    assert "No such option" in unknown.output


@pytest.mark.parametrize("command", CONFIGS)
def test_an_option_that_the_method_does_not_read_is_refused_with_those_that_do(invoke, command):
    config = CONFIGS[command]
    fields = {field.name: field for field in dataclasses.fields(config)}
    for field in fields.values():
        option = field.metadata["option"]
        if option.read_by is None:
            continue
        selector, readers = option.read_by
        for method in fields[selector].metadata["option"].accepted.choices:
            if method in readers:
                continue
            arguments = [flag_of(selector), method, flag_of(field.name)]
            result = invoke(command, *arguments, *([] if option.usual is False else ["5"]))
            assert result.exit_code == 2
            assert f"only {selector} {' or '.join(readers)} reads it" in result.output


def test_choices_are_completed():
    variables = {"_RSKERNELS_COMPLETE": "complete_bash", "COMP_CWORD": "3"}
    for words, expected in {
        "rskernels train --method re": {"reweight"},
        "rskernels tune --proposal c": {"coupling"},
        "rskernels sample --data br": {"breast_cancer"},
    }.items():
        env = {**variables, "COMP_WORDS": words}
        result = CliRunner().invoke(app, [], prog_name="rskernels", env=env)
        assert set(result.output.split()) == expected


def test_train_writes_everything(invoke, tmp_path):
    out = tmp_path / "run"
    result = invoke(*TINY, "--method", "accept", "--out", str(out))
    assert result.exit_code == 0, result.output
    assert "balanced accuracy" in result.output
    assert "accept, M quantile:0.9" in result.output
    names = {path.name.partition(".tfevents")[0] for path in out.iterdir()}
    assert names == {
        "metrics.jsonl",
        "events.out",
        "checkpoint.pt",
        "curves.png",
        "summary.json",
    }
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    assert summary["config"]["method"] == "accept"
    assert summary["epoch"] == 2


def test_resume_and_overwrite(invoke, tmp_path):
    out = ["--out", str(tmp_path)]
    assert invoke(*TINY, *out).exit_code == 0
    refused = invoke(*TINY, *out)
    assert refused.exit_code == 1
    assert "already holds a run" in refused.output
    assert invoke(*TINY, *out, "--epochs", "3", "--resume").exit_code == 0
    assert json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))["epoch"] == 3
    mismatch = invoke(*TINY, *out, "--epochs", "3", "--resume", "--seed", "9")
    assert mismatch.exit_code == 1
    assert "seed was 0, is 9" in mismatch.output
    assert invoke(*TINY, *out, "--overwrite").exit_code == 0


def test_resume_of_a_damaged_checkpoint(invoke, tmp_path):
    (tmp_path / "checkpoint.pt").write_bytes(b"no checkpoint")
    result = invoke(*TINY, "--out", str(tmp_path), "--resume")
    assert result.exit_code == 1
    assert "damaged" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "cifar"], "accepted are digits"),
        (["--method", "reject"], "accepted are plain, reweight, importance, accept"),
        (["--envelope", "median"], "median"),
        (["--envelope", "max", "--half-life", "10"], "half_life is for 'quantile'"),
        (["--imbalance", "1000"], "accepted are 1 (balanced) to"),
        (["--epochs", "0"], "accepted is 1 to"),
        (["--batch-size", "99999999999999999999"], "accepted is 1 to"),
        (["--seed", "-1"], "accepted is 0 to"),
        (["--drift", "1"], "drift=1: accepted is 2 to"),
        (
            ["--method", "transfer", "--selection", "some"],
            "accepted are reject, weight, all, target",
        ),
        (
            ["--selection", "weight"],
            "only method transfer or proposal reads it, got method='accept'",
        ),
        (["--resume", "--overwrite"], "both given"),
    ],
)
def test_bad_arguments_are_usage_errors(invoke, tmp_path, arguments, message):
    result = invoke(*TINY, "--out", str(tmp_path / "run"), *arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "npz", "--path", "absent.npz"], "absent.npz cannot be read"),
        (["--data", "mnist", "--path", "absent"], "absent is no folder"),
        (["--data", "mnist"], "needs a path"),
        (["--data", "wine", "--method", "transfer", "--imbalance", "1"], "turns and blurs images"),
    ],
)
def test_data_that_are_not_to_be_had_are_usage_errors(invoke, tmp_path, arguments, message):
    result = invoke(*TINY, *arguments, "--out", str(tmp_path / "run"))
    assert result.exit_code == 2
    assert message in result.output
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "measures"),
    [
        (
            ["train", "--method", "control", "--data", "wine", "--imbalance", "4", "--epochs", "1"],
            ["gradient samples", "violations"],
        ),
        (
            [*TINY, "--method", "proposal", "--imbalance", "2", "--pretrain-epochs", "1"],
            ["acceptance of the draws"],
        ),
        (["sample", "--data", "wine", "--steps", "100"], ["split R̂", "effective sample size"]),
        (["tune", "--data", "wine", "--rounds", "1", "--draws", "50"], ["log M at the start"]),
    ],
)
def test_a_method_shows_what_it_measures(invoke, tmp_path, arguments, measures):
    result = invoke(*arguments, "--out", str(tmp_path))
    assert result.exit_code == 0, result.output
    assert all(measure in result.output for measure in measures)
    assert str(tmp_path / "curves.png") in result.output


def test_draws_of_which_none_is_accepted_are_one_line(invoke, tmp_path):
    arguments = ["--data", "wine", "--form", "independent", "--tau", "1e-3"]
    result = invoke("sample", *arguments, "--out", str(tmp_path))
    assert result.exit_code == 1
    assert result.output.startswith("error: ")
    assert "acceptance rate" in result.output


def test_a_folder_that_cannot_be_made_is_one_line(invoke, tmp_path):
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "sub"):
        result = invoke(*TINY, "--out", str(out))
        assert result.exit_code == 1
        assert result.output.startswith("error: ")
        assert result.output.count("\n") == 1


def test_divergence_is_one_line(invoke, tmp_path):
    result = invoke(*TINY, "--lr", "100", "--envelope", "max", "--out", str(tmp_path))
    assert result.exit_code == 1
    assert result.output.startswith("error: step ")
    assert result.output.count("\n") == 1


def test_a_value_error_within_training_is_no_usage_error(invoke, tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise ValueError("deep inside")

    monkeypatch.setattr("rskernels.cli.report.run", fail)
    result = invoke(*TINY, "--out", str(tmp_path))
    assert (result.exit_code, result.output) == (1, "error: deep inside\n")


def test_demo_refuses_seeds_before_it_starts(invoke, tmp_path):
    result = invoke("demo", "--seed", str(2**63 - 1), "--seeds", "2", "--out", str(tmp_path))
    assert result.exit_code == 2
    assert "accepted is 0 to" in result.output
    assert not list(tmp_path.iterdir())


def test_demo_prints_the_comparison(invoke, tmp_path):
    few = ("--seeds", "1", "--epochs", "1", "--rounds", "0")
    result = invoke("demo", *few, "--out", str(tmp_path))
    assert result.exit_code == 0, result.output
    assert "balanced accuracy" in result.output
    assert "accept, M max" in result.output
    assert (tmp_path / "report.md").is_file()
    assert "pass@1" not in result.output


def test_demo_shows_the_rounds_of_a_language_model(invoke, tmp_path, monkeypatch):
    def rounds(folder, *, seed, rounds, say):
        say(f"made in {folder.name}")
        return [{"round": at, "pass_at_1": 0.25 + at / 2, "seconds": 1.0} for at in range(rounds)]

    monkeypatch.setattr("rskernels.cli.demo.run_all", lambda *arguments, **options: ())
    monkeypatch.setattr("rskernels.cli.demo.show_report", lambda *arguments, **options: None)
    monkeypatch.setattr("rskernels.experiments.own_answers.run_own_answers", rounds)
    result = invoke("demo", "--rounds", "2", "--out", str(tmp_path))
    assert result.exit_code == 0, result.output
    assert "made in own_answers" in result.output
    assert "0.250" in result.output
    assert "0.750" in result.output
    monkeypatch.setattr("rskernels.cli.demo.find_spec", lambda name: None)
    result = invoke("demo", "--rounds", "2", "--out", str(tmp_path))
    assert result.exit_code == 0, result.output
    assert "transformers is not installed" in result.output
    assert "0.250" not in result.output


def test_compare_with_a_failed_run_reports_the_others_and_exits_with_1(
    invoke, tmp_path, monkeypatch
):
    arguments = ["compare", "--quick", "--seeds", "1", "--experiments", "wine", "--cases"]
    arguments += ["accept, M max", "--out", str(tmp_path)]
    with monkeypatch.context() as patch:
        patch.setitem(RULES, "accept", Rule(lambda *_: 1 / 0, rejects=True))
        result = invoke(*arguments)
    assert result.exit_code == 1
    assert "accept, M max (0 of 1 seeds)" in result.output
    assert f"failed: {tmp_path}/wine/accept-m-max-seed0: ZeroDivisionError" in result.output
    assert "error: 1 of 2 runs failed" in result.output
    assert "**1 of 2 runs failed.**" in (tmp_path / "report.md").read_text(encoding="utf-8")
    assert invoke(*arguments).exit_code == 0


def test_compare_continues_and_reports_elsewhere(invoke, tmp_path):
    arguments = ["compare", "--quick", "--seeds", "1", "--experiments", "wine", "--cases"]
    arguments += ["accept, M max; control, M quantile:0.9", "--out", str(tmp_path / "runs")]
    assert invoke(*arguments).exit_code == 0
    written = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/wine/*/*")}
    result = invoke(*arguments, "--report", str(tmp_path / "report"))
    assert result.exit_code == 0, result.output
    assert all(name in result.output for name in ("plain", "accept, M max", "control, M quantile"))
    assert "oversampling" not in result.output
    assert (tmp_path / "report" / "wine-accuracy.png").is_file()
    assert written == {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/wine/*/*")}
    changed = invoke(*arguments[:1], *arguments[2:])
    assert changed.exit_code == 1
    assert "another configuration: epochs was 4, is 60" in changed.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--experiments", "iris"], "accepted are digits; wine"),
        (["--experiments", ""], "experiment '': accepted are digits; wine"),
        (["--cases", ""], "case '': accepted are plain; class weights"),
        (["--cases", "none"], "accepted are plain; class weights"),
        (["--seeds", "0"], "'--seeds'"),
        (["--seed", str(2**63 - 1)], "accepted is 0 to"),
    ],
)
def test_compare_refuses_before_it_starts(invoke, tmp_path, arguments, message):
    result = invoke("compare", "--quick", "--out", str(tmp_path / "runs"), *arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert not (tmp_path / "runs").exists()


def test_compare_says_before_it_starts_that_the_report_cannot_be_written(invoke, tmp_path):
    (tmp_path / "file").touch()
    folders = ["--out", str(tmp_path / "runs"), "--report", str(tmp_path / "file")]
    result = invoke("compare", "--quick", "--experiments", "wine", *folders)
    assert result.exit_code == 1
    assert "File exists" in result.output
    assert not (tmp_path / "runs").exists()


def test_command_without_its_packages_says_what_to_install():
    code = (
        "import runpy, sys; sys.modules['typer'] = None; "
        "runpy.run_module('rskernels', run_name='__main__')"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, encoding="utf-8"
    )
    assert result.returncode == 1
    assert "pip install '.[train]'" in result.stderr
    assert "Traceback" not in result.stderr
