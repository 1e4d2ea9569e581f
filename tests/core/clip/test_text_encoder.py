"""Words: what queries a vocabulary asks, and how their embeddings come about."""

import copy
import math
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import open_clip
import pytest
import torch

from clearclip_core import BEST_TEMPLATES, TEMPLATES
from clearclip_core.clip.loading import encode_text
from clearclip_core.clip.text_encoder import Template, TextEncoder


def test_the_templates_are_the_eighty_of_imagenet() -> None:
    sentences = [template("dog") for template in TEMPLATES]
    assert len(set(sentences)) == 80
    assert all("dog" in sentence for sentence in sentences)
    assert {"a photo of a dog.", "itap of a dog.", "a tattoo of the dog."} <= set(sentences)
    best = [template("dog") for template in BEST_TEMPLATES]
    assert best[:2] == ["itap of a dog.", "a bad photo of the dog."]
    assert len(set(best)) == 7
    assert set(best) < set(sentences)


class Letters:
    """Stands for a text tower: an embedding of letter counts; remembers what it was asked."""

    def __init__(self, pause_s: float = 0) -> None:
        self.asked: Counter[str] = Counter()
        self.sentences: list[list[str]] = []
        self.pause_s = pause_s
        self.busy = threading.Lock()

    def __call__(self, sentences: Sequence[str]) -> torch.Tensor:
        assert self.busy.acquire(blocking=False), "called by two threads at once"
        time.sleep(self.pause_s)
        self.asked.update(sentences)
        self.sentences.append(list(sentences))
        self.busy.release()
        return torch.tensor([counts(sentence) for sentence in sentences])


def counts(sentence: str) -> list[float]:
    return [sentence.count(letter) + 0.5 for letter in "adgort"]


def unit(vector: list[float]) -> list[float]:
    length = math.sqrt(sum(x * x for x in vector))
    return [x / length for x in vector]


@pytest.mark.parametrize("templates", [TEMPLATES, BEST_TEMPLATES])
def test_embeddings_are_normalised_averaged_normalised(templates: Sequence[Template]) -> None:
    tower, words = Letters(), ["dog", "cat", "dog"]
    embedded = TextEncoder(tower, templates)(words)
    assert embedded.shape == (3, 6)
    assert embedded.dtype == torch.float32
    assert set(tower.asked.values()) == {1}
    for row, word in zip(embedded.tolist(), words, strict=True):
        each = [unit(counts(template(word))) for template in templates]
        mean = [sum(column) / len(each) for column in zip(*each, strict=True)]
        assert row == pytest.approx(unit(mean), abs=1e-6)


def test_a_batch_holds_sentences_of_about_one_length() -> None:
    """A tower runs to the end of a batch's longest sentence; the rows keep their order."""
    templates = [lambda w: w, lambda w: f"{w} r r r r", lambda w: f"{w} g"]
    tower = Letters()
    words = ["dog", "road", "goat"]
    embedded = TextEncoder(tower, templates, batch=3)(words)
    lengths = [{len(sentence.split()) for sentence in batch} for batch in tower.sentences]
    assert lengths == [{1}, {2}, {5}]
    for row, word in zip(embedded, words, strict=True):
        assert torch.equal(row, TextEncoder(Letters(), templates)([word])[0])


def test_threads_share_the_cache() -> None:
    tower = Letters(pause_s=0.01)
    encode = TextEncoder(tower)
    words = ["dog", "road", "goat", "tart"]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda i: encode(words[i % 4 :] + words[: i % 4]), range(16)))
    assert set(tower.asked.values()) == {1}
    assert len(tower.asked) == 4 * 80
    for i, result in enumerate(results):
        assert torch.equal(result.roll(i % 4, 0), results[0])


def test_a_word_does_not_wait_for_a_hundred_others() -> None:
    """Threads take turns; and of the hundred, what is through is kept."""
    gate = threading.Event()

    class Gated(Letters):
        def __call__(self, sentences: Sequence[str]) -> torch.Tensor:
            assert gate.wait(60)
            return super().__call__(sentences)

    tower = Gated()
    encode = TextEncoder(tower, [lambda w: w], batch=1)  # slices of 4 prompts
    hundred = [f"dog {i}" for i in range(100)]
    done: list[int] = []

    def ask(words: list[str]) -> None:
        encode(words)
        done.append(len(words))

    threads = [threading.Thread(target=ask, args=(words,)) for words in (hundred, ["cat"])]
    threads[0].start()
    while not encode._encode_lock._queue:  # the hundred have begun
        time.sleep(0.001)
    threads[1].start()
    while len(encode._encode_lock._queue) < 2:  # the word waits for its turn
        time.sleep(0.001)
    gate.set()
    for thread in threads:
        thread.join()
    assert done == [1, 100]
    assert [s for batch in tower.sentences for s in batch].index("cat") == 4


def test_what_was_embedded_before_a_failure_stays() -> None:
    class Breaks(Letters):
        def __call__(self, sentences: Sequence[str]) -> torch.Tensor:
            if "bad" in sentences and "bad" not in self.asked:
                self.asked["bad"] += 1
                raise RuntimeError("out of memory")
            return super().__call__(sentences)

    tower = Breaks()
    encode = TextEncoder(tower, [lambda w: w], batch=1)
    words = ["a", "b", "c", "d", "bad", "e"]
    with pytest.raises(RuntimeError, match="out of memory"):
        encode(words)
    assert encode.missing(words) == ["bad", "e"]
    assert len(encode(words)) == 6
    assert max(tower.asked[word] for word in "abcde") == 1


def test_memory_is_bounded() -> None:
    encode, words = TextEncoder(Letters(), [lambda w: w], remembered=2), ["dog", "cat", "road"]
    assert len(encode(words)) == 3  # more than are remembered
    assert len(encode.missing(words)) == 1


SENTENCES = {
    "one": ["a dog"],
    "of different lengths": ["a dog", "a photo of one red car", ""],
    "twice the same": ["a dog", "a dog", "a cat"],
    "one the beginning of another": ["a photo of", "a photo of a dog", "photo of"],
    "templates": [template(word) for word in ("dog", "traffic light") for template in TEMPLATES],
}


@pytest.mark.parametrize("sentences", SENTENCES.values(), ids=SENTENCES)
def test_embeddings_are_the_whole_towers(clip_model: open_clip.CLIP, sentences: list[str]) -> None:
    tokens = open_clip.SimpleTokenizer(context_length=16)(sentences)
    expected = clip_model.encode_text(tokens)
    torch.testing.assert_close(encode_text(clip_model, tokens), expected, rtol=0, atol=1e-5)


def test_a_tower_that_is_not_causal_is_run_whole(clip_model: open_clip.CLIP) -> None:
    """Every token there depends on those after it, so that nothing may be shared or cut off."""
    tokens = open_clip.SimpleTokenizer(context_length=16)(["a dog", "a cat"])
    model = copy.deepcopy(clip_model)
    model.attn_mask = None
    expected = model.encode_text(tokens)
    torch.testing.assert_close(encode_text(model, tokens), expected, rtol=0, atol=0)
