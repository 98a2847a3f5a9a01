# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
import pytest
import tiny_checkpoints
import torch
from cpu_kinds import packs_bfloat16
from transformers import (
    BlipVisionConfig,
    BlipVisionModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    SwinConfig,
    SwinModel,
    ViTConfig,
    ViTModel,
)
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from caption_ros.captioners import load_captioner, loading, products
from caption_ros.captioners.acceleration import Acceleration
from caption_ros.captioners.linears import pack_linears

SIZES = {'hidden_size': 64, 'num_hidden_layers': 2, 'num_attention_heads': 4,
         'intermediate_size': 96, 'image_size': 208, 'patch_size': 16}
ENCODERS = {'vit': lambda: ViTModel(ViTConfig(**SIZES)),
            'clip': lambda: CLIPVisionModel(CLIPVisionConfig(**SIZES)),
            'blip': lambda: BlipVisionModel(BlipVisionConfig(**SIZES)),
            'swin': lambda: SwinModel(SwinConfig(image_size=224, embed_dim=24, depths=[1, 1],
                                                 num_heads=[2, 2]))}


@pytest.fixture(autouse=True)
def without_amx(monkeypatch):
    monkeypatch.setattr(products, 'has_amx', lambda: False)
    monkeypatch.setattr(products, 'cpu_multiplies', lambda dtype: True)


def _encoder(kind):
    torch.manual_seed(0)
    encoder = ENCODERS[kind]().eval()
    with torch.no_grad():
        for weight in encoder.parameters():  # or BLIP's layers say next to nothing
            weight.normal_(0, 0.1)
    return encoder


def _attention_of(encoder):
    return encoder.config._attn_implementation, [type(module) for module in encoder.modules()]


def _heads(tokens, heads=5, images=2, dtype=torch.bfloat16):
    torch.manual_seed(tokens)
    return torch.randn(3, images, tokens, heads, 16).to(dtype).transpose(2, 3)


@pytest.fixture
def asked(layers, monkeypatch):
    """Return the number types that attention computes from, a call each."""
    asked, calls = [], {'kernels': (torch.ops.caption_ros, 'attend_own'),
                        'torch': (torch, 'baddbmm')}
    where, name = calls[layers]
    if not hasattr(where, name):
        pytest.skip('this CPU has no kernel of attention')
    compute, operand = getattr(where, name), layers == 'torch'  # its first is what it adds to

    def count(*args, **options):
        asked.append(args[operand].dtype)
        return compute(*args, **options)
    monkeypatch.setattr(where, name, count)
    return asked


@packs_bfloat16
@pytest.mark.parametrize('kind', ENCODERS)
def test_an_encoder_computes_what_it_did(kind, layers, asked):
    encoder = _encoder(kind)
    size = encoder.config.image_size
    pixels = torch.randn(2, 3, size, size)
    with torch.inference_mode():
        exact = encoder(pixel_values=pixels)[0]
        encoder = encoder.bfloat16()
        before = encoder(pixel_values=pixels.bfloat16())[0]
        assert not asked
        products.attend_by_products(encoder)
        after = encoder(pixel_values=pixels.bfloat16())[0]
    if kind == 'swin':  # its windows have biases of their own
        assert not asked and torch.equal(before, after)
        return
    each = 1 if layers == 'kernels' else len(pixels)
    assert asked == [torch.bfloat16] * each * SIZES['num_hidden_layers']
    # No further from float32 than torch's own attention is.
    assert (after - exact).abs().mean() < 1.2 * (before - exact).abs().mean()


@pytest.mark.usefixtures('layers')
@packs_bfloat16
@pytest.mark.parametrize('tokens', [128, 197, 577])  # all heads at once, and a few
def test_it_attends_as_torch_does(tokens):
    query, key, value = _heads(tokens)
    with torch.inference_mode():
        found, weights = products._attend(None, query, key, value, None, scaling=0.25,
                                         is_causal=False)
        wanted, _ = sdpa_attention_forward(None, query.float(), key.float(), value.float(), None,
                                           scaling=0.25, is_causal=False)
    assert weights is None and found.shape == wanted.shape == (2, tokens, 5, 16)
    assert (found - wanted).abs().max() < 0.03 * wanted.abs().max()


