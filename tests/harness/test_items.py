"""What is searched of a document of a task, and which words of its prompt are the task's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pile_tools.harness.items import MIN_PROMPTS, item_of, template_words, without_template

COLORS = [
    *("red", "blue", "green", "old", "tall", "small"),
    *("broken", "seventh", "copper", "glass", "paper", "stone"),
]


@pytest.mark.parametrize(
    ("prompt", "target", "choices", "item"),
    [
        ("Q", "a", None, {"question": "Q", "answer": "a"}),
        ("Q", 1, ["a", "b"], {"question": "Q", "answer": "b", "choices": ["a", "b"]}),
        ("Q", np.int64(0), ["a", "b"], {"question": "Q", "answer": "a", "choices": ["a", "b"]}),
        ("Q", True, ["no", "yes"], {"question": "Q", "answer": "yes", "choices": ["no", "yes"]}),
        ("Q", "b", ["a", "b"], {"question": "Q", "answer": "b", "choices": ["a", "b"]}),
        # The answers of some test sets are not published.
        ("Q", -1, ["a", "b"], {"question": "Q", "choices": ["a", "b"]}),
        ("Q", 2, ["a", "b"], {"question": "Q", "choices": ["a", "b"]}),
        ("Q", None, None, {"question": "Q"}),
        ("Q", 42, None, {"question": "Q", "answer": "42"}),
        ("Q", 1, [3, 5], {"question": "Q", "answer": "5", "choices": ["3", "5"]}),
        # Several right answers.
        ("Q", ["a", "b"], None, {"question": "Q", "answer": "a"}),
        ("Q", [1, 0], ["a", "b"], {"question": "Q", "answer": "b", "choices": ["a", "b"]}),
        ("Q", [], None, {"question": "Q"}),
        ("Q", {"text": ["a"]}, None, {"question": "Q"}),
        # Several prompts and one continuation, and answers without a prompt.
        (1, " is so.", ["x", "y"], {"question": "y", "answer": " is so.", "choices": ["x", "y"]}),
        ("", "A page.", None, {"passage": "A page."}),
        (" \n", 0, ["right", "wrong"], {"passage": "right", "choices": ["right", "wrong"]}),
        ("", None, None, {"question": ""}),
    ],
)
def test_a_document_is_an_item(prompt: object, target: object, choices: Any, item: dict[str, Any]) -> None:
    assert item_of(prompt, target, choices) == item


@pytest.mark.parametrize(
    ("prompt", "choices", "message"),
    [
        (["Q"], None, "the prompt is a list, expected text"),
        (None, ["a"], "the prompt is a NoneType"),
        (0, None, "the prompt is a int"),
        (2, ["a", "b"], "the prompt is choice 2 of 2"),
        (-1, ["a", "b"], "the prompt is choice -1 of 2"),
    ],
)
def test_a_prompt_that_is_no_text_is_named(prompt: object, choices: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        item_of(prompt, "a", choices)


def documents(n: int = len(COLORS)) -> list[dict[str, Any]]:
    return [{"q": f"Which of the {color} lamps was lit on that night?", "label": "A"} for color in COLORS[:n]]


def test_the_words_around_questions_are_the_template() -> None:
    asked = documents()
    prompts = [f"Question: {document['q']}\nAnswer:" for document in asked]
    assert template_words(prompts, asked) == ("Question: ", "\nAnswer:")
    # Without the documents, what questions themselves share cannot be told from a template.
    assert template_words(prompts, [None] * len(prompts)) == (
        "Question: Which of the ",
        " lamps was lit on that night?\nAnswer:",
    )


def test_a_nested_text_of_a_document_bounds_the_template() -> None:
    asked = [{"data": [{"q": document["q"] + " "}]} for document in documents()]
    prompts = [f"Q: {document['data'][0]['q'].strip()} A:" for document in asked]
    assert template_words(prompts, asked) == ("Q: ", " A:")


def test_words_are_not_cut() -> None:
    prompts = [f"Preface pre{color}ing" for color in COLORS]
    assert template_words(prompts, [None] * len(prompts)) == ("Preface ", "")
    # A mark is a part of its letter's word.
    prompts = [f"Un cafe\u0301{color}" for color in COLORS]
    assert template_words(prompts, [None] * len(prompts)) == ("Un ", "")
    prompts = [f"{color}: ? !" for color in COLORS]
    assert template_words(prompts, [None] * len(prompts)) == ("", "")
    prompts = [f"\u554f\u984c\uff1a{color}\n\u7b54\u6848\uff1a" for color in COLORS]
    assert template_words(prompts, [None] * len(prompts)) == ("\u554f\u984c\uff1a", "\n\u7b54\u6848\uff1a")


def test_start_and_end_do_not_overlap() -> None:
    prompts = ["a b a", *(f"a b {color} b a" for color in COLORS)]
    start, end = template_words(prompts, [None] * len(prompts))
    assert (start, end) == ("a b ", "")
    items, _ = without_template([{"question": prompt} for prompt in prompts], [None] * len(prompts))
    assert items[0] == {"question": "a"}
    prompts = ["Say: ", *(f"Say: {color}" for color in COLORS)]
    items, template = without_template([{"question": prompt} for prompt in prompts], [None] * len(prompts))
    assert template == ("Say: ", "")
    assert [item["question"] for item in items] == ["", *COLORS]


def test_few_prompts_have_no_template() -> None:
    asked = documents(MIN_PROMPTS - 1)
    prompts = [f"Question: {document['q']}" for document in asked]
    assert template_words([*prompts, *prompts], [*asked, *asked]) == ("", "")
    assert template_words([], []) == ("", "")


def test_passages_keep_all_words() -> None:
    passages = [{"passage": f"Question: {color}"} for color in COLORS]
    questions = [{"question": f"Question: {color}", "answer": color} for color in COLORS]
    items, template = without_template([*passages, *questions], [None] * (2 * len(COLORS)))
    assert template == ("Question: ", "")
    assert items == passages + [{"question": color, "answer": color} for color in COLORS]
