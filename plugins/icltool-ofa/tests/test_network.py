"""The network against the expected logits, and against itself on other ways to the same answer."""

from __future__ import annotations

import pytest
import torch
from icltool_ofa.network import OFAForConditionalGeneration
from tiny_ofa import RECORD, array, build
from torch import Tensor
from torch.nn import functional

from icltool.errors import ConfigError, DataError

DECODER_IDS = array("input/decoder_input_ids")
LABELS = torch.tensor([[9, 99, 85, 105, 47, 2], [25, 48, 107, 2, -100, -100]])


@torch.no_grad()
def logits(network: OFAForConditionalGeneration, **inputs: Tensor) -> Tensor:
    return network(**({"decoder_input_ids": DECODER_IDS} | inputs)).logits


def test_the_state_dict_has_the_published_names_and_shapes(tiny: OFAForConditionalGeneration) -> None:
    actual = {name: list(t.shape) for name, t in tiny.state_dict().items() if t.is_floating_point()}
    assert actual == RECORD["state_dict_shapes"]


@pytest.mark.parametrize(
    ("expected", "images", "mask"),
    [
        ("logits", "input/patch_images", None),
        ("logits_second_image_masked", "input/patch_images", [True, False]),
        ("logits_text_only", None, None),
        ("logits_nonsquare", "input/patch_images_nonsquare", None),
    ],
)
def test_logits_are_as_expected(
    tiny: OFAForConditionalGeneration, expected: str, images: str | None, mask: list[bool] | None
) -> None:
    inputs = {"input_ids": array("input/input_ids")}
    if images is not None:
        inputs["patch_images"] = array(images)
    if mask is not None:
        inputs["patch_masks"] = torch.tensor(mask)
    torch.testing.assert_close(logits(tiny, **inputs), array(f"expect/{expected}"), atol=1e-5, rtol=0)


def test_padding_and_other_rows_change_nothing(tiny: OFAForConditionalGeneration, prompt: dict[str, Tensor]) -> None:
    together = logits(tiny, **prompt)
    second = logits(
        tiny,
        input_ids=prompt["input_ids"][1:, :5],
        patch_images=prompt["patch_images"][1:],
        decoder_input_ids=DECODER_IDS[1:, :4],
    )
    torch.testing.assert_close(second, together[1:, :4], atol=1e-5, rtol=0)
    actual = logits(
        tiny, **prompt, attention_mask=prompt["input_ids"] != 1, decoder_attention_mask=(DECODER_IDS != 1).long()
    )
    assert torch.equal(actual, together)


def test_a_hidden_image_is_as_none(tiny: OFAForConditionalGeneration, prompt: dict[str, Tensor]) -> None:
    hidden = logits(tiny, **prompt, patch_masks=torch.tensor([False, False]))
    torch.testing.assert_close(hidden, array("expect/logits_text_only"), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["cache", "past_key_values"])
def test_one_token_at_a_time_gives_the_same_logits(
    tiny: OFAForConditionalGeneration, prompt: dict[str, Tensor], name: str
) -> None:
    ids = DECODER_IDS[:1]
    prompt = {name: tensor[:1] for name, tensor in prompt.items()}
    whole = logits(tiny, **prompt, decoder_input_ids=ids)
    with torch.no_grad():
        encoded = tiny.get_encoder()(**prompt)
        steps, cache = [], None
        for part in (ids[:, :2], ids[:, 2:3], ids[:, 3:]):
            out = tiny(encoder_outputs=encoded, decoder_input_ids=part, **{name: cache}, use_cache=True)
            steps.append(out.logits)
            cache = out["cache"] if "cache" in out else out["past_key_values"]
    torch.testing.assert_close(torch.cat(steps, dim=1), whole, atol=1e-5, rtol=0)


def test_what_it_does_not_know_is_refused(tiny: OFAForConditionalGeneration, prompt: dict[str, Tensor]) -> None:
    with pytest.raises(TypeError, match="kv_cache"):
        tiny(**prompt, decoder_input_ids=DECODER_IDS, kv_cache=None)


def test_several_texts_share_an_encoded_image(tiny: OFAForConditionalGeneration, prompt: dict[str, Tensor]) -> None:
    with torch.no_grad():
        encoded = tiny.get_encoder()(**prompt)
    rows = torch.tensor([1, 0, 1])
    actual = logits(tiny, encoder_outputs=encoded.rows(rows), decoder_input_ids=DECODER_IDS[rows])
    torch.testing.assert_close(actual, array("expect/logits")[rows], atol=1e-5, rtol=0)


