# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
import copy
from concurrent.futures import ThreadPoolExecutor
from typing import Optional

import pytest
import torch
from cpu_kinds import packs_bfloat16
from tiny_checkpoints import END, START, VOCABULARY
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from caption_ros.captioner import CaptionOptions
from caption_ros.captioners import greedy, stepper
from caption_ros.captioners.decoding import decode, search_config
from caption_ros.captioners.devices import has_vnni
from caption_ros.captioners.greedy import GreedySearch, can_search
from caption_ros.captioners.linears import PlainLinear, ScreenedHead, can_pack, pack_linears

pytestmark = pytest.mark.usefixtures('layers')
ROWS, SEEN, WIDTH = 5, 9, 24


def _decoder(seed=0, **changes):
    torch.manual_seed(seed)
    model = GPT2LMHeadModel(GPT2Config(**{
        'vocab_size': VOCABULARY, 'n_positions': 32, 'n_embd': WIDTH, 'n_layer': 2, 'n_head': 2,
        'bos_token_id': START, 'eos_token_id': END, 'add_cross_attention': True,
        'is_decoder': True, **changes})).eval()
    with torch.no_grad():
        for weight in model.parameters():  # biases too, which are 0 when new
            weight.normal_(0, 0.4)
    return model


def _config(model, eos=END):
    return search_config(model.generation_config, eos=eos, pad=END)


def _both(model, mask, new=12, eos=END):
    config = _config(model, eos)
    model.generation_config = config
    assert can_search(model, config)
    hidden = torch.randn(ROWS, SEEN, WIDTH, generator=torch.Generator().manual_seed(9))
    with torch.inference_mode():
        wanted = decode(model, config, torch.tensor([START]), hidden, mask,
                        CaptionOptions(max_new_tokens=new), 32)
        return GreedySearch(model, eos)([START], hidden, list(range(ROWS)), mask, new), wanted


@pytest.mark.parametrize('activation', ['gelu_new', 'gelu', 'gelu_pytorch_tanh'])
@pytest.mark.parametrize('masked', [False, True])
@pytest.mark.parametrize('seed', range(4))
def test_it_says_what_generate_says(seed, masked, activation):
    mask = None
    if masked:
        mask = (torch.rand(ROWS, SEEN, generator=torch.Generator().manual_seed(seed)) < 0.4).long()
        mask[:, seed] = 1
    found, wanted = _both(_decoder(seed, activation_function=activation), mask)
    assert found.tokens == wanted.tokens
    assert found.scores == pytest.approx(wanted.scores, rel=1e-4)


def test_rows_may_look_at_one_image():
    model = _decoder(2)
    hidden = torch.randn(1, SEEN, WIDTH, generator=torch.Generator().manual_seed(9))
    mask = torch.eye(ROWS, SEEN).long()
    search = GreedySearch(model, END)
    with torch.inference_mode():
        shared = search([START], hidden, [0] * ROWS, mask, 8)
        each = search([START], hidden.repeat(ROWS, 1, 1), list(range(ROWS)), mask, 8)
    assert shared.tokens == each.tokens and len({str(row) for row in shared.tokens}) > 1
    assert shared.scores == pytest.approx(each.scores, rel=1e-4)


def test_rows_end_each_on_its_own():
    model = _decoder(3)
    unending, _ = _both(model, None)
    often = unending.tokens[0][4]  # what one row says becomes an end
    found, wanted = _both(model, None, eos=[END, often])
    assert found.tokens == wanted.tokens
    assert found.scores == pytest.approx(wanted.scores, rel=1e-4)
    assert len({len(row) for row in found.tokens}) > 1


def test_the_length_holds():
    found, wanted = _both(_decoder(1), None, new=1)
    assert found.tokens == wanted.tokens
    assert all(len(row) <= 1 for row in found.tokens)


