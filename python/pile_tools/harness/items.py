"""Items of a task of lm-evaluation-harness: the prompt, answer and choices of each of its documents."""

from __future__ import annotations

import itertools
import numbers
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

#: The files that `pile_tools.harness.worker` writes: the items, and a description of the task.
ITEMS_FILE, ABOUT_FILE = "items.jsonl", "about.json"

#: Minimum distinct prompts from which a template is inferred: fewer prompts may share words by chance.
MIN_PROMPTS = 10

#: Minimum characters of a document's text that ends the template, chosen to be more than labels and numbers
#: have, which also occur in templates: the label `A` in `Answer:`.
_MIN_TEXT_CHARACTERS = 8

#: Initials of the Unicode general categories of word characters: letters, numbers and marks.
_OF_WORDS = "LNM"


def item_of(prompt: object, target: object, choices: Sequence[object] | None) -> dict[str, Any]:
    """Makes the item of a document, an object that `contamination.read_items` can read.

    Args:
        prompt: The text before the answer, or its index in `choices`, as in tasks whose choices are prompts
            with one continuation (WinoGrande).
        target: The answer, the index of the right choice, or a list of right answers. Of a list the first is
            used, as in the harness's few-shot prompts. Values of other types give no answer.
        choices: The choices; None for a task without choices.

    Returns:
        `question`, `answer` and `choices`. If the prompt is blank, the answer is the `passage` instead: the
        harness then scores the answer alone.

    Raises:
        ValueError: The prompt is neither a text nor the index of a choice.
    """
    texts = [str(choice) for choice in choices or ()]
    if isinstance(prompt, numbers.Integral) and choices is not None:
        if not 0 <= int(prompt) < len(texts):
            raise ValueError(f"the prompt is choice {int(prompt)} of {len(texts)}")
        prompt = texts[int(prompt)]
    if not isinstance(prompt, str):
        raise ValueError(f"the prompt is a {type(prompt).__name__}, expected text")
    answer = _answer(target, texts)
    item: dict[str, Any] = {"choices": texts} if texts else {}
    if not prompt.strip() and answer is not None:
        return item | {"passage": answer}
    return item | {"question": prompt} | ({} if answer is None else {"answer": answer})


def _answer(target: object, choices: Sequence[str]) -> str | None:
    """The text of a target, or None: some test sets do not publish their answers."""
    if isinstance(target, (list, tuple)):
        return _answer(target[0], choices) if target else None
    if isinstance(target, numbers.Integral) and choices:
        return choices[int(target)] if 0 <= int(target) < len(choices) else None
    return str(target) if isinstance(target, (str, numbers.Number)) else None


def without_template(
    items: Sequence[dict[str, Any]], documents: Sequence[object]
) -> tuple[list[dict[str, Any]], tuple[str, str]]:
    """Items without the words that the task puts before and after each question, and these words.

    Corpora copy a benchmark without the words that the harness adds. With them, a copied short question may
    have too few of its n-grams in the corpus to count as contaminated: 10 words with one added on each side
    have five 8-grams, two of them with an added word.

    Args:
        items: The items, as `item_of` returns them.
        documents: The document of each.

    Returns:
        The items in the same order, and the removed start and end, see `template_words`.
    """
    asking = [number for number, item in enumerate(items) if "question" in item]
    start, end = template_words(
        [items[number]["question"] for number in asking], [documents[number] for number in asking]
    )
    found = list(items)
    for number in asking:
        question = items[number]["question"]
        found[number] = items[number] | {"question": question[len(start) : len(question) - len(end)]}
    return found, (start, end)


def template_words(prompts: Sequence[str], documents: Sequence[object]) -> tuple[str, str]:
    """The longest start and end, in whole words, that all prompts share and no document contributes.

    Questions may share words too, so neither extends into text that a prompt takes from its document. They do
    not overlap in any prompt. Both are empty if there are fewer than `MIN_PROMPTS` distinct prompts.
    """
    if len(set(prompts)) < MIN_PROMPTS:
        return "", ""
    bounds = [*map(_own_range, prompts, documents)]
    heads = [prompt[:first] for prompt, (first, _) in zip(prompts, bounds, strict=True)]
    start = _shared_start(heads)
    # The word may continue after the shared characters, differently in each prompt.
    while start and _is_of_word(start[-1]):
        start = start[:-1]
    tails = [prompt[max(end, len(start)) :] for prompt, (_, end) in zip(prompts, bounds, strict=True)]
    end = _shared_start([tail[::-1] for tail in tails])[::-1]
    while end and _is_of_word(end[0]):
        end = end[1:]
    return _if_it_has_words(start), _if_it_has_words(end)


def _shared_start(texts: Sequence[str]) -> str:
    # A prefix of both the first and the last text in sorted order is a prefix of every text between them.
    first, last = min(texts), max(texts)
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    return first[: sum(1 for _ in same)]


def _own_range(prompt: str, document: object) -> tuple[int, int]:
    """Bounds of the text that a prompt takes from its document: start and end, or (length, 0) for none."""
    first, end = len(prompt), 0
    for text in _texts(document):
        if (found := prompt.find(text)) >= 0:
            first, end = min(first, found), max(end, prompt.rfind(text) + len(text))
    return first, end


def _texts(document: object) -> Iterator[str]:
    """The texts in a document that are long enough not to be in a template by chance."""
    pending = [document]
    while pending:
        value = pending.pop()
        if isinstance(value, str) and len(text := value.strip()) >= _MIN_TEXT_CHARACTERS:
            yield text
        elif isinstance(value, Mapping):
            pending += value.values()
        elif isinstance(value, (list, tuple)):
            pending += value


def _is_of_word(character: str) -> bool:
    return unicodedata.category(character)[0] in _OF_WORDS


def _if_it_has_words(text: str) -> str:
    return text if any(map(_is_of_word, text)) else ""
