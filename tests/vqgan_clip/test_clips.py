"""Backends of CLIP give the vectors of their libraries, whatever these return, and refuse what is no CLIP."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.vqgan_clip.checkpoints import CONTEXT, MEAN, SIZE, STD, write_clip, write_open_clip
from torch import Tensor

from pile_tools import ConfigError, FormatError, PileError
from vqgan_clip.clips import Clip, check_text, load_clip, parameters_sha256


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small CLIP as transformers saves it."""
    pytest.importorskip("transformers")
    return write_clip(tmp_path_factory.mktemp("clip"))


def images(n: int) -> Tensor:
    return torch.rand(n, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(3))


def copied(folder: Path, to: Path) -> Path:
    to.mkdir(parents=True)
    for path in folder.iterdir():
        (to / path.name).write_bytes(path.read_bytes())
    return to


def require_clip(clip: Clip) -> None:
    assert clip.encode_texts(["red", "a blue sky"]).shape == (2, 8)
    given = images(3).requires_grad_()
    vectors = clip.encode_images(given)
    assert vectors.shape == (3, 8)
    (gradient,) = torch.autograd.grad(vectors.square().sum(), given)
    assert all(gradient[i].abs().sum() > 0 for i in range(3))
    assert not any(p.requires_grad for p in clip.parameters())  # type: ignore[attr-defined]