@pytest.mark.parametrize('changes', [
    {'repetition_penalty': 1.3}, {'no_repeat_ngram_size': 2}, {'suppress_tokens': [5]},
    {'begin_suppress_tokens': [END]}, {'bad_words_ids': [[7]]}, {'forced_eos_token_id': 3},
    {'min_new_tokens': 4}, {'something_new': 1}])
def test_a_generation_config_with_a_wish_is_left_to_generate(changes):
    model = _decoder()
    config = _config(model)
    assert can_search(model, config)
    for name, value in changes.items():
        setattr(config, name, value)
    assert not can_search(model, config)


@pytest.mark.parametrize('changes', [
    {'scale_attn_by_inverse_layer_idx': True}, {'scale_attn_weights': False},
    {'reorder_and_upcast_attn': True}, {'activation_function': 'relu'},
    {'add_cross_attention': False}])
def test_an_unusual_decoder_is_left_to_generate(changes):
    model = _decoder(**changes)
    assert not can_search(model, _config(model))


@pytest.mark.parametrize('dtype, vocabulary, screened', [
    (torch.bfloat16, 16_384, True), (torch.float32, 16_384, False), (torch.bfloat16, 500, False)])
def test_packed_bfloat16_of_a_large_vocabulary_is_screened(dtype, vocabulary, screened):
    same, new = 0, 12 if dtype == torch.float32 else 6
    for seed in range(5):
        model = _decoder(seed, vocab_size=vocabulary).to(dtype)
        pack_linears(model)
        head = greedy._head(model.lm_head, model.transformer.wte.weight)
        assert isinstance(head, ScreenedHead) is (screened and can_pack(dtype))
        hidden = torch.randn(2, SEEN, WIDTH).to(dtype)
        with torch.inference_mode():
            found = GreedySearch(model, END)([START], hidden, [0, 1], None, new)
            wanted = decode(model, _config(model), torch.tensor([START]), hidden, None,
                            CaptionOptions(max_new_tokens=new), 32)
        for said, score, words, likely in zip(found.tokens, found.scores, wanted.tokens,
                                              wanted.scores):
            if said == words:
                same += 1
                assert score == pytest.approx(likely, rel=0.05)
    # In bfloat16 two words may be as likely, and each way to compute takes one of them.
    assert same == 10 if dtype == torch.float32 else same >= 8


@packs_bfloat16
@pytest.mark.parametrize('tokens', [1, 20])  # some in full, all in full
def test_a_packed_head_of_a_large_vocabulary_gives_the_likeliest_in_full(tokens):
    model = _decoder(vocab_size=16_384).to(torch.bfloat16)
    weight = model.transformer.wte.weight
    pack_linears(model)
    x = torch.randn(tokens, WIDTH).to(torch.bfloat16)
    with torch.inference_mode():
        found = greedy._head(model.lm_head, weight)(x)
        wanted = nn.functional.linear(x.double(), weight.double())
    assert found.dtype == torch.float32
    assert torch.allclose(found.amax(1).double(), wanted.amax(1), rtol=2 ** -7)


def test_a_head_of_its_own_is_not_screened_by_the_embeddings():
    """A config may call tied what a checkpoint holds two of."""
    model = _decoder(vocab_size=16_384).to(torch.bfloat16)
    model.lm_head.weight = nn.Parameter(torch.randn_like(model.lm_head.weight))
    assert model.config.tie_word_embeddings
    pack_linears(model)
    assert not isinstance(greedy._head(model.lm_head, model.transformer.wte.weight), ScreenedHead)


def test_without_layers_of_int8_nothing_is_screened_and_no_draft_made(monkeypatch):
    model = _decoder(vocab_size=16_384).to(torch.bfloat16)
    pack_linears(model)
    monkeypatch.delattr(torch, 'quantize_per_channel')
    search = GreedySearch(model, END)
    with torch.inference_mode():
        assert search([START], torch.randn(1, SEEN, WIDTH).to(torch.bfloat16), [0], None, 4).tokens
    assert search.drafted == 0


