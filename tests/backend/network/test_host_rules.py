"""Which hosts may be asked: public addresses, and those that the settings allow."""

import pytest

from backend.network.host_rules import HostRules, origin

#: RFC 6890, its successors, and what clouds answer their own machines at.
NOT_PUBLIC = [
    *("127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.9.9"),
    *("192.168.1.1", "169.254.169.254", "169.254.170.2", "100.64.0.1", "100.100.100.200"),
    *("192.0.0.1", "192.0.0.192", "192.0.2.1", "198.18.0.1", "198.51.100.7", "203.0.113.7"),
    *("224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255", "168.63.129.16"),
    *("::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "fd20:ce::254"),
    *("fec0::1", "ff02::1", "2001:db8::1", "100::1", "64:ff9b:1::1"),
    # IPv4 inside: mapped, compatible, 6to4, NAT64, and Teredo with the client's bits turned over
    *("::ffff:127.0.0.1", "::ffff:a9fe:a9fe", "::127.0.0.1", "2002:7f00:1::1", "2002:a9fe:a9fe::"),
    *("64:ff9b::7f00:1", "64:ff9b::169.254.169.254", "2001:0:4136:e378:8000:63bf:80ff:fffe"),
]

PUBLIC = ["8.8.8.8", "1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "::ffff:8.8.8.8"]
PUBLIC += ["64:ff9b::8.8.8.8", "2002:808:808::1"]


@pytest.mark.parametrize(
    ("address", "is_public"), [(a, False) for a in NOT_PUBLIC] + [(a, True) for a in PUBLIC]
)
def test_only_public_addresses_are_allowed(address: str, is_public: bool) -> None:
    assert HostRules().is_allowed_address(address) == is_public


def test_a_star_stands_for_subdomains_and_for_nothing_that_only_ends_so() -> None:
    rules = HostRules.parse("*.lab.example")
    assert rules.is_allowed_host("https://a.b.lab.example/x")
    others = ["lab.example", "evillab.example", "a.lab.example.evil.org", "a.lab.example@evil.org"]
    assert not any(rules.is_allowed_host(f"https://{other}/x") for other in others)
    assert not rules.is_allowed_host("ftp://a.lab.example/x")


@pytest.mark.parametrize(
    "text",
    ["*", "10.0.0.1/8", "http://minio", "minio:port", "minio:0", "minio:70000", "a b", "a/b"],
)
def test_wrong_entries_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected names, addresses and networks"):
        HostRules.parse(f"good.example, {text}")


def test_origins() -> None:
    assert origin("http://a") == origin("http://A:80/x") != origin("http://a:8080")
    assert origin("https://a") == origin("https://a:443") != origin("http://a")
    assert origin("http://[::1]:8080/") == origin("http://[::1]:8080/x")
