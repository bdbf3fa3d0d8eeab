"""What the API asks of the Ray cluster it runs in. Imports Ray, so import it only there."""

from __future__ import annotations

import asyncio
from typing import Any

import ray
from ray.serve._private import replica

from cluster.errors import NotRunning
from cluster.providers import gateway_actor
from cluster.providers.lazy_gateway import LazyGateway
from cluster.providers.stats import ProviderStats

_replica: Any = replica
_bind = _replica.add_port_to_grpc_server


def keep_to_node() -> None:
    """Have this replica's server for calls of other deployments listen on its node's own address.

    Ray has it listen on all, and no setting changes that.
    """
    address: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    host = f"[{address}]" if ":" in address else address
    _replica.add_port_to_grpc_server = lambda server, _: _bind(server, f"{host}:0")


def require_cluster(timeout_s: float) -> int:
    """The number of living nodes, as the GCS tells it; raises `NotRunning` when it does not answer."""
    try:
        nodes = [
            node
            for node in ray.nodes()  # type: ignore[no-untyped-call]
            if node["Alive"]
        ]
    except Exception as error:
        raise NotRunning(f"Ray's control service does not answer within {timeout_s:g} s: {error}") from error
    return len(nodes)


def gateway(provider: str) -> LazyGateway:
    """The provider's gateway, wherever it runs, as soon as it does."""
    return LazyGateway(provider, gateway_actor.NAMESPACE)


async def provider_stats(provider: str, timeout_s: float) -> ProviderStats:
    """State of a provider's gateway; raises `NotRunning` or `ProviderDown`."""
    gateway = await asyncio.to_thread(gateway_actor.connect, provider, timeout_s=timeout_s)
    return await gateway.stats()
