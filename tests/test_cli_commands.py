"""The command line from outside: help, errors, exit codes, start-up, stdout and stderr."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from websim_batch.cli import COMMANDS, main
from websim_batch.cli.readme import filled, help_text, job_keys, missing
from websim_batch.cli.readme import main as write_readme
from websim_batch.job.options import BY_KEY, GROUPS, OPTIONS

ROOT = Path(__file__).parents[1]
JOBS = sorted((ROOT / "jobs").glob("*.toml"))


def call(*args: str, cwd: Path | None = None, **environ: str) -> subprocess.CompletedProcess[str]:
    """The command as a process of its own, with almost no environment, as cron has it."""
    clean = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": "/nonexistent", **environ}
    return subprocess.run(
        [sys.executable, "-m", "websim_batch", *args],
        capture_output=True, text=True, cwd=cwd, env=clean, timeout=60, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A table of two prompts."""
    path = tmp_path / "prompts.csv"
    path.write_text("id,prompt\n007,Hello\n008,World\n")
    return path


# Help


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name: str) -> None:
    """`--help` of each command shows an example that begins with it."""
    assert re.search(rf"Example:\n(.*\n)*? +websim-batch {name}\b", help_text(name))


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "sandbox"])
def test_the_examples_work_when_pasted(name: str, tmp_path: Path) -> None:
    """Each example, pasted after that of `run` where it needs one, ends with 0."""
    for folder in ("sample_inputs", "jobs"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    needed = ["run", name] if name in ("status", "export", "verify") else [name]
    for command in needed:
        example = re.search(r"Example:\n((?: {6,}\S.*\n)+)", help_text(command) + "\n")
        assert example is not None
        for line in example[1].split("\n"):
            words = line.split()
            if words[:1] == ["mkdir"]:
                (tmp_path / words[-1]).mkdir(exist_ok=True)
            elif words:
                done = call(*words[1:], cwd=tmp_path)
                assert done.returncode == 0, done.stderr


def test_no_word_at_all_is_a_call_for_help(capsys: pytest.CaptureFixture[str]) -> None:
    """`websim-batch` alone shows its help."""
    assert main([]) == 0
    assert "Commands:" in capsys.readouterr().out


def test_run_tells_every_option_in_its_group() -> None:
    """The help of `run` has every option under its heading, the everyday ones first."""
    text = help_text("run")
    sections = dict(re.findall(r"^(\w[\w ]*):\n((?:  .*\n|\n(?=  ))+)", text + "\n", re.MULTILINE))

    assert [group for group in sections if group in GROUPS] == list(GROUPS)
    for option in OPTIONS.values():
        assert all(flag in sections[option.group] for flag in option.flags), option.name
    assert all(f"    {code} " in text for code in (0, 1, 2, 3, 4, 5, 6, 130))


def test_the_readmes_parts(tmp_path: Path) -> None:
    """Generated parts are written between their marks, a stale or missing one is told, the rest stays."""
    parts = "".join(f"<!-- help: {name} -->\nold\n<!-- end -->\n" for name in COMMANDS)
    readme = tmp_path / "README.md"
    readme.write_text(f"# Title\n{parts}<!-- job keys -->\n<!-- end -->\nthe end\n")

    assert write_readme(["--check", str(readme)]) == 1
    assert write_readme([str(readme)]) == 0
    assert write_readme(["--check", str(readme)]) == 0
    text = readme.read_text()
    assert text.startswith("# Title\n")
    assert text.endswith("the end\n")
    assert filled(text) == text
    assert "--retry-failed[=TYPE,…]" in text
    assert missing("") == list(COMMANDS)
    assert all(f"`{key.partition('.')[2]}`" in job_keys() for key in BY_KEY)


# Errors


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["rnu"], "did you mean 'run'"),
        (["run"], "Missing argument 'INPUT'".lower()),
        (["run", "a.csv", "--rat", "3"], "--rat"),
        (["run", "a.csv", "--rate", "3"], "perhaps 3/s"),
        (["run", "a.csv", "b.csv"], "b.csv"),
        (["run", "-"], "--output is needed"),
        (["run", "a.csv", "-q", "-v"], "--quiet and --verbose"),
        (["run", "missing.csv"], "missing.csv"),
        (["run", "missing.toml"], "cannot be read"),
        (["run", "."], "."),
        (["check", "a.csv", "--kind", "video"], "auto, chat, image"),
        (["status", "nothing.csv"], "nothing.csv"),
        (["export", "nothing.csv"], "--output"),
        (["export", "nothing.csv", "-o", "x.csv"], "nothing.csv"),
        (["verify", "nothing.csv"], "nothing.csv"),
        (["init", "nothing.csv"], "nothing.csv"),
        (["models", "--provider", "nobody"], "websim, openai"),
        (["sandbox", "--fail", "2"], "--fail"),
        (["sandbox", "--policy", "gcra", "--window", "3"], "--window"),
    ],
)
def test_usage_errors(
    args: list[str], words: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Wrong usage is exit 2 and one sentence on stderr; stdout stays empty."""
    old = Path.cwd()
    os.chdir(tmp_path)
    try:
        code = main(args)
    finally:
        os.chdir(old)

    told = capsys.readouterr()
    assert code == 2
    assert told.out == ""
    assert words in told.err.lower() or words in told.err
    assert told.err.startswith("websim-batch: ")
    assert told.err.count("\n") == 1


def test_all_mistakes_of_a_job_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every mistake of a job file is a line of its own."""
    job = tmp_path / "job.toml"
    job.write_text('[input]\npath = "p.csv"\npromt_column = "x"\n[limits]\nrate = "fast"\n')

    assert main(["run", str(job), "--timeout", "x"]) == 2
    assert capsys.readouterr().err.count("\n") == 3


def test_a_bare_retry_failed_takes_no_value(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--retry-failed INPUT` is the bare option and the input, in any order."""
    assert main(["check", "--retry-failed", str(table)]) == 0
    assert main(["check", str(table), "--retry-failed"]) == 0
    assert main(["check", str(table), "--retry-failed=timeot"]) == 2
    assert "did you mean 'timeout'" in capsys.readouterr().err


FAULT = """
import sys
from websim_batch.job import build
from websim_batch.cli import run as command
def broken(raw): raise KeyError('a-secret-value')
command.build = broken
from websim_batch.cli import main
raise SystemExit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("verbose", [[], ["-v"]])
def test_a_fault_of_ours(verbose: list[str], table: Path) -> None:
    """It is exit 1 and one sentence without values; the traceback is for -v alone."""
    done = subprocess.run(
        [sys.executable, "-c", FAULT, "run", str(table), *verbose],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert ("Traceback" in done.stderr) is bool(verbose)
    assert ("a-secret-value" in done.stderr) is bool(verbose)
    if not verbose:
        assert "KeyError" in done.stderr
        assert done.stderr.count("\n") == 1


def test_a_missing_variable(table: Path) -> None:
    """A header whose variable is not set is refused by the variable's name, before anything is sent."""
    done = call("run", str(table), "--header-env", "Authorization: Bearer $NO_TOKEN", cwd=table.parent)

    assert done.returncode == 2
    assert "NO_TOKEN" in done.stderr
    assert "Traceback" not in done.stderr


# Start-up


HEAVY = "aiohttp pandas pyarrow jinja2 pydantic rich uvloop numpy".split()  # noqa: SIM905  # reads better


@pytest.mark.parametrize(
    "args", [["--help"], ["run", "--help"], ["run", "x.csv", "--rate", "3"], ["status", "x.csv"]]
)
def test_nothing_slow_is_imported(args: list[str]) -> None:
    """Help, a usage error and `status` load none of the heavy libraries."""
    code = (
        "import sys; from websim_batch.cli import main; main(sys.argv[1:]);"
        "print('loaded:', *sorted(set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, check=True)

    loaded = set(done.stderr.split("loaded:")[1].split())
    assert not loaded & set(HEAVY)


# Runs against the sandbox


def test_a_run_from_cron(table: Path) -> None:
    """Without a terminal and an environment: exit 0, the summary on stdout, no control character anywhere."""
    first = call("run", "prompts.csv", "--sandbox", cwd=table.parent)
    again = call("run", "prompts.csv", "--sandbox", cwd=table.parent)

    assert (first.returncode, again.returncode) == (0, 0), first.stderr
    assert "prompts.sandbox.csv: finished, 2 rows (ok 2)" in first.stdout
    assert again.stdout == "prompts.sandbox.csv: nothing new to send, 2 rows (ok 2)\n"
    assert not {"\r", "\x1b"} & set(first.stdout + first.stderr)


def test_quiet_is_silent(table: Path) -> None:
    """-q says nothing at all when the exit code is 0."""
    done = call("run", "prompts.csv", "--sandbox", "-q", cwd=table.parent)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_json_summary(table: Path) -> None:
    """--json prints the summary as the last line of stdout, with the design's keys; so does `status`."""
    done = call("run", "prompts.csv", "--sandbox", "--json", cwd=table.parent)
    summary = json.loads(done.stdout.splitlines()[-1])

    assert set(summary) >= {
        "output", "run_id", "state", "rows", "counts", "errors", "sent", "refused_429", "retries",
        "elapsed_s", "rows_per_s", "latency_ms", "exit_code", "exit_reason",
    }  # fmt: skip
    assert set(summary["latency_ms"]) == {"p50", "p95", "p99"}
    status = json.loads(call("status", "prompts.sandbox.csv", "--json", cwd=table.parent).stdout)
    assert (status["state"], status["counts"]) == ("finished", {"ok": 2})


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
def test_the_repositorys_jobs_run(job: Path, tmp_path: Path) -> None:
    """Each job of the repository runs against the sandbox: every row ok."""
    output = tmp_path / "out.csv"
    done = call("run", str(job), "--sandbox", "--rate", "10000/s", "-o", str(output), "--json")

    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert set(summary["counts"]) == {"ok"}


def test_init_then_run(table: Path) -> None:
    """The job file that `init` writes runs as it is; a second `init` does not overwrite it."""
    written = call("init", "prompts.csv", cwd=table.parent)
    done = call("run", "prompts.toml", "--sandbox", cwd=table.parent)
    status = call("status", "prompts.toml", cwd=table.parent)
    again = call("init", "prompts.csv", cwd=table.parent)

    assert (written.returncode, done.returncode, again.returncode) == (0, 0, 2)
    assert status.returncode == 2, "the rehearsal is not the job"
    assert "exists already" in again.stderr


def test_check_of_the_samples() -> None:
    """`check` finds nothing wrong with the awkward table and every line of the broken one."""
    awkward = call("check", "sample_inputs/awkward.csv", "--json", cwd=ROOT)
    broken = call("check", "sample_inputs/broken.csv", cwd=ROOT)

    assert (awkward.returncode, broken.returncode) == (0, 2)
    assert json.loads(awkward.stdout)["rows"] == 30
    assert all(f"line {line}:" in broken.stdout for line in (3, 4, 8))


def test_check_tells_how_long_a_run_takes(table: Path) -> None:
    """By the ceiling where there is one, else by rounds of answers: rows over requests at once, rounded up."""
    by_rate = call("check", table, "--rate", "1/min", cwd=table.parent)
    by_latency = call("check", table, "--concurrency", "1", cwd=table.parent)
    told = json.loads(call("check", table, "--concurrency", "1", "--json", cwd=table.parent).stdout)

    assert "time: at least 2 min at the given rate" in by_rate.stdout
    assert "time: 2.0 s for each second that an answer takes, 1 at once" in by_latency.stdout
    assert (told["to_send"], told["concurrency"], told["rounds"], told["at_least_s"]) == (2, 1, 2, None)


def test_check_tells_drift_beside_all_else(table: Path) -> None:
    """The refusal, what to do, and what the table holds; a run would send nothing."""
    output = table.with_name("out.csv")
    call("run", table, "--sandbox", "-o", output, cwd=table.parent)

    checked = call("check", table, "--sandbox", "-o", output, "--system", "Be brief", cwd=table.parent)

    assert checked.returncode == 2
    assert "--on-drift keep" in checked.stdout
    assert "2 rows: a run would send 0 requests" in checked.stdout
    assert "longest prompts" in checked.stdout


def test_a_reader_that_goes_away(table: Path) -> None:
    """`websim-batch … | head -0` changes no exit code and shows no traceback."""
    code = (
        "set -o pipefail; " + f"'{sys.executable}' -m websim_batch check prompts.csv --show 2 | true; "
        "exit ${PIPESTATUS[0]}"
    )
    done = subprocess.run(
        ["bash", "-c", code], capture_output=True, text=True, cwd=table.parent, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip

    assert (done.returncode, done.stderr) == (0, "")
