"""Tell what counts as one client."""

from __future__ import annotations

import ipaddress


def client_network(address: str) -> str:
    """Return what counts as one address: of IPv6, the network that a site has to itself.

    >>> client_network("2001:db8:1:2:3:4:5:6"), client_network("::ffff:192.0.2.1")
    ('2001:db8:1:2::/64', '192.0.2.1')
    >>> client_network("192.0.2.1")
    '192.0.2.1'
    """
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:  # a socket of this machine has none
        return ""
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, 64), strict=False))