def test_transformers_gives_the_vectors_of_its_model(folder: Path) -> None:
    from transformers import CLIPModel, CLIPTokenizer

    clip, hashes = load_clip(str(folder))
    require_clip(clip)
    assert (clip.size, clip.context) == (SIZE, CONTEXT)
    model, tokenizer = CLIPModel.from_pretrained(folder), CLIPTokenizer.from_pretrained(folder)
    assert hashes["parameters"] == parameters_sha256(model)
    # The joint forward pass returns the vectors in every version, scaled to length 1.
    ids = tokenizer(["red", "a blue sky"], padding=True, return_tensors="pt")
    normalized = (images(2) - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    expected = model(**ids, pixel_values=normalized)
    for found, vectors in [
        (clip.encode_texts(["red", "a blue sky"]), expected.text_embeds),
        (clip.encode_images(images(2)), expected.image_embeds),
    ]:
        torch.testing.assert_close(torch.nn.functional.normalize(found, dim=1), vectors)


def test_a_text_has_one_vector_whatever_it_is_beside(folder: Path) -> None:
    clip, _ = load_clip(str(folder))
    alone, beside = clip.encode_texts(["red"]), clip.encode_texts(["red", "a blue sky b"])
    torch.testing.assert_close(alone[0], beside[0])
    assert not torch.allclose(beside[0], beside[1])


@pytest.mark.parametrize("is_object", [False, True])
def test_both_results_of_transformers_are_read(folder: Path, is_object: bool) -> None:
    # `get_text_features` returned a tensor before version 5 and returns an object with `pooler_output` since.
    clip, _ = load_clip(str(folder))
    expected = clip.encode_texts(["red"]), clip.encode_images(images(1))

    def other(function: Any) -> Any:
        def call(**arguments: Any) -> Any:
            found = function(**arguments)
            vectors = found if isinstance(found, Tensor) else found.pooler_output
            return type("Output", (), {"pooler_output": vectors}) if is_object else vectors

        return call

    model = clip.model  # type: ignore[attr-defined]
    model.get_text_features = other(model.get_text_features)
    model.get_image_features = other(model.get_image_features)
    assert torch.equal(clip.encode_texts(["red"]), expected[0])
    assert torch.equal(clip.encode_images(images(1)), expected[1])


def test_half_precision_weights_are_computed_in_float32(folder: Path, tmp_path: Path) -> None:
    half = copied(folder, tmp_path / "half")
    state = {name: tensor.half() for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(state, half / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((half / "config.json").read_text())
    (half / "config.json").write_text(json.dumps({**config, "dtype": "float16", "torch_dtype": "float16"}))
    found, expected = load_clip(str(half))[0], load_clip(str(folder))[0]
    assert found.encode_texts(["red"]).dtype == torch.float32
    torch.testing.assert_close(
        found.encode_images(images(1)), expected.encode_images(images(1)), atol=2e-3, rtol=0
    )


def test_a_folder_without_colours_has_those_of_clip(folder: Path, tmp_path: Path) -> None:
    plain = copied(folder, tmp_path / "plain")
    (plain / "preprocessor_config.json").unlink()
    clip, _ = load_clip(str(plain))
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(1, 3, 1, 1).expand(1, 3, SIZE, SIZE)
    black = load_clip(str(folder))[0].encode_images(
        torch.tensor(MEAN).view(1, 3, 1, 1).expand(1, 3, SIZE, SIZE)
    )
    torch.testing.assert_close(clip.encode_images(mean), black, atol=1e-5, rtol=1e-4)


def test_a_prompt_beyond_the_context_is_refused(folder: Path) -> None:
    clip, _ = load_clip(str(folder))
    clip.encode_texts(["b " * (CONTEXT - 2)])
    with pytest.raises(
        ConfigError, match=r"a prompt of 13 tokens, but this CLIP takes 12 with start and end: "
    ):
        clip.encode_texts(["red", "b " * (CONTEXT - 1)])


@pytest.mark.parametrize("text", ["", " \n"])
def test_an_empty_prompt_is_refused(folder: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="a prompt is empty"):
        load_clip(str(folder))[0].encode_texts([text])


def test_a_long_prompt_is_shortened_in_the_message() -> None:
    with pytest.raises(ConfigError, match=r"'x{37}\.\.\.'$"):
        check_text("x" * 1000, 1000, 77)


def remove(folder: Path, name: str) -> None:
    (folder / name).unlink()


def without_tensor(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    del state["text_projection.weight"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def other_shape(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    state["text_projection.weight"] = torch.ones(9, 16)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def cut_short(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:5000])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: remove(folder, "config.json"), "not a CLIP"),
        (lambda folder: remove(folder, "model.safetensors"), "files of it are missing or cut short"),
        (lambda folder: (folder / "config.json").write_text("{"), "not a CLIP that transformers can load"),
        (cut_short, "files of it are missing or cut short"),
        (other_shape, "not a CLIP that transformers can load"),
        (without_tensor, r"not a CLIP: no tensor text_projection.weight"),
    ],
)
def test_what_is_no_clip_is_refused_in_a_line(
    folder: Path, tmp_path: Path, damage: Any, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    bad = copied(folder, tmp_path / "bad")
    damage(bad)
    with pytest.raises(FormatError, match=message) as raised:
        load_clip(str(bad))
    assert "\n" not in str(raised.value)
    assert str(raised.value).endswith(f"({bad})")
    assert capfd.readouterr() == ("", "")


def test_another_model_is_refused(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    transformers.BertModel(transformers.BertConfig(vocab_size=32, **shape)).save_pretrained(tmp_path)
    with pytest.raises(FormatError, match="not a CLIP"):
        load_clip(str(tmp_path))


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("preprocessor_config.json", {"image_mean": [0.5, 0.5]}, "the mean of the colours is"),
        ("preprocessor_config.json", {"image_mean": 5}, "the mean of the colours is 5"),
        ("preprocessor_config.json", {"image_mean": [[0.5], [0.5], [0.5]]}, "the mean of the colours is"),
        ("preprocessor_config.json", {"image_std": [1e400] * 3}, "the deviation of the colours is"),
        ("preprocessor_config.json", {"image_std": [0.5, 0.5, 0]}, "the deviation of the colours is"),
        ("config.json", {"model_type": "bert"}, "its config is of kind 'bert'"),
        (
            "config.json",
            {"text_config": {"hidden_size": 1 << 14}},
            r"names [0-9,]+ values, and its files have",
        ),
        ("config.json", {"vision_config": {"num_hidden_layers": 999}}, "a CLIP of 1,001 layers"),
        ("config.json", {"text_config": {"layer_norm_eps": None}}, "not a CLIP that transformers can"),
        ("config.json", {"text_config": {"eos_token_id": None}}, "not a CLIP that transformers can"),
        ("config.json", {"text_config": {"eos_token_id": [1, 2]}}, "not a CLIP that transformers can"),
        ("tokenizer_config.json", {"pad_token": None}, "not a CLIP that transformers can"),
        ("tokenizer_config.json", {"model_max_length": "x"}, "not a CLIP that transformers can"),
    ],
)
def test_a_clip_whose_files_do_not_fit_each_other_is_refused(
    folder: Path, tmp_path: Path, file: str, change: dict[str, Any], message: str
) -> None:
    bad = copied(folder, tmp_path / "bad")
    path = bad / file
    values = json.loads(path.read_text())
    for name, value in change.items():
        values[name] = values[name] | value if isinstance(value, dict) else value
    path.write_text(json.dumps(values))
    with pytest.raises(FormatError, match=message):
        load_clip(str(bad))


def test_a_clip_with_the_tokenizer_of_another_model_is_refused(folder: Path, tmp_path: Path) -> None:
    bad = copied(folder, tmp_path / "bad")
    vocab = json.loads((bad / "vocab.json").read_text())
    (bad / "vocab.json").write_text(json.dumps(vocab | {"red</w>": 99_999}))
    with pytest.raises(FormatError, match=r"its tokenizer has the id 99999, and the model [0-9]+ ids"):
        load_clip(str(bad))


@pytest.mark.parametrize(("given", "extra"), [("folder", "hf"), ("open_clip:ViT-B-32:openai", "openclip")])
def test_a_library_that_is_not_installed_is_named(
    monkeypatch: pytest.MonkeyPatch, given: str, extra: str
) -> None:
    name = "open_clip" if extra == "openclip" else "transformers"
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(PileError, match=rf"{name} is not installed: pip install 'pile-tools\[{extra}\]'"):
        load_clip(given)


@pytest.fixture(scope="module")
def open_clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small CLIP as open_clip keeps it in a folder."""
    pytest.importorskip("open_clip")
    return write_open_clip(tmp_path_factory.mktemp("open_clip"))


def test_open_clip_gives_the_vectors_of_its_model(open_clip_folder: Path) -> None:
    import open_clip

    name = f"local-dir:{open_clip_folder}"
    clip, hashes = load_clip(f"open_clip:{name}")
    require_clip(clip)
    assert (clip.size, clip.context) == (SIZE, CONTEXT)
    model = open_clip.create_model(name).eval()
    assert hashes["parameters"] == parameters_sha256(model)
    texts = ["red", "a blue sky"]
    with torch.no_grad():
        expected = model.encode_text(open_clip.get_tokenizer(name)(texts))
        normalized = (images(2) - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
        assert torch.equal(clip.encode_images(images(2)), model.encode_image(normalized))
    torch.testing.assert_close(clip.encode_texts(texts), expected)
    with pytest.raises(ConfigError, match="a prompt of 13 tokens, but this CLIP takes 12"):
        clip.encode_texts(["red " * (CONTEXT - 1)])
    with pytest.raises(ConfigError, match="a prompt is empty"):
        clip.encode_texts([""])


@pytest.mark.parametrize(
    "changed",
    [
        ("preprocess_cfg", {"mean": [0.5, 0.5]}),
        ("preprocess_cfg", {"mean": "x"}),
        ("preprocess_cfg", {"std": ["a", "a", "a"]}),
    ],
)
def test_an_open_clip_with_wrong_colours_is_refused(
    open_clip_folder: Path, tmp_path: Path, changed: tuple[str, dict[str, Any]]
) -> None:
    bad = copied(open_clip_folder, tmp_path / "bad")
    path = bad / "open_clip_config.json"
    values = json.loads(path.read_text())
    values[changed[0]] |= changed[1]
    path.write_text(json.dumps(values))
    with pytest.raises(FormatError, match=r"not a CLIP that open_clip can"):
        load_clip(f"open_clip:local-dir:{bad}")


@pytest.mark.parametrize("given", ["", "ViT-B-32", "ViT-B-32:", ":openai"])
def test_open_clip_needs_a_model_and_weights(given: str) -> None:
    with pytest.raises(
        ConfigError, match=r"expected open_clip:MODEL:PRETRAINED or open_clip:local-dir:FOLDER"
    ):
        load_clip(f"open_clip:{given}")


@pytest.mark.parametrize(
    "given", ["no-such-model:openai", "ViT-B-32:no-such-tag", "local-dir:/no/such/folder"]
)
def test_unknown_models_of_open_clip_are_refused(given: str, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("open_clip")
    with pytest.raises(FormatError, match="not a CLIP that open_clip can load: "):
        load_clip(f"open_clip:{given}")
    assert capfd.readouterr() == ("", "")


class Runs:
    """Unpickling makes a folder."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.mkdir, (self.mark,)


def test_a_name_that_is_no_folder_and_no_cached_model_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("transformers")
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FormatError, match=r"can load: .*; there is no folder of this name here \(no-clip\)"):
        load_clip("no-clip")
    assert capfd.readouterr().err == ""


def test_transformers_runs_no_pickle(folder: Path, tmp_path: Path) -> None:
    bad, mark = copied(folder, tmp_path / "copy"), tmp_path / "mark"
    state = load_file(bad / "model.safetensors")
    remove(bad, "model.safetensors")
    torch.save(state, bad / "pytorch_model.bin")
    assert load_clip(str(bad))[1] == load_clip(str(folder))[1]
    torch.save({**state, "x": Runs(mark)}, bad / "pytorch_model.bin")
    with pytest.raises(FormatError, match="could run code"):
        load_clip(str(bad))
    assert not mark.exists()


#: A dict whose key is a pair of a pair of ..., taken from the memo: hashing it takes 2 to the 40 steps.
BOMB = b"\x80\x02})q\x00" + b"h\x00h\x00\x86q\x00" * 40 + b"K\x01s."


def write_bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", BOMB)
        archive.writestr("archive/version", "3\n")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "other.bin"])
