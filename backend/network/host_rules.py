"""Decide which hosts and addresses may be connected to (protection from SSRF)."""

import ipaddress
import re
from dataclasses import dataclass

from urllib3.exceptions import HTTPError
from urllib3.util import parse_url

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
WebOrigin = tuple[str, str, int]  # scheme, host, port


#: Not public, although Python takes them for global: Azure's WireServer, which is global by the
#: registry, and two networks that only newer releases of Python know.
_NOT_PUBLIC = tuple(
    map(ipaddress.ip_network, ("168.63.129.16/32", "192.0.0.0/24", "100.64.0.0/10"))
)

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")

_NAME = re.compile(r"(\*\.)?([a-z0-9_.-]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?", re.IGNORECASE)


@dataclass(frozen=True)
class HostRules:
    """Hosts that the administrator allows, beside Label Studio and public addresses."""

    #: Pairs of a host, or a suffix that begins with a dot, and a port; None for all ports.
    names: tuple[tuple[str, int | None], ...] = ()
    networks: tuple[Network, ...] = ()  # networks whose addresses any host may have

    @classmethod
    def parse(cls, text: str) -> "HostRules":
        """Parse ``ALLOWED_HOSTS``: names, ``*.`` and a name, addresses and networks, with commas.

        Raises:
            ValueError: an entry is none of these.

        >>> rules = HostRules.parse("minio:9000, *.pictures.org, 10.1.0.0/16")
        >>> [rules.is_allowed_host(f"http://minio{port}/a.png") for port in (":9000", "")]
        [True, False]
        >>> [rules.is_allowed_address(ip) for ip in ("10.1.2.3", "10.2.0.1", "9.9.9.9")]
        [True, False, True]
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
                    "expected names, addresses and networks such as minio:9000, "
                    "*.pictures.org, 10.1.0.0/16"
                )
            host = ("." if match[1] else "") + match[2].lower()
            names.append((host, int(match[3]) if match[3] else None))
        return cls(tuple(names), tuple(networks))

    def is_allowed_host(self, url: str) -> bool:
        """Return whether a URL's host is named, so that it may have any address."""
        found = origin(url)
        if found is None:
            return False
        _, host, port = found
        return any(
            (host.endswith(name) if name.startswith(".") else host == name)
            and only_port in (None, port)
            for name, only_port in self.names
        )

    def is_allowed_address(self, address: str) -> bool:
        """Return whether an address may be connected to, whatever its host's name."""
        ip = ipaddress.ip_address(address.partition("%")[0])
        inner = _inner(ip)
        if any(each in network for network in self.networks for each in (ip, inner)):
            return True
        return _is_public(inner)


def origin(url: str) -> WebOrigin | None:
    """Return scheme, host and port of an http(s) URL as the HTTP client reads it; else None.

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
    """Return the IPv4 address that an IPv6 address contains; any other address unchanged."""
    if isinstance(ip, ipaddress.IPv4Address):
        return ip
    if ip in _NAT64:
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    teredo = ip.teredo[1] if ip.teredo else None
    return ip.ipv4_mapped or ip.sixtofour or teredo or ip


def _is_public(ip: Address) -> bool:
    if any(ip in network for network in _NOT_PUBLIC):
        return False
    is_special = ip.is_multicast or ip.is_reserved or getattr(ip, "is_site_local", False)
    return ip.is_global and not is_special
