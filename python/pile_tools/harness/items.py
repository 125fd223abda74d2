"""What is searched of the documents of a task: their prompts, their answers and their choices."""

from __future__ import annotations

import itertools
import numbers
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

#: The files that the process writes: the items, and what is known of them.
ITEMS_FILE, ABOUT_FILE = "items.jsonl", "about.json"

#: Minimum distinct prompts whose shared words count as the template: a few prompts share words by chance.
MIN_PROMPTS = 10

#: Minimum characters of a text of a document that bounds the template: `A`, a label, is in `Answer:` too.
_MIN_TEXT_CHARACTERS = 8

#: General categories of Unicode that a word consists of: letters, numbers and marks.
_OF_WORDS = "LNM"


def item_of(prompt: object, target: object, choices: Sequence[object] | None) -> dict[str, Any]:
    """The item of a document, with the keys that `contamination.read_items` reads.

    Args:
        prompt: The text before the answer; or the number of the choice that is this text, as in tasks
            with several prompts and one continuation (WinoGrande).
        target: The answer; the number of the right choice; or a list of right answers, of which the first
            counts, as in the harness's own few-shot prompts. Another type has no text.
        choices: The choices, None for a task without.

    Returns:
        `question`, `answer` and `choices`. Without a prompt the harness scores the answer alone, so the
        answer is the `passage`.

    Raises:
        ValueError: The prompt is no text, or the number of no choice.
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
    """The text of a target; None if it has none, as the answers of some test sets are not published."""
    if isinstance(target, (list, tuple)):
        return _answer(target[0], choices) if target else None
    if isinstance(target, numbers.Integral) and choices:
        return choices[int(target)] if 0 <= int(target) < len(choices) else None
    return str(target) if isinstance(target, (str, numbers.Number)) else None


def without_template(
    items: Sequence[dict[str, Any]], documents: Sequence[object]
) -> tuple[list[dict[str, Any]], tuple[str, str]]:
    """Items without the words that the task puts before and after each question, and these words.

    A benchmark is copied without the words that the harness adds. With them, no short question would reach
    the threshold: of 10 words and one on each side, two n-grams of five would have such a word.

    Args:
        items: The items, as `item_of` returns them.
        documents: The document of each.

    Returns:
        The items in the same order, and the start and the end that all questions had, see `template_words`.
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
    """The start and the end, in whole words, that all prompts share and that are not of their documents.

    Questions may begin with the same words themselves, so a text of a document in its prompt bounds both.
    They do not overlap in any prompt. Both are empty if fewer than `MIN_PROMPTS` prompts differ.
    """
    if len(set(prompts)) < MIN_PROMPTS:
        return "", ""
    bounds = [*map(_own_range, prompts, documents)]
    heads = [prompt[:first] for prompt, (first, _) in zip(prompts, bounds, strict=True)]
    start = _shared_start(heads)
    while start and _is_of_word(start[-1]):
        start = start[:-1]
    tails = [prompt[max(end, len(start)) :] for prompt, (_, end) in zip(prompts, bounds, strict=True)]
    end = _shared_start([tail[::-1] for tail in tails])[::-1]
    while end and _is_of_word(end[0]):
        end = end[1:]
    return _if_it_has_words(start), _if_it_has_words(end)


def _shared_start(texts: Sequence[str]) -> str:
    # What the first and the last in sorted order share, all between them share.
    first, last = min(texts), max(texts)
    n_same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    return first[: sum(1 for _ in n_same)]


def _own_range(prompt: str, document: object) -> tuple[int, int]:
    """The first and the end character of a prompt that are of its document; its length and 0 if none are."""
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