class _OfOneStep(nn.Module):
    def __init__(self, head):
        super().__init__()
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        assert x.size(1) == 1
        return self.head(x)


def test_given_words_cost_no_logits():
    model = _decoder()
    model.lm_head = _OfOneStep(PlainLinear(model.lm_head.weight, None))
    with torch.inference_mode():
        found = GreedySearch(model, END)([START, 7, 9], torch.randn(1, SEEN, WIDTH), [0], None, 4)
    assert found.tokens[0]


@pytest.mark.parametrize('name, value', [
    ('repetition_penalty', 1.0), ('typical_p', 1.0), ('num_beam_groups', 1),
    ('encoder_repetition_penalty', 1.0), ('guidance_scale', 1.0), ('diversity_penalty', 0.0),
    ('no_repeat_ngram_size', 0), ('renormalize_logits', True), ('top_k', 50)])
def test_what_transformers_4_wrote_of_all_it_has_is_no_wish(name, value):
    model = _decoder()
    setattr(model.generation_config, name, value)
    assert can_search(model, _config(model))


@pytest.mark.parametrize('name, value', [
    ('repetition_penalty', 1.2), ('no_repeat_ngram_size', 3), ('typical_p', 0.9)])
def test_what_changes_words_is_left_to_generate(name, value):
    model = _decoder()
    setattr(model.generation_config, name, value)
    assert not can_search(model, _config(model))


def _packed(seed):
    model = _decoder(seed)
    pack_linears(model)
    return model


def _wanted(model, hidden, new, eos=END):
    return decode(model, _config(model, eos), torch.tensor([START]), hidden, None,
                  CaptionOptions(max_new_tokens=new), 32)


@pytest.mark.parametrize('seed', range(8))
def test_a_draft_changes_no_word(seed):
    model = _packed(seed)
    hidden = torch.randn(1, SEEN, WIDTH, generator=torch.Generator().manual_seed(9))
    with torch.inference_mode():
        search = GreedySearch(model, END)
        found = search([START], hidden, [0], None, 12)
        wanted = _wanted(model, hidden, 12)
    assert 0 < search.right <= search.drafted <= 12
    assert found.tokens == wanted.tokens
    assert found.scores == pytest.approx(wanted.scores, rel=1e-3)


def test_a_draft_that_is_wrong_is_given_up_and_changes_no_word(monkeypatch):
    monkeypatch.setattr(greedy, 'rounded', lambda _: greedy._gpt2(_decoder(7))[0])
    model = _packed(0)
    hidden = torch.randn(1, SEEN, WIDTH)
    with torch.inference_mode():
        search = GreedySearch(model, VOCABULARY + 1)
        found = search([START], hidden, [0], None, 30)
        wanted = _wanted(model, hidden, 30, eos=VOCABULARY + 1)
    assert found.tokens == wanted.tokens and len(found.tokens[0]) == 30
    assert 2 * search.right < search.drafted < 12  # of 58, were there two before each token


def test_a_draft_that_stays_wrong_is_asked_of_few_captions(monkeypatch):
    monkeypatch.setattr(greedy, 'rounded', lambda _: greedy._gpt2(_decoder(7))[0])
    search, hidden, asked = GreedySearch(_packed(0), VOCABULARY + 1), _hidden(1), []
    with torch.inference_mode():
        for _ in range(80):
            before = search.drafted
            search([START], hidden, [0], None, 30)
            asked.append(search.drafted > before)
    assert all(asked[:2]) and 2 <= sum(asked[10:]) <= 4  # 70 captions


def test_a_draft_that_is_right_again_is_asked_again(monkeypatch):
    search, hidden, asked = GreedySearch(_packed(0), VOCABULARY + 1), _hidden(1), []
    search._lately, search._right_lately = 256.0, 0.0  # it was wrong
    with torch.inference_mode():
        for _ in range(300):
            before = search.drafted
            search([START], hidden, [0], None, 30)
            asked.append(search.drafted > before)
    assert search.right > 0.8 * search.drafted
    assert sum(asked[:31]) <= 1 and all(asked[-10:])