def test_pickles_of_a_clip_are_checked_before_the_library_reads_them(
    folder: Path, tmp_path: Path, name: str
) -> None:
    bad = copied(folder, tmp_path / "copy")
    remove(bad, "model.safetensors")
    write_bomb(bad / name)
    if name != "pytorch_model.bin":
        index = {"metadata": {}, "weight_map": {"logit_scale": name}}
        (bad / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    with pytest.raises(FormatError, match=f"repeats more than .*{name}"):
        load_clip(str(bad))


@pytest.mark.parametrize("name", ["../bad.bin", "/bad.bin", 3, ".."])
def test_an_index_of_a_clip_names_files_of_its_folder(folder: Path, tmp_path: Path, name: Any) -> None:
    bad = copied(folder, tmp_path / "copy")
    remove(bad, "model.safetensors")
    write_bomb(tmp_path / "bad.bin")
    index = {"metadata": {}, "weight_map": {"logit_scale": name}}
    (bad / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    with pytest.raises(FormatError, match=r"pytorch_model\.bin\.index\.json"):
        load_clip(str(bad))


def test_pickles_beside_safetensors_are_not_read(folder: Path, tmp_path: Path) -> None:
    bad = copied(folder, tmp_path / "copy")
    write_bomb(bad / "pytorch_model.bin")
    assert load_clip(str(bad))[1] == load_clip(str(folder))[1]


def with_code(folder: Path, mark: Path) -> None:
    """Names code of the folder as that of its model, tokenizer and image processor."""
    (folder / "code.py").write_text(f"from pathlib import Path\nPath({str(mark)!r}).mkdir()\n")
    for name in ("config.json", "tokenizer_config.json", "preprocessor_config.json"):
        values = json.loads((folder / name).read_text())
        kinds = ("AutoModel", "AutoConfig", "AutoImageProcessor")
        values["auto_map"] = dict.fromkeys(kinds, "code.Model") | {"AutoTokenizer": ["code.Model", None]}
        (folder / name).write_text(json.dumps(values))


def test_code_beside_a_clip_is_not_run(folder: Path, tmp_path: Path) -> None:
    bad, mark = copied(folder, tmp_path / "copy"), tmp_path / "mark"
    with_code(bad, mark)
    assert load_clip(str(bad))[1]["parameters"] == load_clip(str(folder))[1]["parameters"]
    assert not mark.exists()


def test_a_tokenizer_that_needs_code_is_refused_without_a_question(folder: Path, tmp_path: Path) -> None:
    bad, mark = copied(folder, tmp_path / "copy"), tmp_path / "mark"
    with_code(bad, mark)
    path = bad / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "tokenizer_class": "Model"}))
    config = json.loads((bad / "config.json").read_text())
    (bad / "config.json").write_text(json.dumps({**config, "model_type": "unknown"}))
    with pytest.raises(FormatError, match="not a CLIP"):
        load_clip(str(bad))
    assert not mark.exists()


