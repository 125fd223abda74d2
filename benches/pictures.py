"""What the toy of vqgan-clip makes of prompts, judged by a classifier that took no part in its guidance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from benches.markdown import table
from benches.measure import Measured, Stopwatch, failure, in_process
from benches.setting import Result, Setting
from benches.verdict import Verdict

TITLE = "Pictures of the toy, judged"
#: Pairs of prompt and seed; edits and negative prompts.
N_PAIRS, N_EDITS = 40, 40
#: Least shares of right pictures. Chance finds a shape in 20 %, a colour in 12.5 %.
COLOR, PALETTE, SHAPE, EDITED, OVERLAP = 0.85, 0.60, 0.35, 0.90, 0.50
#: Largest share for random codes, at chance: two standard errors above 20 % of 40.
CHANCE = 0.33
#: Largest change outside of an edit with the pull, relative to one without.
PULLED = 0.5

#: Runs of `judged`: by name, what differs from the toy's defaults.
PICTURES: Mapping[str, Mapping[str, Any]] = {
    "prompts": {},
    "random codes, no step": {"steps": 0, "start": "codes"},
    "without augmentation": {"augment": "none"},
    "captions held out from the training": {"held_out": True},
}
MASKED = "with a mask"
EDITS: Mapping[str, Mapping[str, Any]] = {
    "without mask and pull": {},
    "with the pull": {"is_pulled": True},
    MASKED: {"with_mask": True},
}


def pictures(n: int, steps: int | None, augment: str | None, start: str, held_out: bool) -> Measured:
    """Judges pictures of `n` pairs of prompt and seed."""
    from tests.vqgan_clip import judged

    from vqgan_clip.models import load_models

    config, models = judged.CONFIG, load_models()
    config = config if steps is None else replace(config, steps=steps)
    config = config if augment is None else replace(config, augment=augment)
    with Stopwatch() as clock:
        found = judged.judged(n, models, config, held_out=held_out, start=start)
    return clock.measured(**asdict(found))


def edits(n: int, is_pulled: bool, with_mask: bool) -> Measured:
    """Judges `n` edits to another colour."""
    from tests.vqgan_clip import judged

    from vqgan_clip.models import load_models

    with Stopwatch() as clock:
        found = judged.edited(n, load_models(), pull=judged.PULL if is_pulled else 0.0, with_mask=with_mask)
    return clock.measured(**asdict(found))


def negatives(n: int) -> Measured:
    """The share of a colour without and with a negative prompt that names it."""
    from tests.vqgan_clip import judged

    from vqgan_clip.models import load_models

    with Stopwatch() as clock:
        without, negative = judged.repelled(n, load_models())
    return clock.measured(without=without, negative=negative)


def overlap(n: int) -> Measured:
    """Intersection over union of masks by text with the drawn shapes."""
    from tests.vqgan_clip import judged

    from vqgan_clip.models import load_models

    with Stopwatch() as clock:
        found = judged.overlap(n, load_models())
    return clock.measured(overlap=found)


def measure(setting: Setting) -> Result:
    n_pairs, n_edits = (2, 2) if setting.is_quick else (N_PAIRS, N_EDITS)
    # One thread: the toy's operations are too small for two, and pixels depend on the number.
    run = partial(in_process, n_cpus=1, timeout=3600.0)
    plain = {"steps": None, "augment": None, "start": "noise", "held_out": False}
    result: Result = {"n_pairs": n_pairs, "n_edits": n_edits, "pictures": {}, "edits": {}}
    for name, change in PICTURES.items():
        result["pictures"][name] = run(pictures, n=n_pairs, **{**plain, **change})
        print(f"  {name}: {result['pictures'][name]}", flush=True)
    for name, change in EDITS.items():
        flags = {"is_pulled": False, "with_mask": False, **change}
        result["edits"][name] = run(edits, n=n_edits, **flags)
        print(f"  {name}: {result['edits'][name]}", flush=True)
    result["negatives"] = run(negatives, n=n_edits // 2)
    result["overlap"] = run(overlap, n=n_edits)
    return result


def _cells(name: str, measured: Measured, formats: Mapping[str, str]) -> list[str]:
    """A row: the values of some keys, or why there are none."""
    if why := failure([measured]):
        return [name, why]
    return [name, *(format(measured[key], spec) for key, spec in formats.items())]


def section(result: Result) -> str:
    shares = dict.fromkeys(("color", "background", "palette", "shape"), ".0%")
    judged = [_cells(name, found, shares) for name, found in result["pictures"].items()]
    formats = {"reached": ".0%", "outside": ".4f"}
    edited = [
        [*_cells(name, found, formats), f"{found.get('n_other', 0):,}" if name == MASKED else ""]
        for name, found in result["edits"].items()
    ]
    without, negative = (result["negatives"].get(key) for key in ("without", "negative"))
    found = result["overlap"].get("overlap")
    return f"""{result["n_pairs"]} pairs of prompt and seed, with the weights of the package. A convolutional