@pytest.mark.parametrize('seed', range(8))
def test_a_draft_in_4_bits_changes_no_word_of_int8(seed, layers, monkeypatch):
    if layers == 'torch' or not has_vnni():
        pytest.skip('there is no kernel of 4 bits')
    monkeypatch.setattr(greedy, '_UNCACHED', 1)
    model, hidden = _decoder(seed), _hidden(1)
    pack_linears(model, int8=True)
    with torch.inference_mode():
        search, alone = GreedySearch(model, END), GreedySearch(model, END)
        alone._most_drafted = 0
        found = search([START], hidden, [0], None, 12)
        wanted = alone([START], hidden, [0], None, 12)
        search([START], hidden, [0, 0], None, 12)  # of more than one there is none
    assert 0 < search.drafted <= 12 and alone.drafted == 0
    assert found.tokens == wanted.tokens
    assert found.scores == pytest.approx(wanted.scores, rel=1e-5)
    assert seed or search.right  # four bits of so few weights are often wrong


@pytest.mark.parametrize('change', [{'n_inner': 50}, {'n_embd': 26}])
def test_a_decoder_with_layers_that_do_not_fit_the_kernel_has_no_draft(change, monkeypatch):
    monkeypatch.setattr(greedy, '_UNCACHED', 1)
    model = _decoder(**change)
    pack_linears(model, int8=True)
    with torch.inference_mode():
        search = GreedySearch(model, END)
        search([START], torch.randn(1, SEEN, model.config.n_embd), [0], None, 12)
    assert search.drafted == 0


def test_a_small_decoder_in_int8_has_no_draft():
    model = _decoder()
    pack_linears(model, int8=True)
    with torch.inference_mode():
        search = GreedySearch(model, END)
        search([START], _hidden(1), [0], None, 12)
    assert search.drafted == 0


def test_a_draft_ends_where_the_caption_ends():
    model = _packed(3)
    hidden = torch.randn(1, SEEN, WIDTH, generator=torch.Generator().manual_seed(9))
    with torch.inference_mode():
        last = _wanted(model, hidden, 12).tokens[0][4]
        search = GreedySearch(model, [END, last])
        found = search([START], hidden, [0], None, 12)
        wanted = _wanted(model, hidden, 12, eos=[END, last])
    assert found.tokens == wanted.tokens and search.drafted <= len(wanted.tokens[0]) + 1 < 7


def _hidden(images, seed=9):
    return torch.randn(images, SEEN, WIDTH, generator=torch.Generator().manual_seed(seed))


def _wanted_of(model, hidden, rows, mask, new, eos=END):
    return decode(model, _config(model, eos), torch.tensor([START]), hidden[rows], mask,
                  CaptionOptions(max_new_tokens=new), 32)


@pytest.mark.parametrize('rows', [[0, 0, 0], [0, 1, 2, 3], [0, 0, 1, 1, 1]],
                         ids=['regions', 'images', 'both'])
def test_a_draft_of_several_captions_changes_no_word(rows):
    right = 0
    for seed in range(4):
        model, hidden = _packed(seed), _hidden(1 + max(rows))
        torch.manual_seed(seed)
        mask = (torch.rand(len(rows), SEEN) < 0.6).long()
        mask[:, 0] = 1
        with torch.inference_mode():
            # One of the words that they say ends them, so that they end one after the other.
            end = _wanted_of(model, hidden, rows, mask, 12).tokens[0][2]
            search = GreedySearch(model, [END, end])
            found = search([START], hidden, rows, mask, 12)
            wanted = _wanted_of(model, hidden, rows, mask, 12, [END, end])
        assert search.drafted and search.drafted % len(rows) == 0
        right += search.right
        assert found.tokens == wanted.tokens
        assert found.scores == pytest.approx(wanted.scores, rel=1e-3)
    assert right  # of one model there may be none, as CPUs round int8 each in its way