def test_open_clip_runs_no_pickle(open_clip_folder: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    folder = copied(open_clip_folder, tmp_path / "copy")
    (folder / "open_clip_model.safetensors").unlink()

    torch.save({"state_dict": {"x": Runs(mark)}}, folder / "open_clip_pytorch_model.bin")
    with pytest.raises(FormatError, match="could run code"):
        load_clip(f"open_clip:local-dir:{folder}")
    assert not mark.exists()
    write_bomb(folder / "open_clip_pytorch_model.bin")
    for given in (f"local-dir:{folder}", f"ViT-B-32:{folder}/open_clip_pytorch_model.bin"):
        with pytest.raises(FormatError, match="repeats more than"):
            load_clip(f"open_clip:{given}")


@pytest.mark.parametrize("key", ["trust_remote_code", "code_revision", "vocab_file", "use_fast"])
def test_open_clip_runs_no_code_for_its_tokenizer(open_clip_folder: Path, tmp_path: Path, key: str) -> None:
    folder, mark = copied(open_clip_folder, tmp_path / "copy"), tmp_path / "mark"
    path = folder / "open_clip_config.json"
    config = json.loads(path.read_text())
    config["model_cfg"]["text_cfg"] |= {"hf_tokenizer_name": "self", "tokenizer_kwargs": {key: True}}
    path.write_text(json.dumps(config))
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    tokenizer = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    (folder / "own.py").write_text(f"open({str(mark)!r}, 'w')\n")
    with pytest.raises(FormatError, match=f"unknown key '{key}'"):
        load_clip(f"open_clip:local-dir:{folder}")
    # Without the option the library would ask whether to run the code.
    config["model_cfg"]["text_cfg"]["tokenizer_kwargs"] = {}
    path.write_text(json.dumps(config))
    with pytest.raises(FormatError, match="not a CLIP that open_clip can load"):
        load_clip(f"open_clip:local-dir:{folder}")
    assert not mark.exists()


def test_weights_of_the_hub_are_read_from_safetensors_alone(folder: Path, tmp_path: Path) -> None:
    """Others could not be checked before the library loads them."""
    snapshot = tmp_path / "hub/models--a--clip/snapshots" / ("0" * 40)
    references = tmp_path / "hub/models--a--clip/refs"
    references.mkdir(parents=True)
    (references / "main").write_text("0" * 40)
    copied(folder, snapshot)
    program = "import sys; from vqgan_clip.clips import load_clip; print(load_clip('a/clip')[1])"
    settings = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}

    def load() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", program]
        return subprocess.run(
            command, capture_output=True, text=True, check=False, env=settings, cwd=tmp_path, timeout=300
        )

    assert load().stdout == f"{load_clip(str(folder))[1]}\n"
    weights = snapshot / "model.safetensors"
    torch.save(load_file(weights), snapshot / "pytorch_model.bin")
    weights.unlink()
    done = load()
    assert done.returncode == 1
    assert "FormatError: not a CLIP that transformers can load: a/clip does not" in done.stderr


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("preprocessor_config.json", {"image_mean": [0.5, 0.5, 0.5]}),
        ("config.json", {"initializer_factor": 2.0}),
    ],
)
def test_the_hashes_of_a_clip_tell_its_settings(
    folder: Path, tmp_path: Path, name: str, change: dict[str, Any]
) -> None:
    changed = copied(folder, tmp_path / "changed")
    assert load_clip(str(changed))[1] == load_clip(str(folder))[1]
    path = changed / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    before, after = load_clip(str(folder))[1], load_clip(str(changed))[1]
    assert before["parameters"] == after["parameters"]
    assert before["settings"] != after["settings"]


def test_the_hashes_of_an_open_clip_tell_its_settings(open_clip_folder: Path, tmp_path: Path) -> None:
    changed = copied(open_clip_folder, tmp_path / "changed")
    path = changed / "open_clip_config.json"
    values = json.loads(path.read_text())
    values["preprocess_cfg"]["mean"] = [0.5, 0.5, 0.5]
    path.write_text(json.dumps(values))
    before, after = (load_clip(f"open_clip:local-dir:{of}")[1] for of in (open_clip_folder, changed))
    assert before["parameters"] == after["parameters"]
    assert before["settings"] != after["settings"]