@packs_bfloat16
@pytest.mark.parametrize('kind', ['vit', 'blip'])
def test_beside_weights_of_int8_attention_is_narrowed(kind, layers, asked):
    encoder = _encoder(kind)
    pixels = torch.randn(2, 3, encoder.config.image_size, encoder.config.image_size)
    with torch.inference_mode():
        exact = encoder(pixel_values=pixels)[0]
        pack_linears(encoder, int8=True)
        before = encoder(pixel_values=pixels)[0]
        products.attend_by_products(encoder)
        after = encoder(pixel_values=pixels)[0]
    # The kernel narrows by itself.
    assert set(asked) == {torch.float32 if layers == 'kernels' else torch.bfloat16}
    assert after.dtype == torch.float32
    assert 0 < (after - exact).abs().mean() < 1.1 * (before - exact).abs().mean()


@pytest.mark.parametrize('why', ['few', 'float32', 'mask', 'causal', 'gradient', 'cross',
                                 'other type', 'other width'])
def test_all_else_is_left_to_torch(why, monkeypatch):
    asked = []
    monkeypatch.setattr(products, 'sdpa_attention_forward', lambda *args, **options: asked.append(
        (args, options)) or ('seen', None))
    query, key, value = _heads(127 if why == 'few' else 200,
                               dtype=torch.float32 if why == 'float32' else torch.bfloat16)
    if why == 'cross':
        query = query[:, :, :1]
    if why == 'other type':
        value = value.float()
    if why == 'other width':
        value = value[..., :8]
    mask = torch.zeros(2, 1, 200, 200) if why == 'mask' else None
    layer = torch.nn.Module()
    layer.is_causal = why == 'causal'
    with torch.set_grad_enabled(why == 'gradient'):
        assert products._attend(layer, query, key, value, mask, scaling=0.25) == ('seen', None)
    ((args, options),) = asked
    assert args == (layer, query, key, value, mask) and options == {'scaling': 0.25}


@pytest.mark.parametrize('amx, multiplies', [(True, True), (False, False)])
def test_other_cpus_keep_torchs_attention(amx, multiplies, monkeypatch):
    monkeypatch.setattr(products, 'has_amx', lambda: amx)
    monkeypatch.setattr(products, 'cpu_multiplies', lambda dtype: multiplies)
    encoder = _encoder('vit').bfloat16()
    products.attend_by_products(encoder)
    assert encoder.config._attn_implementation == 'sdpa'


@pytest.mark.parametrize('kind', ['vit', 'blip'])
def test_an_encoder_in_float32_stays_as_it_is(kind):
    encoder = _encoder(kind)
    before = _attention_of(encoder)
    products.attend_by_products(encoder)
    assert _attention_of(encoder) == before


@pytest.mark.parametrize('large, name', [(0, products.NAME), (10**9, 'sdpa')])
def test_a_large_models_encoder_has_it_and_a_small_one_is_traced(large, name, tmp_path,
                                                                 monkeypatch):
    tiny_checkpoints.vit_gpt2(tmp_path)
    monkeypatch.setattr(loading, 'LARGE', large)
    captioner = load_captioner(tmp_path, device='cpu', dtype='bfloat16')
    assert captioner._model.encoder.config._attn_implementation == name


@pytest.mark.parametrize('kind', ['vit', 'blip'])
def test_it_can_be_taken_back(kind):
    encoder = _encoder(kind).bfloat16()
    before = _attention_of(encoder)
    products.attend_by_products(encoder)
    assert _attention_of(encoder) != before
    products.attend_by_torch(encoder)
    assert _attention_of(encoder) == before


@pytest.mark.parametrize('attention, name', [('auto', products.NAME), ('math', 'sdpa')])
def test_an_attention_that_was_asked_for_is_torchs(attention, name, tmp_path, monkeypatch):
    tiny_checkpoints.vit_gpt2(tmp_path)
    monkeypatch.setattr(loading, 'LARGE', 0)
    captioner = load_captioner(tmp_path, device='cpu', dtype='bfloat16',
                               acceleration=Acceleration(attention=attention))
    assert captioner._model.encoder.config._attn_implementation == name
