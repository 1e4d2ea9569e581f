"""Words: what queries a vocabulary asks, and how their embeddings come about."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from clearclip_core import TEMPLATES, Label, TextEncoder, Vocabulary


def test_the_templates_are_the_eighty_of_imagenet() -> None:
    sentences = [template("dog") for template in TEMPLATES]
    assert len(set(sentences)) == 80
    assert all("dog" in sentence for sentence in sentences)
    assert {"a photo of a dog.", "itap of a dog.", "a tattoo of the dog."} <= set(sentences)


def test_a_label_stands_for_itself_unless_it_has_prompts() -> None:
    assert Label("dog").prompts == ("dog",)
    assert Label("pet", ("dog", "cat")).prompts == ("dog", "cat")


@pytest.mark.parametrize(
    ("name", "prompts"), [("", ()), (" ", ("dog",)), ("dog", ("",)), ("dog", ("dog", " "))]
)
def test_labels_without_words_are_refused(name: str, prompts: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="`name` and `prompts` to hold words"):
        Label(name, prompts)


def test_one_string_is_not_taken_for_its_letters() -> None:
    with pytest.raises(ValueError, match="`prompts` to be a tuple of words, but got 'couch'"):
        Label("sofa", "couch")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`labels` to be several names, but got 'dog'"):
        Vocabulary.of("dog")


def test_every_prompt_is_a_query_of_its_label() -> None:
    words = Vocabulary.of([Label("sofa", ("sofa", "couch")), "sky"])
    assert words.queries == ("sofa", "couch", "sky")
    assert words.query_labels == (0, 0, 1)


def test_contrast_words_come_last_and_belong_to_no_label() -> None:
    words = Vocabulary.of(["dog"], contrast=["sky", "grass", "sky"])
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
    assert words.queries == ("dog", "other", "cat", "sky", "sand")
    assert words.query_labels == (0, 1, 2, 1, 1)


def test_wrong_vocabularies_are_refused() -> None:
    with pytest.raises(ValueError, match=r"one or more different names, but got \[\]"):
        Vocabulary(())
    with pytest.raises(ValueError, match=r"different names, but got \['dog', 'dog'\]"):
        Vocabulary.of(["dog", Label("dog", ("puppy",))])
    with pytest.raises(ValueError, match="at most one background label"):
        Vocabulary((Label("a", background=True), Label("b", background=True)))


def test_a_vocabulary_passes_through() -> None:
    words = Vocabulary.of(["dog"], ["sky"])
    assert Vocabulary.of(words) is words


class Letters:
    """Stands for a text tower: an embedding of letter counts; remembers what it was asked."""

    def __init__(self, pause_s: float = 0) -> None:
        self.asked: Counter[str] = Counter()
        self.batches: list[int] = []
        self.pause_s = pause_s
        self.busy = threading.Lock()

    def __call__(self, sentences: Sequence[str]) -> torch.Tensor:
        assert self.busy.acquire(blocking=False), "called by two threads at once"
        time.sleep(self.pause_s)
        self.asked.update(sentences)
        self.batches.append(len(sentences))
        self.busy.release()
        return torch.tensor([counts(sentence) for sentence in sentences])


def counts(sentence: str) -> list[float]:
    return [sentence.count(letter) + 0.5 for letter in "adgort"]


def unit(vector: list[float]) -> list[float]:
    length = math.sqrt(sum(x * x for x in vector))
    return [x / length for x in vector]


def test_embeddings_are_normalised_averaged_and_normalised_again() -> None:
    embedded = TextEncoder(Letters())(["dog", "cat"])
    assert embedded.shape == (2, 6)
    assert embedded.dtype == torch.float32
    for row, word in zip(embedded.tolist(), ("dog", "cat"), strict=True):
        each = [unit(counts(template(word))) for template in TEMPLATES]
        mean = [sum(column) / len(each) for column in zip(*each, strict=True)]
        assert row == pytest.approx(unit(mean), abs=1e-6)


def test_the_order_of_averaging_matters_here() -> None:
    """Else the test above could not tell: the mean of unnormalised embeddings is another one."""
    embedded = TextEncoder(Letters(), [lambda w: w, lambda w: w + "rrrrrrrr"])(["dog"])[0]
    plain = unit([a + b for a, b in zip(counts("dog"), counts("dogrrrrrrrr"), strict=True)])
    assert embedded.tolist() != pytest.approx(plain, abs=1e-2)


def test_each_sentence_is_encoded_once() -> None:
    tower = Letters()
    encode = TextEncoder(tower)
    first = encode(["dog", "road", "dog"])
    second = encode(["road", "goat", "dog"])
    assert set(tower.asked.values()) == {1}
    assert len(tower.asked) == 3 * 80
    assert torch.equal(first[0], first[2])
    assert torch.equal(first[[1, 0]], second[[0, 2]])
    encode(["goat"])
    assert sum(tower.asked.values()) == 3 * 80


def test_sentences_are_encoded_in_batches() -> None:
    tower = Letters()
    TextEncoder(tower, [lambda w: w, lambda w: f"a {w}"], batch=6)(list("abcdefg"))
    assert tower.batches == [6, 6, 2]
    tower = Letters()
    TextEncoder(tower, batch=10)(["dog", "cat"])  # a prompt's templates stay together
    assert tower.batches == [80, 80]


def test_threads_share_the_cache() -> None:
    tower = Letters(pause_s=0.01)
    encode = TextEncoder(tower)
    words = ["dog", "road", "goat", "tart"]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda i: encode(words[i % 4 :] + words[: i % 4]), range(16)))
    assert set(tower.asked.values()) == {1}
    for i, result in enumerate(results):
        assert torch.equal(result.roll(i % 4, 0), results[0])
