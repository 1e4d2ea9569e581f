"""Sentences in pieces, and figures as people read them."""

from backend.views.text import Part, plain, sentence


def test_a_sentence_without_its_links_reads_as_one() -> None:
    assert plain(sentence("See ", "", Part("why", "/why"), ".")) == "See why."
