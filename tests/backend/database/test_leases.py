"""Owners, and the conditions and values of leased rows."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Engine,
    Integer,
    MetaData,
    Table,
    create_engine,
    select,
    update,
)

from backend.database import leases
from backend.database.leases import LEASE_S, has_died, new_owner

ROWS = Table("rows", MetaData(), Column("id", Integer, primary_key=True), *leases.lease_columns())


@pytest.fixture
def connection() -> Iterator[Connection]:
    engine: Engine = create_engine("sqlite://")
    with engine.begin() as connection:
        ROWS.metadata.create_all(connection)
        connection.execute(ROWS.insert().values(id=1))
        yield connection


def change(connection: Connection, values: Mapping[str, Any]) -> None:
    connection.execute(update(ROWS).values(**values))


def matches(connection: Connection, condition: ColumnElement[bool]) -> bool:
    return connection.execute(select(ROWS).where(condition)).first() is not None


def test_a_lease_ends_unless_it_is_renewed(connection: Connection) -> None:
    assert matches(connection, leases.is_free(ROWS, 1.0))
    assert not matches(connection, leases.is_leased(ROWS, 1.0))
    change(connection, leases.leased_to("me", 1000.0))
    for ends in (1000.0 + LEASE_S, 1020.0 + LEASE_S):
        assert matches(connection, leases.is_leased(ROWS, ends))
        assert not matches(connection, leases.is_free(ROWS, ends))
        assert matches(connection, leases.is_free(ROWS, ends + 1))
        assert not matches(connection, leases.is_leased(ROWS, ends + 1))
        change(connection, leases.renewed(1020.0))
    assert matches(connection, leases.is_owned_by(ROWS, "me"))
    assert not matches(connection, leases.is_owned_by(ROWS, "you"))


def test_a_lease_that_ends_keeps_its_owner_and_one_that_is_released_does_not(
    connection: Connection,
) -> None:
    change(connection, leases.leased_to("me", 1000.0))
    change(connection, leases.ended())
    assert matches(connection, leases.is_free(ROWS, 1000.0))
    assert matches(connection, leases.is_owned_by(ROWS, "me"))
    change(connection, leases.RELEASED)
    assert not matches(connection, leases.is_owned_by(ROWS, "me"))


def test_an_owner_has_died_once_its_process_has_ended() -> None:
    code = "from backend.database.leases import new_owner; print(new_owner())"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert has_died(ended.stdout.strip())
    assert not has_died(new_owner())
    assert not has_died(f"elsewhere:{os.getpid()}:ab")
    assert not has_died("")
