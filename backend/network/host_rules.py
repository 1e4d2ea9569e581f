"""Decide which hosts and addresses may be connected to (protection from SSRF)."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from urllib3.exceptions import HTTPError
from urllib3.util import parse_url

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


Network = ipaddress.IPv4Network | ipaddress.IPv6Network


Origin = tuple[str, str, int]  # scheme, host, port


#: Global by the registry, but a cloud's own: Azure's WireServer; and those that older releases of
#: Python take for global.
_NOT_PUBLIC = tuple(
    map(ipaddress.ip_network, ("168.63.129.16/32", "192.0.0.0/24", "100.64.0.0/10"))
)


_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


_NAME = re.compile(r"(\*\.)?([a-z0-9_.-]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?", re.IGNORECASE)


@dataclass(frozen=True)
class HostRules:
    """Hosts that the administrator vouches for, beside Label Studio and public addresses.

    Attributes:
        names: host, or suffix that begins with a dot; and the port, None for all.
        networks: addresses that any host may have.
    """

    names: tuple[tuple[str, int | None], ...] = ()
    networks: tuple[Network, ...] = ()

    @classmethod
    def parse(cls, text: str) -> HostRules:
        """Read ``ALLOWED_HOSTS``: names, ``*.`` before a name, addresses and networks, by comma.

        Raises:
            ValueError: an entry is none of these.

        >>> rules = HostRules.parse("minio:9000, *.pictures.org, 10.1.0.0/16")
        >>> rules.vouch_for("http://minio:9000/a.png"), rules.vouch_for("http://minio/a.png")
        (True, False)
        >>> rules.permit("10.1.2.3"), rules.permit("10.2.0.1"), rules.permit("9.9.9.9")
        (True, False, True)
        """
        names: list[tuple[str, int | None]] = []
        networks: list[Network] = []
        for entry in filter(None, (part.strip() for part in text.split(","))):
            try:
                networks.append(ipaddress.ip_network(entry))
                continue
            except ValueError:
                match = _NAME.fullmatch(entry)
            if match is None or (match[3] and not 0 < int(match[3]) < 65536):
                raise ValueError(
                    "expected names, addresses and networks such as "
                    f"minio:9000, *.pictures.org, 10.1.0.0/16, but got {entry!r}"
                )
            host = ("." if match[1] else "") + match[2].lower()
            names.append((host, int(match[3]) if match[3] else None))
        return cls(tuple(names), tuple(networks))

    def vouch_for(self, url: str) -> bool:
        """Whether a URL's host is named, so that it may have any address."""
        found = origin(url)
        if found is None:
            return False
        _, host, port = found
        return any(
            (host.endswith(name) if name.startswith(".") else host == name)
            and only_port in (None, port)
            for name, only_port in self.names
        )

    def permit(self, address: str) -> bool:
        """Whether an address may be connected to, whatever its name."""
        ip = ipaddress.ip_address(address.partition("%")[0])
        inner = _inner(ip)
        if any(each in network for network in self.networks for each in (ip, inner)):
            return True
        return _is_public(inner)


def origin(url: str) -> Origin | None:
    """Scheme, host and port of an http(s) URL, as the HTTP client reads it; else None.

    >>> origin("HTTP://Studio/data"), origin("https://studio:8443"), origin("file:///etc/passwd")
    (('http', 'studio', 80), ('https', 'studio', 8443), None)
    """
    try:
        parsed = parse_url(url)
    except HTTPError:
        return None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        return None
    return parsed.scheme, parsed.host, parsed.port or (443 if parsed.scheme == "https" else 80)


def _inner(ip: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for, where it stands for one."""
    if isinstance(ip, ipaddress.IPv4Address):
        return ip
    if ip in _NAT64:
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    teredo = ip.teredo[1] if ip.teredo else None
    return ip.ipv4_mapped or ip.sixtofour or teredo or ip


def _is_public(ip: Address) -> bool:
    if any(ip in network for network in _NOT_PUBLIC):
        return False
    special = (
        ip.is_private
        or ip.is_loopback
        or ip.is_link_local
        or ip.is_multicast
        or ip.is_reserved
        or ip.is_unspecified
        or (isinstance(ip, ipaddress.IPv6Address) and ip.is_site_local)
    )
    return ip.is_global and not special
