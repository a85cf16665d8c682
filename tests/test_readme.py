"""The README cannot drift: what it claims is read from it, and run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from websim_batch.cli import COMMANDS
from websim_batch.cli.readme import filled, missing
from websim_batch.job.options import BY_KEY, OPTIONS, Option
from websim_batch.records import ERROR_TYPES, OUTPUT_COLUMNS, STATUSES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXIT_CODES = (0, 1, 2, 3, 4, 5, 6, 130, 143)
NUMBER = re.compile(r"\d[\d.,]*")


def section(title: str) -> str:
    """The text under a heading, up to the next one of its rank or a higher one."""
    found = re.search(
        rf"^(#+) {re.escape(title)}\n(.*?)(?=^\1 |^#{{1,2}} |\Z)", README, re.MULTILINE | re.DOTALL
    )
    assert found is not None, f"no heading {title!r}"
    return found[2]


def first_cells(title: str) -> str:
    """The first cells of all table lines under a heading."""
    return "\n".join(line.split("|")[1] for line in section(title).splitlines() if line.startswith("|"))


# What must be there


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_told(command: str) -> None:
    """Each command has its generated help."""
    assert f"<!-- help: {command} -->\n\n```text\nUsage: websim-batch {command} " in README


def test_generated_parts_are_current() -> None:
    """Help and job keys are as the program says them now."""
    assert missing(README) == []
    assert filled(README) == README


@pytest.mark.parametrize("code", EXIT_CODES)
def test_every_exit_code_is_told(code: int) -> None:
    """Each exit code stands in its table and on the page for the person who is paged."""
    for title in ("Exit codes", "For the person who is paged"):
        assert re.search(rf"\b{code}\b", first_cells(title)), title


@pytest.mark.parametrize("status", STATUSES)
def test_every_status_is_told(status: str) -> None:
    """Each status is a line of a table."""
    assert f"`{status}`" in first_cells("Output")


@pytest.mark.parametrize("error_type", ERROR_TYPES)
def test_every_error_type_is_told(error_type: str) -> None:
    """Each error type is a line of a table."""
    assert f"`{error_type}`" in first_cells("Answers")


@pytest.mark.parametrize(("column", "kind"), OUTPUT_COLUMNS)
def test_every_output_column_is_told(column: str, kind: str) -> None:
    """Each output column is a line of a table, with its type."""
    line = next(line for line in section("Output").splitlines() if re.match(rf"\|.*`{column}`.*\|", line))

    assert line.split("|")[2].strip().startswith(kind)


@pytest.mark.parametrize("option", OPTIONS.values(), ids=lambda option: option.name)
def test_every_option_is_told(option: Option) -> None:
    """Each flag of each option stands in the help of `run`."""
    text = section("All commands")

    assert all(re.search(rf"(?<![\w-]){re.escape(flag)}(?![\w-])", text) for flag in option.flags)


@pytest.mark.parametrize("key", BY_KEY)
def test_every_job_file_key_is_told(key: str) -> None:
    """Each key of job files is a line of the table of keys."""
    table, _, name = key.partition(".")

    assert f"| `[{table}]` | `{name}` |" in section("Job files, cron, systemd")


@pytest.mark.parametrize("file", sorted((ROOT / "jobs").iterdir()), ids=lambda file: file.name)
def test_every_job_file_is_told(file: Path) -> None:
    """Everything in jobs/ is linked."""
    assert f"](jobs/{file.name})" in README


@pytest.mark.parametrize("key", ["rows", "counts", "errors", "sent", "refused_429", "retries", "elapsed_s"])
def test_the_summarys_keys_are_told(key: str) -> None:
    """The keys of the summary are told."""
    assert f"`{key}`" in section("Output")


def test_links_lead_somewhere() -> None:
    """Relative links exist, and links inside the page have their heading."""
    links = re.findall(r"\]\(([^)\s]+)\)", README)
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", README, flags=re.DOTALL), re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}

    assert links
    for link in links:
        if link.startswith("#"):
            assert link[1:] in anchors, link
        elif "://" not in link:
            assert (ROOT / link).exists(), link


def test_the_changelog_comes_last() -> None:
    """The last section is the changelog."""
    assert re.findall(r"^## (.*)$", README, re.MULTILINE)[-1] == "Changelog"


# The two commands


def two_commands() -> list[str]:
    """The indented lines that make a virtual environment."""
    return re.findall(r"^    (python3 -m venv .*)$", README, re.MULTILINE)


def test_there_are_two_commands() -> None:
    """One runs the main job into the ignored folder, one runs the tests; each is one line that does all its set-up."""
    first, second = two_commands()

    assert re.fullmatch(
        r"python3 -m venv \.venv && .*pip install .*&& mkdir -p out && .*run .* -o out/\S+", first
    )
    assert "--sandbox" in first
    assert re.fullmatch(r"python3 -m venv \.venv && .*pip install .*\.\[dev\].* && \S*pytest\b.*", second)
    assert "/out/\n" in (ROOT / ".gitignore").read_text()


def test_ci_runs_the_second_command() -> None:
    """What .ci/run finds in the README is the second command, word for word."""
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    finder = re.search(r"^tests=\$\(.*\)$", script, re.MULTILINE)
    assert finder is not None

    found = subprocess.run(
        ["bash", "-c", f'{finder[0]}; printf %s "$tests"'],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )

    assert found.stdout == two_commands()[1]
    assert script.rstrip().endswith('bash -euo pipefail -c "$tests"')


# The examples


@dataclass(frozen=True, slots=True)
class Example:
    """One command of a console block, the exit code it claims, and the lines it shows."""

    command: str
    exit_code: int
    shown: tuple[str, ...]


def examples() -> Iterator[Example]:
    """The examples of all console blocks, in order: each may need those before it."""
    for block in re.findall(r"^```console\n(.*?)^```", README, re.MULTILINE | re.DOTALL):
        for text in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            first, *shown = text.splitlines()
            command, _, code = first.partition("  # exit ")
            yield Example(command, int(code or 0), tuple(line for line in shown if line.strip() != "…"))


def shape(text: str) -> list[str]:
    """The lines without their numbers, which differ from run to run and from machine to machine."""
    return [NUMBER.sub("N", line) for line in text.splitlines()]


def test_the_examples_do_what_is_shown(tmp_path: Path) -> None:
    """Every example ends with the exit code it claims and says the lines that are shown, numbers aside."""
    # Copies, not links: job files write to the folder beside them.
    for folder in ("sample_inputs", "jobs"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    (tmp_path / "out").mkdir()
    program = tmp_path / "bin" / "websim-batch"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m websim_batch "$@"\n')
    program.chmod(0o755)
    environ = {"PATH": f"{program.parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8"}

    told = list(examples())
    assert len(told) > 10
    for example in told:
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", example.command], cwd=tmp_path, env=environ, timeout=60,
            capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        assert done.returncode == example.exit_code, (example.command, done.stderr)
        said = shape(done.stdout) + shape(done.stderr)
        for line in shape("\n".join(example.shown)):
            assert line in said, (example.command, line, said)