def test_a_draft_that_is_wrong_for_one_of_several_is_given_up(monkeypatch):
    monkeypatch.setattr(greedy, 'rounded', lambda _: greedy._gpt2(_decoder(7))[0])
    model, hidden, rows = _packed(0), _hidden(3), [0, 1, 2]
    with torch.inference_mode():
        search = GreedySearch(model, VOCABULARY + 1)
        found = search([START], hidden, rows, None, 30)
        wanted = _wanted_of(model, hidden, rows, None, 30, VOCABULARY + 1)
    assert found.tokens == wanted.tokens
    assert 2 * search.right < search.drafted < 12 * len(rows)


class _LostAfterTheEnd(nn.Module):
    """A decoder's draft that is right, but not of what comes after a caption's end."""

    def __init__(self, decoder, end):
        super().__init__()
        self.decoder = decoder
        self.end: int = end

    def forward(self, block: Tensor, position: int, said: list[Tensor], seen: list[Tensor],
                picks: Tensor, keep: Optional[Tensor], causal: Optional[Tensor]) -> Tensor:
        logits = self.decoder(block, position, said, seen, picks, keep, causal)
        return torch.where((block == self.end).unsqueeze(-1), -logits, logits)


def test_a_caption_that_has_ended_does_not_hold_up_the_draft_of_the_others(monkeypatch):
    model, hidden, rows = _packed(0), _hidden(4), [0, 1, 2, 3]
    with torch.inference_mode():
        said = _wanted_of(model, hidden, rows, None, 12, VOCABULARY + 1).tokens
        end = next(word for word in said[0][:6] if any(word not in other for other in said))
        wanted = _wanted_of(model, hidden, rows, None, 12, end)
        monkeypatch.setattr(greedy, '_draft', lambda whole: _LostAfterTheEnd(
            copy.deepcopy(greedy._gpt2(_decoder(0))[0]), end))
        search = GreedySearch(model, end)
        found = search([START], hidden, rows, None, 12)
    assert found.tokens == wanted.tokens
    assert min(map(len, found.tokens)) < 6 and max(map(len, found.tokens)) == 12
    assert search.right == search.drafted > 8 * len(rows)


def test_captions_of_many_regions_have_no_draft():
    search = GreedySearch(_packed(0), END)
    with torch.inference_mode():
        search([START], _hidden(1), [0] * 13, None, 12)
    assert search.drafted == 0


@packs_bfloat16
@pytest.mark.parametrize('amx, most', [(True, 1), (False, 3)])
def test_a_few_captions_in_bfloat16_have_a_draft(amx, most, monkeypatch):
    monkeypatch.setattr(stepper, 'has_amx', lambda: amx)
    model = _decoder().to(torch.bfloat16)
    pack_linears(model)
    search = GreedySearch(model, END)
    with torch.inference_mode():
        search([START], _hidden(1).to(torch.bfloat16), [0] * (most + 1), None, 12)
        assert search.drafted == 0
        search([START], _hidden(1).to(torch.bfloat16), [0] * most, None, 12)
        assert search.drafted


@packs_bfloat16
@pytest.mark.parametrize('masked', [False, True])
@pytest.mark.parametrize('rows', [[0, 0, 0], [0, 1], [0, 1, 1, 2]])
def test_several_captions_in_bfloat16_see_what_each_would(rows, masked, monkeypatch):
    """Several have keys in bfloat16 and products, one has torch's attention in float32."""
    monkeypatch.setattr(stepper, 'has_amx', lambda: False)
    model = _decoder(2).to(torch.bfloat16)
    pack_linears(model)
    hidden = _hidden(max(rows) + 1).to(torch.bfloat16)
    mask = None
    if masked:
        mask = torch.eye(len(rows), SEEN).long()
    search = GreedySearch(model, END)
    with torch.inference_mode():
        found = search([START], hidden, rows, mask, 1)
        each = [search([START], hidden[image:image + 1], [0],
                       None if mask is None else mask[at:at + 1], 1).scores[0]
                for at, image in enumerate(rows)]
    assert found.scores == pytest.approx(each, rel=0.05)
    if masked or rows == [0, 1]:  # what they see makes a difference
        assert max(each) > 1.15 * min(each)


