"""`python -m tests.standin`: serve the stand-in until Ctrl-C."""

import argparse
import asyncio
import contextlib
import json
from dataclasses import fields

from webdancer.serve.openai_api import serve

from .agent import Slips
from .server import Troubles, make_app


def main() -> None:
    """Options are the fields of `Troubles` and `Slips`; the first line of output is `{"port": …}`."""
    parser = argparse.ArgumentParser(prog="python -m tests.standin", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    for field in (*fields(Troubles), *fields(Slips)):
        kind = int if field.name == "seed" else float
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=kind, default=field.default)
    args = vars(parser.parse_args())
    app = make_app(
        Troubles(**{field.name: args[field.name] for field in fields(Troubles)}),
        Slips(**{field.name: args[field.name] for field in fields(Slips)}),
    )

    def tell(port: int) -> None:
        print(json.dumps({"port": port}), flush=True)

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(app, args["host"], args["port"], tell))


main()
