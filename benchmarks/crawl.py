"""Pages per second of our crawler next to scrapy's, on Debian's python3-doc served over loopback HTTP.

    apt-get install -y python3-doc
    python benchmarks/crawl.py --rounds 5

Both crawl the same files from the same server (a process of its own that holds the files in memory), from the same root,
obey robots.txt, wait for nobody (no delay, no AutoThrottle), have the same number of requests under way, and write title,
text, links and date of each page. They run alternately, each run in a fresh process; the time is that of the crawl, without
the start of Python. Three scrapy spiders are measured: one calls our `extract` on each page; the others take links by
LinkExtractor, and title, text and date by XPath written for this site or by trafilatura. Ours writes more than
scrapy does: WARC records, compressed page store, and, counted in `with_index`, the search index.

Prints a table and writes benchmarks/out/crawl.json and crawl.md.
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

HOST = "127.0.0.1"
CONTENDERS = ("webdancer", "scrapy_our_extract", "scrapy_selectors", "scrapy_trafilatura")


def serve(folder: Path, port: int) -> None:
    """Serve all files of a folder from memory until killed."""
    from aiohttp import web

    types = {".html": "text/html", ".txt": "text/plain; charset=utf-8", ".css": "text/css", ".png": "image/png"}
    files = {
        "/" + path.relative_to(folder).as_posix(): (
            path.read_bytes(),
            types.get(path.suffix, "application/octet-stream"),
        )
        for path in folder.rglob("*")
        if path.is_file()
    }
    files["/"] = files["/index.html"]
    files["/robots.txt"] = (b"User-agent: *\nDisallow: /private/\n", "text/plain")

    async def answer(request: web.BaseRequest) -> web.Response:
        body, kind = files.get(request.path, (b"not found", ""))
        return web.Response(body=body, status=200 if kind else 404, headers={"Content-Type": kind or "text/plain"})

    async def main() -> None:
        runner = web.ServerRunner(web.Server(answer))  # type: ignore[arg-type]
        await runner.setup()
        await web.TCPSite(runner, HOST, port).start()
        print("ready", flush=True)
        await asyncio.Event().wait()

    asyncio.run(main())


def run_webdancer(root: str, out: Path, concurrency: int) -> dict[str, float]:
    """One crawl with ours."""
    from webdancer.config import CrawlSettings
    from webdancer.web.crawl import crawl

    settings = CrawlSettings(urls=(root,), max_per_host=concurrency, max_depth=100, max_pages=100_000)
    start = time.perf_counter()
    counts = asyncio.run(crawl(settings, out))
    return {
        "pages": counts.num_pages + counts.num_duplicates,
        "seconds": counts.seconds,
        "seconds_with_index": time.perf_counter() - start,
    }


def fields_by_extract(response):  # type: ignore[no-untyped-def]
    """Title, text, links, date by our own extraction."""
    from webdancer.web.extract import extract

    page = extract(response.body, url=response.url, content_type=response.headers.get("Content-Type", b"").decode())
    return page.title, page.text, list(page.links), str(page.published or "")


def fields_by_selectors(response):  # type: ignore[no-untyped-def]
    """Title, text, links, date by scrapy's own means, knowing the site's markup."""
    texts = response.xpath("//div[@role='main']//text()[not(parent::script or parent::style)]").getall()
    date = response.xpath("//div[@class='footer']/text()").re_first(r"Last updated on (\w+ \d+, \d+)")
    return response.css("title::text").get(""), "".join(texts), links_by_scrapy(response), date or ""


def fields_by_trafilatura(response):  # type: ignore[no-untyped-def]
    """Title, text, date by trafilatura, links by scrapy."""
    import trafilatura

    links = links_by_scrapy(response)
    read = trafilatura.bare_extraction(response.text, url=response.url, fast=True, include_tables=True)
    return (read.title, read.text, links, str(read.date or "")) if read else ("", "", links, "")


@lru_cache
def _link_extractor(netloc: str):  # type: ignore[no-untyped-def]
    from scrapy.linkextractors import LinkExtractor

    return LinkExtractor(allow_domains=[netloc])


def links_by_scrapy(response):  # type: ignore[no-untyped-def]
    """Links within the site, each address once. (Canonicalising them would take scrapy longer.)"""
    found = _link_extractor(response.url.split("/")[2]).extract_links(response)
    return list(dict.fromkeys(link.url.partition("#")[0] for link in found if not link.nofollow))


FIELDS = {
    "scrapy_our_extract": fields_by_extract,
    "scrapy_selectors": fields_by_selectors,
    "scrapy_trafilatura": fields_by_trafilatura,
}


def run_scrapy(root: str, out: Path, concurrency: int, contender: str) -> dict[str, float]:
    """One crawl with scrapy, tuned: no log, no cookies, no telnet, and links met before are not made requests at all."""
    import scrapy
    import trafilatura  # noqa: F401 (imported before the clock starts)
    from scrapy.crawler import CrawlerProcess

    from webdancer.web.extract import extract  # noqa: F401 (likewise)

    fields = FIELDS[contender]
    begun_s = time.perf_counter()

    class Spider(scrapy.Spider):
        name = "docs"
        seen: set[str] = {root}  # noqa: RUF012
        last_s = begun_s

        async def start(self):  # type: ignore[no-untyped-def]
            yield scrapy.Request(root)

        def parse(self, response):  # type: ignore[no-untyped-def]
            if not isinstance(response, scrapy.http.HtmlResponse):
                return
            title, text, links, date = fields(response)
            Spider.last_s = time.perf_counter()
            yield {"url": response.url, "title": title, "text": text, "links": links, "date": date}
            for link in links:
                if link not in self.seen and link.startswith(root):
                    self.seen.add(link)
                    yield scrapy.Request(link)

    pages = out.with_suffix(".jsonl")
    process = CrawlerProcess(
        {
            "ROBOTSTXT_OBEY": True,
            "AUTOTHROTTLE_ENABLED": False,
            "DOWNLOAD_DELAY": 0,
            "CONCURRENT_REQUESTS": concurrency,
            "CONCURRENT_REQUESTS_PER_DOMAIN": concurrency,
            "COOKIES_ENABLED": False,
            "TELNETCONSOLE_ENABLED": False,
            "LOG_ENABLED": False,
            "FEEDS": {str(pages): {"format": "jsonlines"}},
        }
    )
    process.crawl(Spider)
    process.start()
    with pages.open(encoding="utf-8") as lines:
        return {"pages": sum(1 for _ in lines), "seconds": Spider.last_s - begun_s}


def run_alone(contender: str, root: str, concurrency: int) -> dict[str, float]:
    """One run in a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--run", contender, "--root", root, "--out", f"{folder}/out"]
        done = subprocess.run([*command, "--concurrency", str(concurrency)], check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def compare(folder: Path, rounds: int, concurrency: int) -> dict[str, list[dict[str, float]]]:
    """Run the contenders alternately."""
    port = 18_765
    server = subprocess.Popen(
        [sys.executable, __file__, "--serve", str(folder), "--port", str(port)], stdout=subprocess.PIPE, text=True
    )
    results: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
    try:
        assert server.stdout is not None
        assert server.stdout.readline().strip() == "ready"
        for number in range(rounds):
            for name in CONTENDERS:
                result = run_alone(name, f"http://{HOST}:{port}/", concurrency)
                results[name].append(result)
                rate = result["pages"] / result["seconds"]
                print(f"round {number + 1}  {name:18}  {result['pages']:4.0f} pages  {rate:7.1f} pages/s", flush=True)
    finally:
        server.terminate()
        server.wait()
    return results


def summarise(results: dict[str, list[dict[str, float]]], concurrency: int) -> dict[str, object]:
    """Medians and ratios."""
    rates = {name: [run["pages"] / run["seconds"] for run in runs] for name, runs in results.items()}
    rates["webdancer_with_index"] = [run["pages"] / run["seconds_with_index"] for run in results["webdancer"]]
    medians = {name: round(statistics.median(values), 1) for name, values in rates.items()}
    return {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "versions": {name: version(name) for name in ("scrapy", "trafilatura", "aiohttp", "selectolax")},
        "concurrency": concurrency,
        "pages": {name: runs[0]["pages"] for name, runs in results.items()},
        "pages_per_s": {name: [round(value, 1) for value in values] for name, values in rates.items()},
        "median_pages_per_s": medians,
        "median_ratio_within_a_round": {
            name: round(statistics.median(a / b for a, b in zip(rates["webdancer"], rates[name], strict=True)), 2)
            for name in CONTENDERS
            if name != "webdancer"
        },
    }


def docs_folder() -> Path:
    """Where python3-doc's HTML lies."""
    found = sorted(Path("/usr/share/doc").glob("python3.*/html/index.html"))
    if not found:
        sys.exit("python3-doc is not installed: apt-get install -y python3-doc, or name a folder with --folder")
    return found[-1].parent.resolve()


def main() -> None:
    """Parse the command line; the parent runs itself again as server and as each contender."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="HTML files to serve (default: python3-doc's)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--run", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--root", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(args.serve, args.port)
    elif args.run == "webdancer":
        print(json.dumps(run_webdancer(args.root, args.out, args.concurrency)))
    elif args.run:
        print(json.dumps(run_scrapy(args.root, args.out, args.concurrency, args.run)))
    else:
        summary = summarise(compare(args.folder or docs_folder(), args.rounds, args.concurrency), args.concurrency)
        out = Path(__file__).parent / "out"
        out.mkdir(exist_ok=True)
        (out / "crawl.json").write_text(json.dumps(summary, indent=2) + "\n")
        rows = [f"| {name} | {rate} |" for name, rate in summary["median_pages_per_s"].items()]  # type: ignore[attr-defined]
        table = "\n".join(["| crawler | pages/s (median) |", "|---|---|", *rows])
        (out / "crawl.md").write_text(
            f"{summary['machine']}\n\n{table}\n\nratios: {summary['median_ratio_within_a_round']}\n"
        )
        print(json.dumps(summary, indent=2))


if __name__ == "__main__":
    main()
