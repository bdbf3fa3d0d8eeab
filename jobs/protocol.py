"""How a job talks: one JSON object a line on standard output, everything else on standard error.

Any number of `{"progress": 0.42, "what": "lstm"}`, at last one `{"result": {...}}` or `{"error": "..."}`.
Exit status 0, 1 (failed), 2 (wrong usage), 130 (stopped by Ctrl-C or SIGTERM).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any, NoReturn, TextIO

from cluster import logs, settings
from cluster.errors import FinSightError
from cluster.redaction import redact
from cluster.settings import Settings

STOPPED = 130

Progress = Callable[[float, str], None]
"""Called with the share of the job that is done (0..1) and what it does."""

Work = Callable[[argparse.Namespace, Settings, Progress], Mapping[str, Any]]


def run(options: argparse.Namespace, work: Work) -> NoReturn:
    """Do the work, print its result, exit. To be called from the main thread.

    Nothing runs after it, `atexit` neither: the work closes what it has opened.
    """
    stop_on_sigterm()
    out = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):  # whatever a library prints is talk
        status = _attempt(options, work, out)
    logging.shutdown()
    sys.stderr.flush()
    os._exit(status)  # `out` is flushed; taking torch and mlflow apart would cost a second or two


def stop_on_sigterm() -> None:
    """Have SIGTERM end the work as Ctrl-C does; to be repeated after `ray.init`, which takes the signal."""
    signal.signal(signal.SIGTERM, _stop)


def _attempt(options: argparse.Namespace, work: Work, out: TextIO) -> int:
    told: dict[str, Any] = {}

    def progress(share: float, what: str) -> None:
        now = {"progress": round(share, 4), "what": what}
        if now != told:
            _write(out, now)
            told.update(now)

    try:
        found = settings.load()
        logs.configure(found.log_level)
        _write(out, {"result": work(options, found, progress)})
    except FinSightError as error:
        return _failed(out, str(error))
    except (KeyboardInterrupt, SystemExit):  # Ray leaves by SystemExit when it is signalled
        sys.stderr.write("stopped\n")
        return STOPPED
    except BrokenPipeError:  # nobody listens any more; do not complain again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())
        return 1
    except Exception as error:
        sys.stderr.writelines(f"{redact(line)}\n" for line in traceback.format_exc().splitlines())
        return _failed(out, f"unexpected {type(error).__name__}; the log of the job has the traceback")
    return 0


def _write(out: TextIO, said: Mapping[str, Any]) -> None:
    # One write a line: the streams of a submitted job end up in one file.
    out.write(json.dumps(said, allow_nan=False) + "\n")
    out.flush()


def _failed(out: TextIO, message: str) -> int:
    sys.stderr.write(f"{message}\n")
    _write(out, {"error": message})
    return 1


def _stop(_signum: int, frame: FrameType | None) -> None:
    """SIGTERM does what Ctrl-C does: inside asyncio.run that cancels the main task, which cleans up."""
    interrupt = signal.getsignal(signal.SIGINT)
    if not callable(interrupt):
        raise KeyboardInterrupt
    interrupt(signal.SIGINT, frame)
