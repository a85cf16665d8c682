"""Images of an OpenAI-compatible endpoint: by address, or in bytes that become files beside the output."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.live import Ended, call, query, read_table, run, statuses, write_table
from websim_batch.run.images import ImageFolder
from websim_batch.sandbox import Misbehaviour, Sandbox, Scripted

JSON = {"Content-Type": "application/json"}
PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8\xff\xe0"
WEBP = b"RIFF\x04\x00\x00\x00WEBP"


def in_bytes(image: bytes) -> Scripted:
    """An answer that holds the image itself."""
    body = {"data": [{"b64_json": base64.b64encode(image).decode()}]}
    return Scripted(200, json.dumps(body).encode(), JSON)


def draw(sandbox: Sandbox, table: Path, *more: object) -> Ended:
    """Run the table as image requests; the output is out.csv beside it."""
    endpoint = (
        "--provider",
        "openai",
        "--base-url",
        sandbox.openai_base_url,
        "--kind",
        "image",
        "--model",
        "i",
    )
    return call("run", table, "-o", table.with_name("out.csv"), "--json", *endpoint, *more)


def files_of(folder: Path) -> dict[str, bytes]:
    """The names of a folder's files, hidden ones too, and what is in them."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Three different prompts."""
    return write_table(tmp_path / "in.csv", [["a cat"], ["a dog"], ["a cow"]])


def test_an_image_by_address_stays_an_address(table: Path) -> None:
    """No folder is made, and `response` is empty."""
    with Sandbox() as sandbox:
        ended = draw(sandbox, table)

        rows = read_table(table.with_name("out.csv"))
        assert (ended.code, ended.summary["counts"]) == (0, {"ok": 3})
        assert all(row["image_url"].startswith(f"{sandbox.base_url}/__images/") for row in rows)
    assert {row["response"] for row in rows} == {""}
    assert {row["request_kind"] for row in rows} == {"image"}
    assert not table.with_name("out.csv.images").exists()


def test_an_image_in_bytes_is_a_file_beside_the_output(table: Path) -> None:
    """`image_url` is its path, relative to the output; size and form come from --param."""
    with Sandbox() as sandbox:
        ended = draw(sandbox, table, "--param", 'response_format="b64_json"', "--param", 'size="64x32"')

    rows = read_table(table.with_name("out.csv"))
    images = [(table.parent / row["image_url"]).read_bytes() for row in rows]
    assert ended.code == 0
    assert all(image.startswith(PNG) for image in images)
    assert {image[16:24] for image in images} == {(64).to_bytes(4, "big") + (32).to_bytes(4, "big")}
    assert len(set(images)) == 3
    assert files_of(table.with_name("out.csv.images")).keys() == {Path(row["image_url"]).name for row in rows}


def test_equal_images_share_a_file(tmp_path: Path) -> None:
    """One for each picture, however many rows show it, named by its kind; nothing else is left in the folder."""
    table = write_table(tmp_path / "in.csv", ([f"{number}"] for number in range(60)))
    images = [PNG + os.urandom(100_000), JPEG + os.urandom(100_000), WEBP + os.urandom(100_000)]
    plan = Misbehaviour(script=lambda prompt, attempt: in_bytes(images[int(prompt) % 3]))
    with Sandbox(misbehaviour=plan) as sandbox:
        ended = draw(sandbox, table)

    rows = read_table(tmp_path / "out.csv")
    assert (ended.code, ended.summary["counts"]) == (0, {"ok": 60})
    assert all((tmp_path / row["image_url"]).read_bytes() == images[int(row["prompt"]) % 3] for row in rows)
    assert sorted(Path(row["image_url"]).suffix for row in rows[:3]) == [".jpg", ".png", ".webp"]
    assert len(files_of(tmp_path / "out.csv.images")) == 3


