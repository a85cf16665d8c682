"""Job files: every key, every mistake with its place, dates, drift, `init`, the repository's jobs."""

from __future__ import annotations

import re
import tomllib
from datetime import date
from pathlib import Path

import pytest

from websim_batch.errors import UsageError
from websim_batch.job.build import build, settings_from_jobfile
from websim_batch.job.dated import newest_output, output_behind, resolve_output
from websim_batch.job.drift import answer_settings, differences
from websim_batch.job.init import job_file_text
from websim_batch.job.settings import Settings
from websim_batch.records import Ceiling, Share

ROOT = Path(__file__).parents[1]
JOBS = sorted((ROOT / "jobs").glob("*.toml"))

WHOLE = """
[input]
path = "prompts.csv"
id_column = "id"
fields = ["seed"]
limit = 10
[provider]
name = "openai"
params = { temperature = 0.5 }
headers = { X-A = "b" }
headers_env = { Authorization = "Bearer $TOKEN" }
[limits]
rate = ["10/s", "60/min"]
timeout_s = 30
[retry]
retry_failed = true
on_drift = "keep"
[output]
path = "out/x-{date}.parquet"
tolerate = "5%"
[stop]
time_limit = "2h"
deadline = 06:30:00
grace_s = 0
"""


def write(folder: Path, text: str) -> Path:
    """A job file in `folder`."""
    file = folder / "job.toml"
    file.write_text(text, encoding="utf-8")
    return file


def mistakes(folder: Path, text: str) -> list[str]:
    """What is said of a job file that is refused, without the file's own name."""
    file = write(folder, text)
    with pytest.raises(UsageError) as caught:
        settings_from_jobfile(file)
    return [line.removeprefix(f"{file}: ") for line in str(caught.value).splitlines()]


def test_a_whole_job_file(tmp_path: Path) -> None:
    """Every kind of key arrives; paths count from the file."""
    settings = settings_from_jobfile(write(tmp_path, WHOLE))

    assert settings.input == tmp_path / "prompts.csv"
    assert settings.output == tmp_path / "out/x-{date}.parquet"
    assert settings.rate == (Ceiling(10, 1.0), Ceiling(60, 60.0))
    assert settings.retry_failed == ()
    assert settings.tolerate == Share(percent=5.0)
    assert settings.deadline is not None
    assert settings.grace_s == 0


def test_every_mistake_at_once(tmp_path: Path) -> None:
    """Unknown tables and keys, keys in the wrong place, bad values: all told, each with place and remedy."""
    told = mistakes(
        tmp_path,
        'rate = "3/s"\n[input]\nprompt_colum = "x"\ntimeout_s = 3\n'
        '[provider]\nheaders = { Authorization = "k" }\n'
        '[limits]\nrate = "x"\nconcurrency = "many"\n[retries]\na = 1\n',
    )

    assert len(told) == 8
    assert told[0].startswith("rate: unknown key; write it under [limits]")
    assert "did you mean 'prompt_column'" in told[1]
    assert "[input] timeout_s" in told[2]
    assert "write it under [limits]" in told[2]
    assert "headers_env" in told[3]
    assert told[4].startswith("[limits] rate: 'x'")
    assert told[5].startswith("[limits] concurrency: 'many'")
    assert "did you mean 'retry'" in told[6]
    assert "[input] path is missing" in told[7]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[input", "is not TOML"),
        (b"\xff\xfe", "is not UTF-8"),
        (b"", "[input] path is missing"),
        (None, "cannot be read"),
    ],
)
def test_files_that_are_no_job(tmp_path: Path, content: bytes | None, words: str) -> None:
    """A file that cannot be read is one sentence."""
    file = tmp_path / "job.toml"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(UsageError, match=re.escape(words)):
        settings_from_jobfile(file)


def test_the_command_line_wins(tmp_path: Path) -> None:
    """An option given beside a job file holds; one that excludes a key of the file takes its place."""
    file = write(
        tmp_path,
        '[input]\npath = "p.csv"\nprompt_column = "text"\n[provider]\nmodel = "a"\n[output]\nbom = true',
    )
    settings = build({"input": str(file), "template": "{{ text }}", "model": "b", "bom": False}, environ={})

    assert settings.template == "{{ text }}"
    assert settings.prompt_column == "prompt"
    assert settings.model == "b"
    assert not settings.bom


def test_a_rehearsal_of_a_job_has_its_own_output(tmp_path: Path) -> None:
    """`--sandbox` on a job file keeps away from the real output and endpoint, unless -o names a place."""
    text = (
        '[input]\npath = "p.csv"\n[provider]\nbase_url = "http://real"\n[output]\npath = "o-{date}.csv.gz"\n'
    )
    file = write(tmp_path, text)

    rehearsal = build({"input": str(file), "sandbox": True}, environ={})
    assert rehearsal.output == tmp_path / "o-{date}.sandbox.csv.gz"
    assert rehearsal.base_url is None
    assert build({"input": str(file), "sandbox": True, "output": "x.csv"}, environ={}).output == Path("x.csv")


@pytest.mark.parametrize("file", JOBS, ids=lambda f: f.name)
def test_the_repositorys_jobs_load(file: Path) -> None:
    """Each job of the repository loads, names an input that exists and an output in the ignored folder."""
    settings = settings_from_jobfile(file)

    assert settings.input is not None
    assert settings.input.exists()
    assert settings.output is not None
    assert settings.output.parent == ROOT / "out"


def test_there_are_jobs() -> None:
    """The four ways of working have a job each."""
    assert {"nightly_chat.toml", "nightly_images.toml", "incremental.toml", "template.toml"} <= {
        f.name for f in JOBS
    }


