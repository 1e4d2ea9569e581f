"""Counts with their nouns, as sentences for people have them."""


def quantity(count: int, noun: str, plural: str = "") -> str:
    """Return a count with its noun: in the singular for one, else in the plural.

    Args:
        plural: its plural; by default the noun with an s.

    >>> quantity(0, "picture"), quantity(1, "picture"), quantity(2, "picture")
    ('0 pictures', '1 picture', '2 pictures')
    >>> quantity(1, "person", "people"), quantity(2, "person", "people")
    ('1 person', '2 people')
    """
    return f"{count} {inflected(count, noun, plural)}"


def inflected(count: float, noun: str, plural: str = "") -> str:
    """Return the form of a noun that belongs to a count; for the arguments see `quantity`.

    >>> inflected(1, "label"), inflected(1000, "label")
    ('label', 'labels')
    """
    return noun if count == 1 else plural or f"{noun}s"


def grouped(number: float) -> str:
    """Format a count, with thin spaces between the thousands.

    >>> grouped(1234567).split("\N{NARROW NO-BREAK SPACE}"), grouped(12)
    (['1', '234', '567'], '12')
    """
    return f"{number:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")