def test_the_loss_is_the_cross_entropy_of_the_shifted_labels(
    tiny: OFAForConditionalGeneration, prompt: dict[str, Tensor]
) -> None:
    with torch.no_grad():
        out = tiny(**prompt, labels=LABELS)
    shifted = torch.tensor([[0, 9, 99, 85, 105, 47], [0, 25, 48, 107, 2, 1]])
    assert torch.equal(out.logits, logits(tiny, **prompt, decoder_input_ids=shifted))
    picked = out.logits.log_softmax(-1).gather(2, LABELS.clamp(min=0)[..., None])[..., 0][LABELS >= 0]
    torch.testing.assert_close(out.loss, -picked.mean())


def gradients(network: OFAForConditionalGeneration, prompt: dict[str, Tensor]) -> dict[str, Tensor]:
    network.zero_grad()
    network(**prompt, labels=LABELS).loss.backward()
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.requires_grad}


def test_checkpointed_gradients_are_equal_and_nothing_trains_in_vain(prompt: dict[str, Tensor]) -> None:
    network = build(dropout=0.0).train()
    plain = gradients(network, prompt)
    idle = [name for name, gradient in plain.items() if not gradient.any()]
    # A softmax does not see what is added to all scores, so that keys and their positions have no use for a bias.
    assert [name for name in idle if not name.endswith(("k_proj.bias", "k_linear.bias"))] == []

    runs = []
    first = network.encoder.layers[0].self_attn
    counter = first.register_forward_hook(lambda *_: runs.append(1))
    # transformers 5 has the second name throughout, 6 will have the first alone.
    getattr(network, "activation_checkpointing_enable", network.gradient_checkpointing_enable)()
    checkpointed = gradients(network, prompt)
    counter.remove()
    assert len(runs) == 2
    for name, gradient in plain.items():
        torch.testing.assert_close(checkpointed[name], gradient, atol=1e-6, rtol=1e-5)


def test_dropout_and_stochastic_depth_act_in_training_alone(prompt: dict[str, Tensor]) -> None:
    rates = {"encoder_drop_path_rate": 0.5, "decoder_drop_path_rate": 0.5, "attention_dropout": 0.1}
    network = build(**rates)
    torch.testing.assert_close(logits(network, **prompt), array("expect/logits"), atol=1e-5, rtol=0)
    assert [layer.drop_path.p for layer in network.decoder.layers] == [0.0, 0.5]
    network.freeze_resnet()
    network.train()
    assert not torch.equal(logits(network, **prompt), logits(network, **prompt))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_near(prompt: dict[str, Tensor], dtype: torch.dtype) -> None:
    network = build()
    with torch.no_grad():
        for block in network.encoder.embed_images.layer3:  # drawn weights are larger than half precision holds
            block.bn3.weight *= 0.01
            block.downsample = None if block.downsample is None else block.downsample.append(torch.nn.Tanh())
    mask = torch.tensor([True, False])
    expected = logits(network, **prompt, patch_masks=mask)
    images = prompt["patch_images"].to(dtype)
    actual = logits(network.to(dtype), input_ids=prompt["input_ids"], patch_images=images, patch_masks=mask)
    assert actual.dtype == dtype
    assert functional.cosine_similarity(actual.float().flatten(), expected.flatten(), dim=0) > 0.999


def test_autocast_is_near(tiny: OFAForConditionalGeneration, prompt: dict[str, Tensor]) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        actual = logits(tiny, **prompt)
    torch.testing.assert_close(actual.float(), array("expect/logits"), atol=0.1, rtol=0)


def test_a_row_without_anything_to_see_is_a_number(
    tiny: OFAForConditionalGeneration, prompt: dict[str, Tensor]
) -> None:
    actual = logits(tiny, **prompt, attention_mask=torch.zeros(2, 7), patch_masks=torch.tensor([True, False]))
    assert actual.isfinite().all()


def test_frozen_embeddings_keep_the_projection(prompt: dict[str, Tensor]) -> None:
    network = build()
    network.freeze_embeddings()
    assert not network.get_output_embeddings().weight.requires_grad
    assert "encoder.embed_tokens.weight" not in gradients(network.train(), prompt)


def test_what_has_no_position_is_refused(tiny: OFAForConditionalGeneration) -> None:
    long = torch.full((1, 65), 5)
    with pytest.raises(DataError, match="65 tokens"):
        logits(tiny, input_ids=long)
    with pytest.raises(DataError, match="65 tokens"):
        logits(tiny, input_ids=long[:, :3], decoder_input_ids=long)
    with pytest.raises(ConfigError, match="144 x 64"):
        logits(tiny, input_ids=long[:, :3], patch_images=torch.zeros(1, 3, 144, 64))
