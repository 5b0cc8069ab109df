"""The snapshot folder: what is written, what survives a kill, what is found again."""

import gzip
import hashlib
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from fastwarc.warc import ArchiveIterator, WarcRecordType

from webdancer.errors import SnapshotError
from webdancer.records import Page
from webdancer.web.snapshot import Snapshot, SnapshotWriter

HTML = [("Content-Type", "text/html; charset=utf-8")]


def page(name: str, text: str = "", *, title: str = "", published: date | None = None) -> Page:
    url = f"http://s.example/{name}"
    return Page(
        url=url,
        title=title or name,
        text=text or f"text of {name}",
        links=("http://s.example/a", "http://s.example/b"),
        published=published,
        fetched_at=datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC),
        content_hash=hashlib.sha256(url.encode()).hexdigest(),
    )


def put(writer: SnapshotWriter, one: Page) -> bool:
    return writer.add(one, status=200, headers=HTML, body=f"<p>{one.text}</p>".encode())


def warc_files(path: Path) -> list[Path]:
    return sorted((path / "warc").iterdir())


def test_pages_come_back_as_they_were(tmp_path: Path) -> None:
    pages = [page("b", published=date(2020, 1, 2)), page("a", "Zeile\n- Käse | 3\n北京")]
    with SnapshotWriter(tmp_path) as writer:
        assert [put(writer, one) for one in pages] == [True, True]
        assert len(writer) == 2
    with Snapshot.open(tmp_path) as snapshot:
        assert len(snapshot) == 2
        assert snapshot.urls() == ["http://s.example/a", "http://s.example/b"]
        assert [snapshot.page(one.url) for one in pages] == pages
        assert snapshot.page("http://s.example/c") is None
        assert snapshot.page("no url") is None


def test_a_url_is_added_once(tmp_path: Path) -> None:
    with SnapshotWriter(tmp_path) as writer:
        assert put(writer, page("a", "first"))
        assert not put(writer, page("a", "second"))
    with Snapshot.open(tmp_path) as snapshot:
        found = snapshot.page("http://s.example/a")
        assert found is not None
        assert found.text == "first"
    records = [record.record_type for record in ArchiveIterator(str(warc_files(tmp_path)[0]))]
    assert records == [WarcRecordType.warcinfo, WarcRecordType.response]


def test_aliases_and_spellings_resolve(tmp_path: Path) -> None:
    with SnapshotWriter(tmp_path) as writer:
        put(writer, page("a"))
        writer.add_alias("http://s.example/old", "http://s.example/a")
        writer.add_alias("http://s.example/older", "http://s.example/old")
        writer.add_alias("http://s.example/round", "http://s.example/about")
        writer.add_alias("http://s.example/about", "http://s.example/round")
    with Snapshot.open(tmp_path) as snapshot:
        for name in ("a", "a#part", "old", "older", "./older?utm_source=x"):
            found = snapshot.page(f"HTTP://S.example:80/{name}")
            assert found is not None, name
            assert found.url == "http://s.example/a"
        assert snapshot.page("http://s.example/round") is None
        assert len(snapshot) == 1
        assert snapshot.urls() == ["http://s.example/a"]
        assert len(snapshot.search("text")) == 1


def test_warcio_accepts_the_files(tmp_path: Path) -> None:
    with SnapshotWriter(tmp_path) as writer:
        writer.add(
            page("zipped"),
            status=200,
            headers=[*HTML, ("Content-Encoding", "gzip"), ("Transfer-Encoding", "chunked"), ("X-Odd", "a\r\n b")],
            body=gzip.compress(b"<p>compressed</p>"),
        )
        writer.add(page("latin"), status=299, headers=[("Content-Type", "text/html")], body=b"<p>caf\xe9</p>" * 500)
        writer.add(page("empty"), status=200, headers=[("content-length", "77")], body=b"")
    (file,) = warc_files(tmp_path)
    check = subprocess.run([sys.executable, "-m", "warcio.cli", "check", "-v", file], capture_output=True, text=True)
    assert check.returncode == 0, check.stdout
    assert check.stdout.count("digest pass") == 4
    responses = {
        record.headers.get("WARC-Target-URI"): (record.http_headers, record.reader.read())
        for record in ArchiveIterator(str(file), auto_decode="content", record_types=WarcRecordType.response)
    }
    headers, body = responses["http://s.example/zipped"]
    assert body == b"<p>compressed</p>"
    assert "Transfer-Encoding" not in headers.asdict()
    assert headers.get("X-Odd") == "a b"
    headers, body = responses["http://s.example/latin"]
    assert (headers.status_code, headers.get("Content-Length"), len(body)) == (299, "5500", 5500)
    assert responses["http://s.example/empty"][0].get_multiple("Content-Length") == ("0",)


def test_the_order_of_the_crawl_changes_nothing(tmp_path: Path) -> None:
    rng = random.Random(4)
    words = [f"word{number}" for number in range(30)]
    pages = [page(f"p{number:03}", " ".join(rng.choices(words, k=12))) for number in range(200)]
    found = []
    for turn in range(2):
        rng.shuffle(pages)
        with SnapshotWriter(tmp_path / str(turn)) as writer:
            for one in pages:
                put(writer, one)
        with Snapshot.open(tmp_path / str(turn)) as snapshot:
            found.append([snapshot.urls(), *(snapshot.search(f"{word} word3", num_results=7) for word in words)])
    assert found[0] == found[1]