@pytest.mark.parametrize('keep', [None, 'some'])
@pytest.mark.parametrize('images, queries', [(1, 6), (3, 1), (3, 4)])
def test_products_are_attention(images, queries, keep):
    generator = torch.Generator().manual_seed(5)
    query = torch.randn(images, 2, queries, 16, generator=generator)
    seen = torch.randn(2, images, 2, 9, 16, generator=generator)
    if keep is not None:
        shape = (1, 1, queries, 9) if images == 1 else (images, 1, 1, 9)
        keep = torch.rand(shape, generator=generator) < 0.5
        keep[..., 0] = True
        keep = torch.zeros(shape).masked_fill(~keep, -float('inf'))
    wanted = nn.functional.scaled_dot_product_attention(query, *seen, attn_mask=keep)
    assert torch.allclose(stepper._products(query, seen, keep), wanted, atol=1e-5)


def test_the_memory_of_keys_is_used_again(monkeypatch):
    model = _decoder(1)
    search = GreedySearch(model, END)
    with torch.inference_mode():
        first, = search([START], _hidden(1), [0], None, 12).tokens
        several = search([START], _hidden(4), [0, 1, 2, 3], None, 12).tokens
        (kept,) = search._scratch
        assert kept.numel() == 4 * SEEN * 2 * WIDTH * len(model.transformer.h)
        assert search([START], _hidden(1), [0], None, 12).tokens == [first]
        assert search([START], _hidden(4), [0, 1, 2, 3], None, 12).tokens == several
        assert search._scratch == [kept] and several[0] == first
        monkeypatch.setattr(greedy, '_KEPT', kept.nbytes - 1)
        assert search([START], _hidden(4), [0, 1, 2, 3], None, 12).tokens == several
        assert not search._scratch  # too much to keep


def test_the_mode_of_a_search_does_not_matter_to_the_next():
    search = GreedySearch(_decoder(1), END)
    with torch.inference_mode():
        wanted = search([START], _hidden(4), [0, 1, 2, 3], None, 12).tokens
    with torch.no_grad():
        assert search([START], _hidden(4), [0, 1, 2, 3], None, 12).tokens == wanted


def test_captions_at_the_same_time_do_not_share_memory():
    search = GreedySearch(_decoder(1), END)
    hidden = _hidden(6)
    with torch.inference_mode():
        wanted = [search([START], hidden[at:at + 1], [0], None, 12).tokens for at in range(6)]

    def say(at):
        with torch.inference_mode():
            return search([START], hidden[at:at + 1], [0], None, 12).tokens

    with ThreadPoolExecutor(6) as pool:
        for _ in range(20):
            assert list(pool.map(say, range(6))) == wanted


def test_captions_may_begin_with_given_words():
    plain, packed = _decoder(2), _packed(2)
    hidden = torch.randn(1, SEEN, WIDTH, generator=torch.Generator().manual_seed(9))
    mask = (torch.rand(ROWS, SEEN, generator=torch.Generator().manual_seed(1)) < 0.6).long()
    mask[:, 0] = 1
    with torch.inference_mode():
        wanted = decode(plain, _config(plain), torch.tensor([START, 7, 9]),
                        hidden.repeat(ROWS, 1, 1), mask, CaptionOptions(max_new_tokens=12), 32)
        for model in (plain, packed):
            found = GreedySearch(model, END)([START, 7, 9], hidden, [0] * ROWS, mask, 12)
            assert found.tokens == wanted.tokens
            assert found.scores == pytest.approx(wanted.scores, rel=1e-3)