# Dates


TODAY = date(2025, 11, 22)


def begin(folder: Path, *names: str) -> Path:
    """Journals of these outputs; gives the pattern they fit."""
    for name in names:
        (folder / f"{name}.journal").touch()
    return folder / "x-{date}.csv"


def test_a_day_begins_a_table_of_its_own(tmp_path: Path) -> None:
    """While no journal fits, or the newest is finished, the output is today's."""
    pattern = begin(tmp_path)
    assert resolve_output(pattern, TODAY, lambda _: True) == tmp_path / "x-2025-11-22.csv"

    begin(tmp_path, "x-2025-11-21.csv")
    assert resolve_output(pattern, TODAY, lambda _: False) == tmp_path / "x-2025-11-22.csv"


def test_an_unfinished_day_is_continued(tmp_path: Path) -> None:
    """The newest journal that fits is continued while unfinished; older ones and strangers do not count."""
    pattern = begin(
        tmp_path,
        "x-2025-11-19.csv",
        "x-2025-11-20.csv",
        "x-2025-99-99.csv",
        "x-2025-11-21.sandbox.csv",
        "y-2025-11-21.csv",
    )
    asked: list[Path] = []

    found = resolve_output(pattern, TODAY, lambda path: asked.append(path) is None)

    assert found == tmp_path / "x-2025-11-20.csv"
    assert asked == [found]


def test_a_day_may_be_a_folder(tmp_path: Path) -> None:
    """`{date}` may stand in any part of the path, more than once; odd letters in it mean themselves."""
    folder = tmp_path / "a[1]"
    (folder / "2025-11-20").mkdir(parents=True)
    (folder / "2025-11-20" / "x-2025-11-20.csv.journal").touch()
    (folder / "2025-11-20" / "x-2025-11-21.csv.journal").touch()

    assert newest_output(folder / "{date}" / "x-{date}.csv") == folder / "2025-11-20" / "x-2025-11-20.csv"


def test_a_job_file_stands_for_its_newest_output(tmp_path: Path) -> None:
    """Where OUTPUT is asked for, a job file means its newest table; a table means itself."""
    file = write(tmp_path, '[input]\npath = "p.csv"\n[output]\npath = "x-{date}.csv"\n')
    begin(tmp_path, "x-2025-11-20.csv")

    assert output_behind(file, TODAY) == tmp_path / "x-2025-11-20.csv"
    assert output_behind(Path("t.csv"), TODAY) == Path("t.csv")


# Drift


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        (Settings(model="a"), Settings(model="b"), ["model was 'a', now it is 'b'"]),
        (Settings(), Settings(system="x"), ["system was not given, now it is 'x'"]),
        (Settings(params={"a": 1, "b": 2}), Settings(params={"b": 2, "a": 1}), []),
        (Settings(fields=("a", "b")), Settings(fields=("b", "a")), []),
        (
            Settings(),
            Settings(base_url="http://x", concurrency=3, rate=(Ceiling(1, 1.0),), timeout_s=1.0),
            [],
        ),
        (Settings(), Settings(data_columns=("topic",)), []),
        (Settings(), Settings(data_columns=("model",)), ["data_columns was not given, now it is ['model']"]),
    ],
)
def test_drift(one: Settings, other: Settings, told: list[str]) -> None:
    """Only settings that change answers are drift, told one sentence each."""
    assert differences(answer_settings(one), answer_settings(other)) == told


@pytest.mark.parametrize(
    "changed",
    [
        {"provider": "openai"}, {"kind": "chat"}, {"model": "x"}, {"template": "x"}, {"system": "x"},
        {"params": {"a": 1}}, {"aspect_ratio": "1:1"}, {"project_id": "x"}, {"prompt_column": "x"},
        {"fields": ("x",)}, {"id_column": "x"},
    ],
    ids=lambda changed: next(iter(changed)),
)  # fmt: skip
def test_every_setting_of_the_design_drifts(changed: dict[str, object]) -> None:
    """Each setting that the design lists is noticed."""
    assert differences(answer_settings(Settings()), answer_settings(Settings(**changed)))  # type: ignore[arg-type]


def test_a_journal_that_knows_less(tmp_path: Path) -> None:
    """A setting that an older journal does not know had its default."""
    assert differences({}, answer_settings(Settings())) == []


# init


def test_a_new_job_file_loads(tmp_path: Path) -> None:
    """What `init` writes is a job file for that table."""
    settings = settings_from_jobfile(
        write(tmp_path, job_file_text(Path("p.csv"), ["id", "Question"], "job.toml"))
    )

    assert settings.input == tmp_path / "p.csv"
    assert settings.prompt_column == "Question"
    assert settings.output == tmp_path / "p.results.csv"


def test_every_comment_of_a_new_job_file_is_a_setting(tmp_path: Path) -> None:
    """Each line that is commented out can be taken in alone, and is a valid setting."""
    text = job_file_text(Path("p.csv"), ["prompt"], "job.toml")
    commented = [line for line in text.splitlines() if re.match(r"# \w+ = ", line)]
    assert len(commented) > 30

    for line in commented:
        one = text.replace(line, line.removeprefix("# "))
        tomllib.loads(one)
        settings_from_jobfile(write(tmp_path, one))


def test_odd_names_survive_init(tmp_path: Path) -> None:
    """Names with quotes and backslashes are written as TOML wants them."""
    name = 'a"b\\c\t.csv'

    assert (
        settings_from_jobfile(write(tmp_path, job_file_text(Path(name), ["prompt"], "j"))).input
        == tmp_path / name
    )