def test_equal_scores_stand_in_the_order_of_their_urls(tmp_path: Path) -> None:
    with SnapshotWriter(tmp_path) as writer:
        for name in "dbacfe":
            put(writer, page(name, "the same words", title="same"))
    with Snapshot.open(tmp_path) as snapshot:
        assert [hit.url[-1] for hit in snapshot.search("same words", num_results=4)] == ["a", "b", "c", "d"]


def test_an_unfinished_folder_is_refused_and_resumed(tmp_path: Path) -> None:
    writer = SnapshotWriter(tmp_path)
    put(writer, page("a"))
    with pytest.raises(SnapshotError, match="unfinished"):
        Snapshot.open(tmp_path)
    writer.suspend()
    with SnapshotWriter(tmp_path) as again:
        assert "http://s.example/a" in again
        assert not put(again, page("a"))
        assert put(again, page("b"))
    with Snapshot.open(tmp_path) as snapshot:
        assert len(snapshot) == 2
        assert len(snapshot.search("text")) == 2


def test_a_finished_snapshot_can_grow(tmp_path: Path) -> None:
    with SnapshotWriter(tmp_path) as writer:
        put(writer, page("a", "whale"))
    with SnapshotWriter(tmp_path) as writer:
        assert not put(writer, page("a", "other"))
    with Snapshot.open(tmp_path) as snapshot:
        assert len(snapshot) == 1
    with SnapshotWriter(tmp_path) as writer:
        put(writer, page("b", "whale"))
        with pytest.raises(SnapshotError, match="unfinished"):
            Snapshot.open(tmp_path)
    with Snapshot.open(tmp_path) as snapshot:
        assert [hit.url[-1] for hit in snapshot.search("whale")] == ["a", "b"]


def test_leaving_by_an_exception_suspends(tmp_path: Path) -> None:
    def interrupted() -> None:
        with SnapshotWriter(tmp_path) as writer:
            put(writer, page("a"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not (tmp_path / "snapshot.json").exists()
    with SnapshotWriter(tmp_path) as writer:
        assert len(writer) == 1


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    with SnapshotWriter(tmp_path), pytest.raises(SnapshotError, match="another process is writing"):
        SnapshotWriter(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no snapshot here"), ("{", "not valid JSON"), ('{"version": 99}', "version 99, expected 1")],
)
def test_what_is_no_snapshot_is_named(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "snapshot.json").write_text(content)
    with pytest.raises(SnapshotError, match=message):
        Snapshot.open(tmp_path)


def test_a_lost_index_is_named(tmp_path: Path) -> None:
    with SnapshotWriter(tmp_path) as writer:
        put(writer, page("a"))
    for file in (tmp_path / "index").iterdir():
        file.unlink()
    with pytest.raises(SnapshotError, match="damaged"):
        Snapshot.open(tmp_path)


def test_a_cut_warc_file_is_named(tmp_path: Path) -> None:
    with SnapshotWriter(tmp_path) as writer:
        put(writer, page("a"))
    (file,) = warc_files(tmp_path)
    os.truncate(file, 100)
    with pytest.raises(SnapshotError, match="got 100 bytes, expected"):
        SnapshotWriter(tmp_path)


def test_a_torn_warc_tail_is_cut_to_whole_records(tmp_path: Path) -> None:
    writer = SnapshotWriter(tmp_path)
    put(writer, page("a"))
    writer.suspend()
    (file,) = warc_files(tmp_path)
    size = file.stat().st_size
    with file.open("ab") as out:
        out.write(gzip.compress(b"WARC/1.1 torn")[:15])
    with SnapshotWriter(tmp_path) as again:
        assert file.stat().st_size == size
        put(again, page("b"))
    records = [record.headers.get("WARC-Target-URI") for record in ArchiveIterator(str(file))]
    assert records == [None, "http://s.example/a", "http://s.example/b"]


def _write_for_ever(path: Path) -> None:
    writer = SnapshotWriter(path)
    number = len(writer)
    while True:
        put(writer, page(f"n{number:06}", "kept " * 50))
        number += 1
        if number % 20 == 0:
            writer.flush()
            with (path.parent / "flushed").open("a") as log:
                log.write(f"{number}\n")


def test_kill_9_loses_nothing_that_was_flushed(tmp_path: Path) -> None:
    path = tmp_path / "snap"
    spawn = multiprocessing.get_context("spawn")
    for _ in range(3):
        process = spawn.Process(target=_write_for_ever, args=(path,))
        (tmp_path / "flushed").unlink(missing_ok=True)
        process.start()
        deadline = time.monotonic() + 30
        while not (tmp_path / "flushed").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(random.random() * 0.2)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        flushed = int((tmp_path / "flushed").read_text().rpartition("\n")[0].split("\n")[-1])
        with SnapshotWriter(path) as writer:
            assert len(writer) >= flushed > 0
    with Snapshot.open(path) as snapshot:
        urls = snapshot.urls()
    assert urls == [f"http://s.example/n{number:06}" for number in range(len(urls))]
    stored = [
        record.headers.get("WARC-Target-URI")
        for file in warc_files(path)
        for record in ArchiveIterator(str(file), verify_digests=True, record_types=WarcRecordType.response)
    ]
    assert stored == urls


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(SnapshotError, match=r"file: cannot be written: File exists; choose another folder"):
        SnapshotWriter(tmp_path / "file")
