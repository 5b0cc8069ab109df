"""A folder of documents becomes a snapshot, whatever lies in it."""

import asyncio
import os
from pathlib import Path

import pytest

from webdancer.errors import SnapshotError
from webdancer.web.folder import index_folder
from webdancer.web.snapshot import Snapshot

LONG = "The bridge over the Sarn was opened in 1931 and is one of three works of the engineer. "


def write(root, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@pytest.fixture
def documents(tmp_path):
    root = tmp_path / "My Docs"
    write(
        root, "index.html", f'<html><title>Home</title><body><p>{LONG}</p><a href="sub/two.html">two</a></body></html>'
    )
    write(root, "sub/two.html", f"<html><title>Two</title><body><p>{LONG}Second page.</p></body></html>")
    write(root, "notes.md", f"# Notes\n\n{LONG}\n")
    write(root, "中文 页.txt", "这座桥于一九三一年建成，由蒂尔达设计，全长三百米。" * 5)
    write(
        root, "copy.html", f'<html><title>Home</title><body><p>{LONG}</p><a href="sub/two.html">two</a></body></html>'
    )
    write(root, ".git/config.txt", LONG)
    write(root, "style.css", "body {}")
    write(root, "empty.html", "<html></html>")
    (root / "outside.txt").symlink_to(tmp_path / "secret.txt")
    write(tmp_path, "secret.txt", LONG)
    return root


def test_documents_become_pages_and_everything_else_is_counted(documents, tmp_path):
    counts = asyncio.run(index_folder(documents, tmp_path / "snap"))
    assert counts.num_pages == 4
    assert counts.num_left_out == {
        "hidden_or_outside": 2,
        "type text/css": 1,
        "without_text": 1,
        "same_content": 1,
    }
    with Snapshot.open(tmp_path / "snap") as snapshot:
        assert sorted(snapshot.urls()) == [
            "http://my-docs/%E4%B8%AD%E6%96%87%20%E9%A1%B5.txt",
            "http://my-docs/copy.html",
            "http://my-docs/notes.md",
            "http://my-docs/sub/two.html",
        ]
        page = snapshot.page("http://my-docs/index.html")  # the same content, under the path that comes first
        assert page is not None
        assert (page.title, page.links) == ("Home", ("http://my-docs/sub/two.html",))
        assert [hit.url for hit in snapshot.search("蒂尔达设计")][:1] == [
            "http://my-docs/%E4%B8%AD%E6%96%87%20%E9%A1%B5.txt"
        ]


def test_an_import_that_was_stopped_goes_on(documents, tmp_path):
    first = asyncio.run(index_folder(documents, tmp_path / "snap", max_pages=2))
    assert first.num_pages == 2
    assert asyncio.run(index_folder(documents, tmp_path / "snap")).num_pages == 4


def test_a_folder_without_documents_is_an_error(tmp_path):
    write(tmp_path / "docs", "a.css", "x")
    with pytest.raises(SnapshotError, match="none of its files became a page"):
        asyncio.run(index_folder(tmp_path / "docs", tmp_path / "snap"))
    with pytest.raises(SnapshotError, match="no such folder"):
        asyncio.run(index_folder(tmp_path / "nowhere", tmp_path / "snap2"))


def index(folder, out, **options):
    return asyncio.run(index_folder(folder, out, **options))


def test_a_file_that_cannot_be_read_is_counted_and_not_the_end(documents, tmp_path, monkeypatch):
    write(documents, "locked.txt", LONG + "locked")
    (documents / "locked.txt").chmod(0)
    read_bytes = Path.read_bytes

    def refused(path):  # as for a user who is not root
        if path.name == "locked.txt":
            raise PermissionError(13, "Permission denied")
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", refused)
    assert index(documents, tmp_path / "out").num_left_out["unreadable"] == 1


def test_a_name_that_is_no_unicode_has_an_address(tmp_path):
    root = tmp_path / "docs"
    root.mkdir()
    Path(os.fsdecode(os.fsencode(root) + b"/caf\xe9.html")).write_text(f"<html><body><p>{LONG}</p></body></html>")
    assert index(root, tmp_path / "out").num_pages == 1
    with Snapshot.open(tmp_path / "out") as pages:
        assert pages.urls() == ["http://docs/caf%E9.html"]
        assert [page.title for url in pages.urls() if (page := pages.page(url))] == ["caf\ufffd"]


def test_a_copy_of_a_document_without_text_is_none_of_a_page(tmp_path):
    root = tmp_path / "docs"
    write(root, "a.html", "<html></html>")
    write(root, "b.html", "<html></html>")
    write(root, "c.txt", LONG)
    found = index(root, tmp_path / "out")
    assert (found.num_pages, found.num_left_out) == (1, {"without_text": 2})


def test_fewer_pages_than_are_there_already_adds_none(documents, tmp_path):
    num_pages = index(documents, tmp_path / "out").num_pages
    assert index(documents, tmp_path / "out", max_pages=1).num_pages == num_pages > 1