def test_equal_images_at_the_same_time_are_each_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is told the path finds the whole image there at once, also on a disk that takes its time."""
    images = [PNG + os.urandom(9_999), JPEG + os.urandom(9_999)]
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (time.sleep(0.02), fsync(file)))
    folder = ImageFolder(tmp_path / "x.images")

    async def keep(image: bytes) -> bool:
        return (tmp_path / await folder.keep(image)).read_bytes() == image

    async def keep_all() -> list[bool]:
        return await asyncio.gather(*(keep(image) for image in images * 20))

    assert asyncio.run(keep_all()) == [True] * 40
    assert len(files_of(tmp_path / "x.images")) == 2


def test_images_survive_a_resume(tmp_path: Path) -> None:
    """What was drawn is not asked for again; its file and its path stay, and what a kill left is taken away."""
    table = write_table(tmp_path / "in.csv", [["a cat"], ["a dog"]])
    plan = Misbehaviour(
        by_prompt={"a cat": in_bytes(PNG + b"cat"), "a dog": ["quota", in_bytes(PNG + b"dog")]}
    )
    with Sandbox(misbehaviour=plan) as sandbox:
        first = draw(sandbox, table, "--concurrency", 1)
        before = read_table(tmp_path / "out.csv")[0]
        unfinished = tmp_path / "out.csv.images" / ".0123456789abcdef.png.999999999.part"
        unfinished.write_bytes(PNG)
        second = draw(sandbox, table, "--concurrency", 1)

        sends = (sandbox.sends_of("a cat"), sandbox.sends_of("a dog"))
    rows = read_table(tmp_path / "out.csv")
    assert (first.code, second.code) == (5, 0)
    assert sends == (1, 2)
    assert rows[0] == before
    assert [(tmp_path / row["image_url"]).read_bytes() for row in rows] == [PNG + b"cat", PNG + b"dog"]
    assert not unfinished.exists()


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"data": []}',
        b'{"data": [{}]}',
        b'{"data": [{"url": ""}]}',
        b'{"data": [{"b64_json": "%%%"}]}',
    ],
)
def test_an_answer_without_an_image_is_invalid(tmp_path: Path, body: bytes) -> None:
    """Asked once more, then told."""
    table = write_table(tmp_path / "in.csv", [["a cat"]])
    with Sandbox(misbehaviour=Misbehaviour(every=Scripted(200, body, JSON))) as sandbox:
        ended = draw(sandbox, table)

    (row,) = read_table(tmp_path / "out.csv")
    assert ended.code == 3
    assert (row["status"], row["error_type"], row["requests"]) == ("invalid", "bad_response", "2")


def small_files() -> Callable[[], None]:
    """Lets a process write no file beyond 256 KiB: what a full disk does to a large image."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 18, 1 << 18))


def test_an_image_that_finds_no_room_stops_the_run(tmp_path: Path) -> None:
    """Exit 4 `disk_full`; the row is pending, not failed, and the same command draws it."""
    write_table(tmp_path / "in.csv", [["small"], ["large"]])
    images = {"small": PNG + b"s", "large": PNG + os.urandom(1 << 19)}
    plan = Misbehaviour(by_prompt={prompt: in_bytes(image) for prompt, image in images.items()})
    with Sandbox(misbehaviour=plan) as sandbox:
        command = ("run", "in.csv", "-o", "out.csv", "--json", "--concurrency", 1, "--provider", "openai",
                   "--base-url", sandbox.openai_base_url, "--kind", "image", "--model", "i")  # fmt: skip
        full = run(tmp_path, *command, before=small_files())
        found = statuses(tmp_path / "out.csv")
        again = run(tmp_path, *command)

    assert (full.code, full.summary["exit_reason"]) == (4, "disk_full")
    assert "make room" in full.summary["message"]
    assert found == {"ok": 1, "pending": 1}
    assert again.code == 0
    assert [(tmp_path / row["image_url"]).read_bytes() for row in read_table(tmp_path / "out.csv")] == [
        *images.values()
    ]
    assert query(tmp_path / "out.csv.journal", "SELECT count(*) FROM requests") == [(3,)]


def test_the_stand_ins_pictures_are_real(table: Path) -> None:
    """`run --sandbox` with image bytes, by the command alone."""
    ended = call(
        "run",
        table,
        "--provider",
        "openai",
        "--sandbox",
        "--model",
        "dall-e-3",
        "--param",
        'response_format="b64_json"',
    )

    rows = read_table(table.with_name("in.sandbox.csv"))
    assert ended.code == 0
    assert all((table.parent / row["image_url"]).read_bytes().startswith(PNG) for row in rows)
    assert all(row["image_url"].startswith("in.sandbox.csv.images/") for row in rows)
