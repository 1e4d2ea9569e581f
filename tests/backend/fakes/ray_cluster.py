"""A Ray cluster of several nodes on this machine, any of which can be killed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ray.cluster_utils import Cluster

_NODE = {"num_cpus": 1, "include_dashboard": False, "node_ip_address": "127.0.0.1"}

#: Else a driver looks for the cluster of 127.0.0.1 at the machine's address in its network. On
#: Windows and macOS this is Ray's default.
_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


@contextmanager
def ray_cluster(nodes: int) -> Iterator[tuple[Any, dict[str, str]]]:
    """Start so many nodes of one CPU, the head included; beside them, a command's environment."""
    cluster = Cluster(initialize_head=True, head_node_args=_NODE)
    try:
        for _ in range(nodes - 1):
            cluster.add_node(num_cpus=1, node_ip_address="127.0.0.1")
        yield cluster, {"RAY_ADDRESS": cluster.address, **_LOOPBACK}
    finally:
        cluster.shutdown()
