"""Labels, their prompts and contrast words as queries."""

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pytest

from clearclip_core import Label, Vocabulary
from clearclip_core.vocabulary import MapNames


def test_contrast_words_come_last_and_belong_to_no_label() -> None:
    words = Vocabulary.of(Vocabulary.of(["dog"], contrast=["sky", "grass", "sky"]))
    assert words.queries == ("dog", "sky", "grass")
    assert words.query_labels == (0, -1, -1)


@pytest.mark.parametrize("used", ["tree s", "Tree_s", " TREE-S ", "tree  s", "tree__s"])
def test_a_contrast_word_that_a_label_uses_is_left_out(used: str) -> None:
    """Whatever the case and however the words are joined; other words are not touched."""
    words = Vocabulary.of([Label("wood", (used,))], contrast=["tree s", "tree_s", "trees"])
    assert words.queries == (used, "trees")


def test_only_prompts_count_not_the_name() -> None:
    words = Vocabulary.of([Label("sky", ("cloud",))], contrast=["sky", "cloud"])
    assert words.queries == ("cloud", "sky")


def test_a_background_label_takes_over_the_contrast_words() -> None:
    labels = (Label("dog"), Label("other", background=True), Label("cat"))
    words = Vocabulary(labels, ("sky", "cat", "sand"))
    assert words.queries == ("dog", "other", "sky", "sand", "cat")
    assert words.query_labels == (0, 1, 1, 1, 2)


def test_wrong_vocabularies_are_refused() -> None:
    with pytest.raises(ValueError, match=r"one or more different names, but got \[\]"):
        Vocabulary(())
    with pytest.raises(ValueError, match=r"different names, but got \['dog', 'dog'\]"):
        Vocabulary.of(["dog", Label("dog", ("puppy",))])
    with pytest.raises(ValueError, match="at most one background label"):
        Vocabulary((Label("a", background=True), Label("b", background=True)))


@pytest.mark.parametrize("labels", [{"sky", "tree"}, frozenset({"sky", "tree"})])
def test_a_set_of_labels_is_refused_for_it_has_no_order(labels: Collection[str]) -> None:
    with pytest.raises(ValueError, match=r"that of the label map, but got a set: give sorted"):
        Vocabulary.of(labels)


def test_words_come_by_name_in_pairs_and_in_arrays() -> None:
    sofa = Label("sofa", ("sofa", "couch"))
    by_name = {"sofa": np.array(["sofa", "couch"]), "cat": "cat", "sky": ()}
    for given in (by_name, tuple(by_name.items()), [sofa, "cat", "sky"]):
        assert Vocabulary.of(given).labels == (sofa, Label("cat"), Label("sky"))
    assert Vocabulary.of(np.array(["sofa", "cat"])).names == ("sofa", "cat")
    pairs = [("sofa", 7)], {"sofa": [7]}, [["sofa", "couch"]]
    for wrong in ([7], *pairs, np.zeros((2, 2)), [None], None, sofa):
        with pytest.raises(ValueError, match=r"`labels` to (hold names, labels or|be several)"):
            Vocabulary.of(wrong)  # type: ignore[arg-type]


def names_file(folder: Path, text: str) -> Path:
    path = folder / "names.txt"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    return path


def test_a_names_file_names_each_value_with_its_words(tmp_path: Path) -> None:
    path = names_file(tmp_path, "-\nsky\n ? \npavement, sidewalk\nOther\n")
    names = MapNames.read(path)
    assert names.labels == (
        Label("sky", ("sky",)),
        Label("pavement", ("pavement", "sidewalk")),
        Label("Other", ("Other",), background=True),
    )
    assert names.indices == (-1, 0, None, 1, 2)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("sky\n\ncar\n", "line 2 of .*names.txt to name a label, .*, but it is empty"),
        ("sky\nsky\n", "different names in at most 254 lines, but got 2 lines with 1 diff"),
        ("\ud800\n", "names.txt to be a text file in UTF-8"),
        ("-\n", "but got 1 lines with 0 different names"),
        ("".join(f"a{n}\n" for n in range(255)), "but got 255 lines"),
    ],
)
def test_names_files_without_labels_are_refused(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        MapNames.read(names_file(tmp_path, text))
