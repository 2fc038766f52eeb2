"""Starts what needs the whole service in its process: `python -m service.start serve | api | migrate`.

The command line replaces itself with this process, so that it stays light itself. Exits with 2 when the settings or
the port are no good.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence

from pydantic import ValidationError

from service.migrate import upgrade
from service.serve import CannotServe, serve, serve_api
from service.settings import Settings


def migrate(settings: Settings) -> None:
    upgrade(settings)
    print(f"database is up to date: {settings.database_url or settings.data_dir}")


STARTERS: Mapping[str, Callable[[Settings], None]] = {"serve": serve, "api": serve_api, "migrate": migrate}


def main(arguments: Sequence[str] | None = None) -> int:
    what = (sys.argv[1:] if arguments is None else list(arguments))[:1]
    if not what or what[0] not in STARTERS:
        print(f"{what}: give one of {', '.join(STARTERS)}", file=sys.stderr)
        return 2
    try:
        STARTERS[what[0]](Settings())
    except ValidationError as error:
        for problem in error.errors():
            name = "_".join(str(part) for part in problem["loc"]).upper()
            print(f"BANTAM_{name}={problem['input']!r}: {problem['msg']}", file=sys.stderr)
        return 2
    except CannotServe as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
