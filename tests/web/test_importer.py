"""WARC files that other programs wrote."""

import gzip
import shutil
import subprocess
import sys
import threading
import uuid
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from webdancer.errors import SnapshotError
from webdancer.web.importer import index_warcs
from webdancer.web.snapshot import Snapshot, SnapshotWriter

_SITE = {
    "/": b"<title>Home</title><main><h1>Home</h1><p>Lighthouses of the north.</p><a href='/a.html'>a</a>"
    b"<a href='/copy.html'>copy</a><a href='/gone.html'>gone</a><a href='/old'>old</a><a href='/pic.png'>pic</a>"
    b"<a href='/zipped.html'>z</a><a href='/chunked.html'>c</a></main>",
    "/a.html": b"<title>A</title><main><h1>Beacon</h1><p>The beacon was lit in 1899.</p></main>",
    "/copy.html": b"<title>A</title><main><h1>Beacon</h1><p>The beacon was lit in 1899.</p></main>",
    "/zipped.html": b"<title>Z</title><main><h1>Zipped</h1><p>A compressed keeper.</p></main>",
    "/chunked.html": b"<title>C</title><main><h1>Chunked</h1><p>A keeper in pieces.</p></main>",
}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/old":
            self._send(301, b"", ("Location", "/a.html"))
        elif self.path == "/pic.png":
            self._send(200, b"\x89PNG", ("Content-Type", "image/png"))
        elif self.path not in _SITE:
            self._send(404, b"<p>gone</p>", ("Content-Type", "text/html"))
        elif self.path == "/zipped.html":
            body = gzip.compress(_SITE[self.path])
            self._send(200, body, ("Content-Type", "text/html"), ("Content-Encoding", "gzip"))
        elif self.path == "/chunked.html":
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(_chunked(_SITE[self.path]))
        else:
            self._send(200, _SITE[self.path], ("Content-Type", "text/html; charset=utf-8"))

    def _send(self, status: int, body: bytes, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def _chunked(body: bytes) -> bytes:
    half = len(body) // 2
    pieces = (body[:half], body[half:], b"")
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.skipif(shutil.which("wget") is None, reason="needs wget")
@pytest.mark.parametrize("compressed", [True, False])
def test_what_wget_mirrored(site: str, tmp_path: Path, compressed: bool) -> None:
    flags = [] if compressed else ["--no-warc-compression"]
    subprocess.run(
        ["wget", "-q", "-r", "-e", "robots=off", "--compression=gzip", "--warc-file=w", *flags, f"{site}/"],
        cwd=tmp_path,
        check=False,  # 8, because of the page that is not there
        timeout=30,
    )
    warc = tmp_path / ("w.warc.gz" if compressed else "w.warc")
    counts = index_warcs([warc], tmp_path / "snap")
    # pages: /, a or its copy, zipped, chunked
    assert (counts.num_pages, counts.num_same_content, counts.num_redirects) == (4, 1, 1)
    assert (counts.num_errors, counts.num_other_types, counts.num_damaged) == (1, 1, 0)
    with Snapshot.open(tmp_path / "snap") as snapshot:
        assert len(snapshot) == 4
        beacon = snapshot.page(f"{site}/old")
        assert beacon is not None
        assert beacon.text == "# Beacon\nThe beacon was lit in 1899."
        assert snapshot.page(f"{site}/copy.html") == snapshot.page(f"{site}/a.html") == beacon
        assert [hit.url for hit in snapshot.search("compressed keeper")] == [
            f"{site}/zipped.html",
            f"{site}/chunked.html",
        ]
    check = subprocess.run(
        [sys.executable, "-m", "warcio.cli", "check", *(tmp_path / "snap" / "warc").iterdir()], capture_output=True
    )
    assert (check.returncode, check.stdout) == (0, b"")


def _record(kind: str, url: str, block: bytes, *more: tuple[str, str]) -> bytes:
    """One WARC record as one gzip member, spelt out by hand."""
    headers = [
        ("WARC-Type", kind),
        ("WARC-Record-ID", f"<urn:uuid:{uuid.uuid4()}>"),
        ("WARC-Date", "2024-03-05T06:07:08Z"),
        ("WARC-Target-URI", url),
        ("Content-Type", f"application/http; msgtype={'request' if kind == 'request' else 'response'}"),
        *more,
        ("Content-Length", str(len(block))),
    ]
    head = "WARC/1.0\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers)
    return gzip.compress(head.encode() + b"\r\n" + block + b"\r\n\r\n")


def _http(status: str, headers: list[tuple[str, str]], body: bytes) -> bytes:
    head = f"HTTP/1.1 {status}\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers)
    return head.encode() + b"\r\n" + body


def _common_crawl(file: Path, responses: list[tuple[str, str, list[tuple[str, str]], bytes]]) -> None:
    """Request, response and metadata records per page, as Common Crawl has them."""
    with file.open("wb") as out:
        for url, status, headers, body in responses:
            out.write(_record("request", url, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
            out.write(
                _record("response", url, _http(status, headers, body), ("WARC-Identified-Payload-Type", "text/html"))
            )
            out.write(_record("metadata", url, b"fetchTimeMs: 5\r\n"))


def _page(words: str) -> bytes:
    return f"<html><head><title>T</title></head><body><main><h1>T</h1><p>{words}</p></main></body></html>".encode()


def test_common_crawls_layout(tmp_path: Path) -> None:
    html = ("Content-Type", "text/html")
    one, two, three, four = (_page(f"{word} tower on the cape") for word in ("first", "second", "third", "fourth"))
    bare_deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    _common_crawl(
        tmp_path / "cc.warc.gz",
        [
            ("https://Cape.example/one#top", "200 OK", [html, ("X-Crawl-Content-Encoding", "gzip")], one),
            ("https://cape.example/two", "200 OK", [html, ("Content-Encoding", "gzip")], two),  # decoded, header left
            ("https://cape.example/three", "200 OK", [html, ("Content-Encoding", "gzip")], gzip.compress(three)),
            (
                "https://cape.example/four",
                "200 OK",
                [html, ("Content-Encoding", "deflate")],
                bare_deflate.compress(four) + bare_deflate.flush(),
            ),
            ("https://cape.example/one", "200 OK", [html], _page("again")),
            ("https://cape.example/moved", "302 Found", [("Location", "one")], b""),
            ("https://cape.example/x.zip", "200 OK", [("Content-Type", "application/zip")], b"PK"),
            ("https://cape.example/empty", "200 OK", [html], b"<html></html>"),
        ],
    )
    counts = index_warcs([tmp_path / "cc.warc.gz"], tmp_path / "snap")
    assert counts.num_records == 8
    assert (counts.num_pages, counts.num_already_in, counts.num_redirects) == (4, 1, 1)
    assert (counts.num_other_types, counts.num_without_text, counts.num_damaged) == (1, 1, 0)
    with Snapshot.open(tmp_path / "snap") as snapshot:
        assert snapshot.urls() == [f"https://cape.example/{name}" for name in ("four", "one", "three", "two")]
        for name, word in (("one", "first"), ("two", "second"), ("three", "third"), ("four", "fourth")):
            page = snapshot.page(f"https://cape.example/{name}")
            assert page is not None
            assert page.text == f"# T\n{word} tower on the cape"
            assert page.fetched_at.isoformat() == "2024-03-05T06:07:08+00:00"
        assert snapshot.page("https://cape.example/moved") == snapshot.page("https://cape.example/one")


def test_a_revisit_record_is_an_alias(tmp_path: Path) -> None:
    http = _http("200 OK", [("Content-Type", "text/html")], _page("tide"))
    head = _http("200 OK", [("Content-Type", "text/html")], b"")
    refers = ("WARC-Refers-To-Target-URI", "http://r.example/first")
    (tmp_path / "r.warc.gz").write_bytes(
        _record("response", "http://r.example/first", http)
        + _record("revisit", "http://r.example/second", head, refers)
    )
    counts = index_warcs([tmp_path / "r.warc.gz"], tmp_path / "snap")
    assert (counts.num_pages, counts.num_same_content) == (1, 1)
    with Snapshot.open(tmp_path / "snap") as snapshot:
        assert snapshot.page("http://r.example/second") == snapshot.page("http://r.example/first") is not None


def test_a_cut_file_gives_what_is_whole(tmp_path: Path) -> None:
    records = [
        _record("response", f"http://c.example/{n}", _http("200 OK", [("Content-Type", "text/html")], _page(f"no {n}")))
        for n in range(4)
    ]
    (tmp_path / "cut.warc.gz").write_bytes(b"".join(records[:3])[:-60])
    counts = index_warcs([tmp_path / "cut.warc.gz"], tmp_path / "snap")
    assert (counts.num_records, counts.num_pages, counts.num_damaged) == (3, 2, 1)
    # the whole file adds the rest
    (tmp_path / "whole.warc.gz").write_bytes(b"".join(records))
    counts = index_warcs([tmp_path / "whole.warc.gz"], tmp_path / "snap")
    assert (counts.num_pages, counts.num_already_in, counts.num_damaged) == (2, 2, 0)
    with Snapshot.open(tmp_path / "snap") as snapshot:
        assert snapshot.urls() == [f"http://c.example/{n}" for n in range(4)]


def test_what_is_no_warc_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.warc.gz").write_bytes(gzip.compress(b"no records here"))
    with pytest.raises(SnapshotError, match=r"x\.warc\.gz: not a readable WARC file"):
        index_warcs([tmp_path / "x.warc.gz"], tmp_path / "snap")
    with pytest.raises(SnapshotError, match="no such file"):
        index_warcs([tmp_path / "missing.warc.gz"], tmp_path / "snap2")
    assert not (tmp_path / "snap2").exists()


def test_importing_again_makes_no_page_of_a_duplicate(tmp_path: Path) -> None:
    """After a kill the same command runs again: equal pages stay aliases of the one that is in already."""
    http = _http("200 OK", [("Content-Type", "text/html")], _page("tide"))
    records = [_record("response", f"http://d.example/{n}", http) for n in range(2)]
    (tmp_path / "d.warc.gz").write_bytes(b"".join(records))
    for num_new in (1, 0):
        counts = index_warcs([tmp_path / "d.warc.gz"], tmp_path / "snap")
        assert (counts.num_pages, counts.num_already_in, counts.num_same_content) == (num_new, 1 - num_new, 1)
    with Snapshot.open(tmp_path / "snap") as snapshot:
        assert snapshot.urls() == ["http://d.example/0"]


def test_equal_pages_without_text_are_counted_as_such(tmp_path: Path) -> None:
    http = _http("200 OK", [("Content-Type", "text/html")], b"<html><body></body></html>")
    records = [_record("response", f"http://e.example/{n}", http) for n in range(2)]
    (tmp_path / "e.warc.gz").write_bytes(b"".join(records))
    counts = index_warcs([tmp_path / "e.warc.gz"], tmp_path / "snap")
    assert (counts.num_without_text, counts.num_same_content) == (2, 0)


def test_files_of_the_user_in_the_snapshot_are_not_removed(tmp_path: Path) -> None:
    """`wget --warc-file=SNAPSHOT/warc/mine` once lost its file to the next command."""
    http = _http("200 OK", [("Content-Type", "text/html")], _page("tide"))
    (tmp_path / "warc").mkdir()
    mine = tmp_path / "warc" / "mine.warc.gz"
    mine.write_bytes(_record("response", "http://f.example/", http))
    with pytest.raises(SnapshotError, match="choose another --out"):
        index_warcs([mine], tmp_path)
    SnapshotWriter(tmp_path).close()
    assert mine.exists()
