"""All settings of FinSight: `load()` them once; see `layers` for what comes before what."""

from cluster.settings.fields import KEYED, environment_names
from cluster.settings.files import running_instance
from cluster.settings.layers import load, reread
from cluster.settings.model import Settings, endpoints_file
from cluster.settings.reload import NEEDS_RESTART, changed, digest
from cluster.settings.showing import hide_password, revealed, shown

__all__ = [
    "KEYED",
    "NEEDS_RESTART",
    "Settings",
    "changed",
    "digest",
    "endpoints_file",
    "environment_names",
    "hide_password",
    "load",
    "reread",
    "revealed",
    "running_instance",
    "shown",
]
