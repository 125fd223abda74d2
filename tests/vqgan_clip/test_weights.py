"""Weights of taming-transformers and diffusers load unchanged; foreign and damaged ones are refused."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file
from tests.vqgan_clip.checkpoints import (
    F16,
    GUMBEL,
    SMALL,
    SMALL_GUMBEL,
    diffusers_config,
    random_vqgan,
    taming_config,
    taming_state,
    write_diffusers,
    write_taming,
)

from pile_tools import ConfigError, FormatError, VerifyError
from vqgan_clip.vqgan import Vqgan, VqganConfig
from vqgan_clip.weights import load_weights

IMAGES = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1


def require_equal(found: Vqgan, expected: Vqgan) -> None:
    assert found.config == expected.config
    state, wanted = found.state_dict(), expected.state_dict()
    assert list(state) == list(wanted)
    assert all(torch.equal(state[name], wanted[name]) for name in wanted)
    assert not any(parameter.requires_grad for parameter in found.parameters())
    assert not found.training


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("config", [F16, GUMBEL, SMALL, SMALL_GUMBEL], ids=["f16", "gumbel", "small", "both"])
def test_a_checkpoint_of_taming(tmp_path: Path, config: VqganConfig) -> None:
    model = random_vqgan(config)
    path = write_taming(tmp_path, model)
    found, provenance = load_weights(path)
    require_equal(found, model)
    assert (provenance.source, provenance.layout) == (str(path), "taming")
    assert provenance.sha256 == {name: digest(tmp_path / name) for name in ("last.ckpt", "model.yaml")}


def test_a_folder_of_taming_prefers_safetensors(tmp_path: Path) -> None:
    model = random_vqgan(SMALL)
    write_taming(tmp_path, random_vqgan(SMALL, seed=1))
    save_file(taming_state(model), tmp_path / "last.safetensors")
    found, provenance = load_weights(tmp_path)
    require_equal(found, model)
    assert list(provenance.sha256) == ["last.safetensors", "model.yaml"]


def test_the_config_of_the_same_name_is_read(tmp_path: Path) -> None:
    path = write_taming(tmp_path, random_vqgan(SMALL), name="a.ckpt", config="a.yaml")
    write_taming(tmp_path, random_vqgan(SMALL_GUMBEL), name="b.ckpt", config="b.yaml")
    assert not load_weights(path)[0].config.is_gumbel
    assert load_weights(tmp_path / "b.ckpt")[0].config.is_gumbel


def test_the_first_stage_of_a_transformer(tmp_path: Path) -> None:
    model = random_vqgan(SMALL)
    first = taming_config(SMALL)["model"]
    transformer = {
        "target": "taming.models.cond_transformer.Net2NetTransformer",
        "params": {"first_stage_config": first, "cond_stage_config": {}, "cond_stage_key": "depth"},
    }
    (tmp_path / "model.yaml").write_text(yaml.safe_dump({"model": transformer}))
    state = {f"first_stage_model.{name}": tensor for name, tensor in taming_state(model).items()}
    state |= {f"cond_stage_model.{name}": tensor + 1 for name, tensor in model.state_dict().items()}
    state["transformer.tok_emb.weight"] = torch.ones(3, 3)
    torch.save({"state_dict": state}, tmp_path / "last.ckpt")
    require_equal(load_weights(tmp_path)[0], model)


def test_tensors_without_a_checkpoint_around_them(tmp_path: Path) -> None:
    model = random_vqgan(SMALL)
    (write_taming(tmp_path, model)).unlink()
    torch.save(model.state_dict(), tmp_path / "vqgan.pt")
    require_equal(load_weights(tmp_path)[0], model)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floating_point_types_become_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    model = random_vqgan(SMALL).to(dtype)
    found, _ = load_weights(write_taming(tmp_path, model))
    require_equal(found, model.to(torch.float32))


@pytest.mark.parametrize("config", [F16, replace(SMALL, ch=32)], ids=["f16", "small"])
@pytest.mark.parametrize("is_safe", [True, False])
def test_a_folder_that_diffusers_writes(tmp_path: Path, config: VqganConfig, is_safe: bool) -> None:
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.VQModel(**diffusers_config(config)).eval()
    theirs.save_pretrained(tmp_path, safe_serialization=is_safe)
    found, provenance = load_weights(tmp_path)
    assert found.config == config
    assert provenance.layout == "diffusers"
    assert ("safetensors" in "".join(provenance.sha256)) == is_safe
    with torch.no_grad():
        latents = found.encode(IMAGES)
        torch.testing.assert_close(latents, theirs.encode(IMAGES).latents, atol=1e-5, rtol=1e-4)
        decoded = theirs.decode(latents, force_not_quantize=True).sample
        torch.testing.assert_close(found.decode(latents), decoded, atol=1e-4, rtol=1e-4)


def test_a_folder_of_diffusers_before_its_attention_was_renamed(tmp_path: Path) -> None:
    model = random_vqgan(replace(SMALL, ch=32))
    old = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}

    def rename(name: str) -> str:
        return re.sub("|".join(map(re.escape, old)), lambda found: old[found[0]], name)

    require_equal(load_weights(write_diffusers(tmp_path, model, rename))[0], model)


def test_a_folder_of_diffusers_without_a_length_of_entries_has_that_of_the_latents(tmp_path: Path) -> None:
    model = random_vqgan(replace(SMALL, ch=32))
    require_equal(load_weights(write_diffusers(tmp_path, model, vq_embed_dim=None))[0], model)


def test_the_sha256_is_compared(tmp_path: Path) -> None:
    path = write_taming(tmp_path, random_vqgan(SMALL))
    load_weights(path, sha256=digest(path).upper())
    with pytest.raises(VerifyError, match=rf"SHA-256 is {digest(path)}, expected 0+ \(.*last.ckpt\)"):
        load_weights(path, sha256="0" * 64)
    with pytest.raises(ConfigError, match="sha256 must have 64 hexadecimal digits, got 'abc'"):
        load_weights(path, sha256="abc")


def test_a_file_with_another_sha256_is_not_parsed(tmp_path: Path) -> None:
    path = write_taming(tmp_path, random_vqgan(SMALL))
    path.write_bytes(b"no checkpoint")
    with pytest.raises(VerifyError):
        load_weights(path, sha256="0" * 64)


Change = Callable[[dict[str, torch.Tensor]], object]


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("decoder.conv_in.bias"), r"no tensor decoder.conv_in.bias: another architecture"),
        (
            lambda s: s.update({"encoder.more": torch.ones(1)}),
            r"encoder.more is no tensor of a VQGAN of this config",
        ),
        (
            lambda s: s.update({"quantize.embedding.weight": torch.ones(16, 8)}),
            r"quantize.embedding.weight has shape \(16, 8\), expected \(16, 4\): another architecture",
        ),
        (
            lambda s: s.update({"decoder.conv_in.bias": torch.ones(16, dtype=torch.int32)}),
            r"decoder.conv_in.bias has dtype torch.int32, expected floating point",
        ),
        (
            lambda s: s.update({"decoder.conv_in.bias": torch.full((16,), torch.nan)}),
            r"decoder.conv_in.bias has values that are not finite",
        ),
        (
            lambda s: s["quantize.embedding.weight"].fill_(0.5),
            r"the values of the codebook have no deviation",
        ),
        (lambda s: s.clear(), r"no tensor encoder.conv_in.weight: another architecture"),
    ],
)
def test_another_architecture_is_refused(tmp_path: Path, change: Change, message: str, suffix: str) -> None:
    path = write_taming(tmp_path, random_vqgan(SMALL))
    state = {name: tensor.clone() for name, tensor in random_vqgan(SMALL).state_dict().items()}
    change(state)
    path.unlink()
    path = path.with_suffix(suffix)
    save_file(state, path) if suffix == ".safetensors" else torch.save({"state_dict": state}, path)
    with pytest.raises(FormatError, match=rf"{message}.*\({re.escape(str(path))}\)$"):
        load_weights(path)


def test_a_view_that_repeats_its_storage_is_refused(tmp_path: Path) -> None:
    # Of a few bytes in the file, a copy would make 16 GiB. The config agrees with the view.
    config = taming_config(SMALL)
    config["model"]["params"] |= {"embed_dim": 4096, "n_embed": 1 << 20}
    path = write_taming(tmp_path, random_vqgan(SMALL))
    (tmp_path / "model.yaml").write_text(yaml.safe_dump(config))
    torch.save({"quantize.embedding.weight": torch.ones(1).expand(1 << 20, 4096)}, path)
    with pytest.raises(FormatError, match=r"quantize.embedding.weight does not hold all its values"):
        load_weights(path)


def changed(**changes: Any) -> str:
    config = taming_config(SMALL)
    for path, value in changes.items():
        *folders, key = path.split("__")
        at = config
        for folder in folders:
            at = at[folder]
        at[key] = value
    return yaml.safe_dump(config)


DDCONFIG = "model__params__ddconfig__"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a YAML config: null, expected an object"),
        ("[1]", "not a YAML config: a list, expected an object"),
        ("model: {", "not a YAML config: while parsing a flow node"),
        ("\x00", "not a YAML config: unacceptable character"),
        ("a: &x [1]\nb: *x\n", "not a YAML config: an alias"),
        ("a: !!bool x\n", "not a YAML config: a value that is no bool"),
        ('a: !!int ""\n', "not a YAML config: a value that is no int"),
        ("a: !!timestamp x\n", "not a YAML config: a value that is no timestamp"),
        ("a: !!float x\n", "not a YAML config: could not convert"),
        (
            "a: !!python/object/apply:os.system ['true']",
            "not a YAML config: could not determine a constructor",
        ),
        ("a: " + ":".join(["59"] * 200) + ".5", "not a YAML config: int too large to convert"),
        ("a: 2021-01-01", "not a YAML config: Object of type date"),
        ("a: .inf", "not a YAML config: Infinity is not a number"),
        ("a: " + "9" * 5000, "not a YAML config: "),
        ("[" * 10_000, "not a YAML config: "),
        ("a: " + "[" * 60 + "]" * 60, "not a YAML config: nested more than 32 deep"),
        ("#" * (2 << 20), "more than 1,048,576 bytes"),
        ("data: {}", "missing key 'model'"),
        (
            changed(model__target="os.system"),
            'target is "os.system", expected one of taming.models.vqgan.VQModel',
        ),
        (changed(model__target="taming.models.vqgan.EMAVQ"), "expected one of taming"),
        (changed(model__params={}), "missing key 'ddconfig'"),
        (changed(model__params__n_embed="many"), 'n_embed is "many", expected a whole number'),
        (changed(model__params__remap="x.npy"), "expected null: codes are not renumbered here"),
        (changed(model__params__n_embed=10**12), "n_embed must be from 1 to 1,048,576, got 1000000000000"),
        (changed(**{f"{DDCONFIG}ch": 0}), "ch must be from 1 to 1,024, got 0"),
        (changed(**{f"{DDCONFIG}ch_mult": [1] * 1000}), "ch_mult must have 1 to 8 values, got 1000"),
        (changed(**{f"{DDCONFIG}in_channels": 1}), "in_channels is 1, expected 3"),
        (changed(**{f"{DDCONFIG}double_z": True}), "double_z is true, expected false"),
        (changed(**{f"{DDCONFIG}z_channels": 4096}), "has shape .* another architecture"),
    ],
)
def test_a_bad_config_of_taming_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = write_taming(tmp_path, random_vqgan(SMALL))
    (tmp_path / "model.yaml").write_text(text)
    with pytest.raises(FormatError, match=message) as raised:
        load_weights(path)
    assert "\n" not in str(raised.value)
    assert str(tmp_path) in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"_class_name": "AutoencoderKL"}, '_class_name is "AutoencoderKL", expected one of VQModel'),
        ({"norm_num_groups": 8}, "norm_num_groups is 8, expected 32"),
        ({"norm_type": "spatial"}, 'norm_type is "spatial", expected "group"'),
        ({"mid_block_add_attention": False}, "mid_block_add_attention is false, expected true"),
        ({"block_out_channels": [32, 48]}, "expected multiples of the first"),
        ({"block_out_channels": []}, "expected multiples of the first"),
        ({"block_out_channels": 3}, "expected a list"),
        ({"down_block_types": ["DownEncoderBlock2D"]}, "expected 2 of DownEncoderBlock2D"),
        ({"up_block_types": ["UpDecoderBlock2D"] * 2}, "expected attention at the resolutions of"),
        ({"sample_size": 0}, "sample_size is 0, expected a whole number from 1"),
        ({"num_vq_embeddings": 10**15}, "n_embed must be from 1 to"),
        ({"layers_per_block": 2}, "no tensor .* another architecture"),
    ],
)
def test_a_bad_config_of_diffusers_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    write_diffusers(tmp_path, random_vqgan(replace(SMALL, ch=32)), **changes)
    with pytest.raises(FormatError, match=message):
        load_weights(tmp_path)


def test_what_a_folder_lacks_is_said(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"no VQGAN here: expected a \.safetensors or \.ckpt"):
        load_weights(tmp_path)
    path = write_taming(tmp_path, random_vqgan(SMALL))
    write_taming(tmp_path, random_vqgan(SMALL), name="other.ckpt")
    with pytest.raises(
        FormatError, match=r"several files of weights, give one of them: last.ckpt, other.ckpt"
    ):
        load_weights(tmp_path)
    (tmp_path / "model.yaml").unlink()
    with pytest.raises(FormatError, match=r"expected the config last.yaml or one .yaml beside it, found 0"):
        load_weights(path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FormatError, match=r"no diffusion_pytorch_model.safetensors or .* beside config.json"):
        load_weights(tmp_path)


def test_a_path_that_is_no_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_weights(tmp_path / "absent.ckpt")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(FormatError, match=r"expected a folder or a file of weights \(\.safetensors"):
        load_weights(tmp_path / "notes.txt")


@pytest.mark.parametrize("keep", [0, 10, 500, 0.5, 0.999])
@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_a_file_cut_short_is_refused(tmp_path: Path, keep: float, suffix: str) -> None:
    model = random_vqgan(SMALL)
    path = write_taming(tmp_path, model)
    if suffix == ".safetensors":
        path = path.with_suffix(suffix)
        save_file(taming_state(model), path)
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    with pytest.raises(FormatError, match=rf"not a .*\({re.escape(str(path))}\)"):
        load_weights(path)


def damaged(data: bytes, random: Random) -> bytes:
    """Some bytes of a file changed, removed or inserted, most of them in its first and last few thousand."""
    changed_bytes = bytearray(data)
    for _ in range(random.choice([1, 2, 5, 30])):
        n = len(changed_bytes)
        start = random.choice([0, max(0, n - 6000)])
        at = random.randrange(start, min(n, start + 6000))
        match random.randrange(3):
            case 0:
                changed_bytes[at] = random.randrange(256)
            case 1:
                del changed_bytes[at : min(n - 1, at + random.randrange(1, 20))]
            case _:
                changed_bytes[at:at] = random.randbytes(random.randrange(1, 8))
    return bytes(changed_bytes)


@pytest.mark.parametrize("name", ["last.ckpt", "last.safetensors", "model.yaml"])
def test_damaged_files_load_or_are_refused_in_a_line(tmp_path: Path, name: str) -> None:
    model, random = random_vqgan(SMALL), Random(name)
    path = write_taming(tmp_path, model)
    if name.endswith(".safetensors"):
        path.unlink()
        save_file(taming_state(model), tmp_path / name)
    data = (tmp_path / name).read_bytes()
    messages = []
    for _ in range(80):
        (tmp_path / name).write_bytes(damaged(data, random))
        try:
            load_weights(tmp_path)
        except FormatError as err:
            messages.append(str(err))
    assert len(messages) > 40
    assert all("\n" not in message and str(tmp_path) in message for message in messages)
