"""A folder of documents becomes a snapshot, whatever lies in it."""

import asyncio

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
