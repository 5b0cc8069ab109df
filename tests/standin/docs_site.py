"""The HTML documentation of Python (Debian's `python3-doc`) as a site on loopback."""

import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

PACKAGE = "python3-doc"


def docs_folder() -> Path | None:
    """Where the package's HTML lies, or None where it is not installed. Other packages' html folders are not it."""
    found = sorted(Path("/usr/share/doc").glob("python3.*/html/library/bisect.html"))
    return found[-1].parents[1].resolve() if found else None


def install_docs() -> Path | None:
    """The folder, after an attempt to install the package where it is missing and this may be done; None where it fails."""
    folder = docs_folder()
    if folder is None and shutil.which("apt-get") and Path("/").owner() == Path.home().owner() == "root":
        for command in (
            ["apt-get", "update"],
            ["apt-get", "install", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=120", PACKAGE],
        ):
            if subprocess.run(command, check=False, capture_output=True, timeout=300).returncode:
                return None
        folder = docs_folder()
    return folder


@asynccontextmanager
async def serve_docs(folder: Path) -> AsyncIterator[str]:
    """The address `http://127.0.0.1:PORT` of a server of the folder's files that ends with the block."""
    app = web.Application()
    app.router.add_static("/", folder)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