classifier, trained on drawings with seeds and an architecture of its own, says what shape and colours it
sees. The palette is right if the border's most frequent colour is the background that the prompt names, and
the most frequent other colour that of the shape. The guide's own score is no judge: it is content either way.

{table(["pictures", "colour of the shape", "background", "palette", "shape"], judged)}

{result["n_edits"]} edits of drawings, each to another colour of its shape. The change outside the shape is
the mean difference from the encoded and decoded drawing, of values from 0 to 1.

{table(["edits", "new colour", "change outside", "pixels outside that changed"], edited)}

A negative prompt lowers the share of the colour that it names from {_share(without)} to {_share(negative)}
of the pixels. Masks that CLIP finds for a text overlap with the drawn shapes by {_number(found)}
(intersection over union)."""


def _share(value: float | None) -> str:
    return "(failed)" if value is None else f"{value:.0%}"


def _number(value: float | None) -> str:
    return "(failed)" if value is None else f"{value:.2f}"


def verdicts(result: Result) -> list[Verdict]:
    prompts, random = result["pictures"]["prompts"], result["pictures"]["random codes, no step"]
    plain, pulled, masked = (result["edits"][name] for name in EDITS)
    negative = result["negatives"]
    found = [
        _at_least("colour of the shape", COLOR, prompts, "color"),
        _at_least("background", COLOR, prompts, "background"),
        _at_least("palette", PALETTE, prompts, "palette"),
        _at_least("shape", SHAPE, prompts, "shape"),
        *(_at_least(f"edits {name}", EDITED, edit, "reached") for name, edit in result["edits"].items()),
        _at_least("overlap of masks by text", OVERLAP, result["overlap"], "overlap"),
    ]
    worst = max(random.get(key, 1.0) for key in ("color", "background", "shape"))
    found.append(_verdict("random codes", f"at most {CHANCE:.0%}", f"{worst:.0%}", worst <= CHANCE))
    lower = negative.get("negative", 1.0), negative.get("without", 0.0)
    found.append(_verdict("a negative prompt", "a lower share", f"{lower[0]:.0%}", lower[0] < lower[1]))
    n_other = masked.get("n_other", -1)
    found.append(_verdict("pixels outside a mask", "none changed", f"{n_other:,}", n_other == 0))
    ratio = pulled.get("outside", 1.0) / max(plain.get("outside", 0.0), 1e-9)
    found.append(
        _verdict("change outside, with the pull", f"at most {PULLED:.0%}", f"{ratio:.0%}", ratio <= PULLED)
    )
    return found


def _at_least(what: str, target: float, measured: Measured, key: str) -> Verdict:
    value = measured.get(key, 0.0)
    return _verdict(what, f"at least {target:.0%}", f"{value:.0%}", value >= target)


def _verdict(what: str, target: str, found: str, is_met: bool) -> Verdict:
    return Verdict(job=f"{TITLE}: {what}", target=target, found=found, is_met=is_met)
