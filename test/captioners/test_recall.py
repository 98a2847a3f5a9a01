# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
import copy
import functools

import pytest
import torch
from cpu_kinds import packs_bfloat16
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_checkpoints import END, START, VOCABULARY
from transformers import GPT2Config, GPT2LMHeadModel

from caption_ros.captioner import CaptionOptions
from caption_ros.captioners import greedy, load_captioner, recall, stepper
from caption_ros.captioners.greedy import GreedySearch
from caption_ros.captioners.linears import pack_linears

SEEN, WIDTH, MOST = 9, 24, 12
LOOKS = [[0], [0, 0, 0], [0, 1, 2, 3], [0, 0, 1, 1, 1]]
NEVER = VOCABULARY + 1  # captions of full length


def _decoder(seed=0):
    torch.manual_seed(seed)
    model = GPT2LMHeadModel(GPT2Config(
        vocab_size=VOCABULARY, n_positions=32, n_embd=WIDTH, n_layer=2, n_head=2,
        bos_token_id=START, eos_token_id=END, add_cross_attention=True, is_decoder=True)).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0, 0.4)
    return model


def _hidden(images, seed=9):
    return torch.randn(images, SEEN, WIDTH, generator=torch.Generator().manual_seed(seed))


def _remember(search, hidden, words, trust=MOST, given=(START,)):
    """Have a search remember words of a caption of one image, and nothing else."""
    search._recall = recall.Recall()
    picks = torch.zeros(1, dtype=torch.int64)
    search._recall.keep(list(given), recall.features_of(hidden, picks, None), [words], trust)


def _mask(rows):
    mask = (torch.rand(len(rows), SEEN, generator=torch.Generator().manual_seed(3)) < 0.6).long()
    mask[:, 0] = 1
    return mask


class _Passes:
    """Notes how many tokens of a row each pass of a search looks at."""

    def __init__(self, monkeypatch):
        self.steps = []
        plain = stepper.Decoder.forward

        def forward(module, block, *rest, **named):
            self.steps.append(block.size(1))
            return plain(module, block, *rest, **named)
        monkeypatch.setattr(stepper.Decoder, 'forward', forward)
        monkeypatch.setattr(torch.jit, 'script', lambda module: module)


@pytest.mark.usefixtures('layers')
@pytest.mark.parametrize('given', [[START], [START, 7, 9]], ids=['plain', 'prompt'])
@pytest.mark.parametrize('masked', [False, True])
@pytest.mark.parametrize('rows', LOOKS)
@pytest.mark.parametrize('seed', range(3))
def test_what_was_said_before_changes_no_word(seed, rows, masked, given):
    mask = _mask(rows) if masked else None
    model = _decoder(seed)
    if seed:
        pack_linears(model)  # with a draft, which goes on where what was said before is wrong
    images = 1 + max(rows)
    plain, search = GreedySearch(model, END), GreedySearch(model, END)
    for moment in (9, 9, 10, 11, 9):
        hidden = _hidden(images, moment)
        wanted = plain(given, hidden, rows, mask, MOST)
        found = search(given, hidden, rows, mask, MOST, recall=True)
        assert found.tokens == wanted.tokens
        assert found.scores == pytest.approx(wanted.scores, rel=1e-3)
    assert search.said_again and search.said_again <= search.recalled
    assert not plain.recalled


@functools.cache
def _searches(seed, packed, end):
    model = _decoder(seed)
    if packed:
        pack_linears(model)
    return GreedySearch(model, end), GreedySearch(model, end)


_CALLS = st.lists(st.tuples(
    st.lists(st.integers(0, 2), min_size=1, max_size=5), st.sampled_from(([], [7, 9])),
    st.sampled_from((1, 2, 3, MOST, 28)), st.integers(0, 2), st.booleans()), max_size=8)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 3), st.booleans(), st.sampled_from((END, NEVER)), _CALLS)
def test_whatever_was_said_before_changes_no_word(seed, packed, end, calls):
    plain, search = _searches(seed, packed, end)
    search._recall = recall.Recall()
    for shown, prompt, most, moment, masked in calls:
        # As captioners have them: ascending, each image at least once.
        rows = sorted(sorted(set(shown)).index(image) for image in shown)
        call = ([START, *prompt], _hidden(1 + max(rows), moment), rows,
                _mask(rows) if masked else None, most)
        assert search(*call, recall=True).tokens == plain(*call).tokens


@pytest.mark.parametrize('rows', LOOKS)
def test_the_same_again_takes_one_look(rows, monkeypatch):
    passes = _Passes(monkeypatch)
    search = GreedySearch(_decoder(), NEVER)
    hidden = _hidden(1 + max(rows))
    first = search([START], hidden, rows, None, MOST, recall=True)
    assert passes.steps == [1] * MOST
    passes.steps.clear()
    assert search([START], hidden, rows, None, MOST, recall=True).tokens == first.tokens
    assert passes.steps == [MOST]
    assert search.said_again == search.recalled == (MOST - 1) * len(rows)


def test_captions_that_have_ended_are_no_news(monkeypatch):
    """What a search says after a caption's end means nothing, and need not be the same."""
    rows, hidden = [0, 1, 2, 3], _hidden(4)
    said = GreedySearch(_decoder(), NEVER)([START], hidden, rows, None, MOST).tokens
    end = next(word for word in said[0][:6] if any(word not in other for other in said))
    passes = _Passes(monkeypatch)
    search = GreedySearch(_decoder(), end)
    first = search([START], hidden, rows, None, MOST, recall=True)
    assert min(map(len, first.tokens)) < 6 and max(map(len, first.tokens)) == MOST
    passes.steps.clear()
    assert search([START], hidden, rows, None, MOST, recall=True).tokens == first.tokens
    assert passes.steps == [MOST]


def test_one_other_word_costs_a_look_and_not_the_rest(monkeypatch):
    search = GreedySearch(_decoder(), NEVER)
    hidden = _hidden(1)
    said = search([START], hidden, [0], None, MOST, recall=True).tokens[0]
    _remember(search, hidden, [*said[:4], (said[4] + 1) % VOCABULARY, *said[5:]])
    assert search([START], hidden, [0], None, MOST, recall=True).tokens == [said]
    # All eleven, four of them right; two; and what is left.
    assert (search.recalled, search.said_again) == (11 + 2 + 3, 4 + 2 + 3)


@pytest.mark.parametrize('drafts', [False, True])
def test_where_a_caption_changes_two_wrong_looks_end_it(drafts, monkeypatch):
    length, changes = 28, 18
    model, hidden = _decoder(), _hidden(1)
    said, = GreedySearch(model, NEVER)([START], hidden, [0], None, length).tokens
    passes = _Passes(monkeypatch)
    if drafts:
        monkeypatch.setattr(greedy, '_draft', copy.deepcopy)
    search = GreedySearch(model, NEVER)
    _remember(search, hidden, said[:changes] + [(word + 1) % VOCABULARY for word in
                                                said[changes:]], trust=length)
    assert search([START], hidden, [0], None, length, recall=True).tokens == [said]
    assert (search.recalled, search.said_again) == (27 + 2 + 2, 18)
    left = length - changes - 3
    if drafts:  # the draft goes on: two words and the decoder's next, then what is left
        assert search.drafted == search.right == 2 + 3
        assert [steps for steps in passes.steps if steps > 1] == [28, 3, 3, 3, 4]
    else:
        assert passes.steps == [28, 3, 3] + [1] * left


def test_what_is_always_wrong_is_tried_little():
    search, hidden = GreedySearch(_decoder(), NEVER), _hidden(1)
    said, = search([START], hidden, [0], None, MOST).tokens
    wrong = [(word + 1) % VOCABULARY for word in said]
    _remember(search, hidden, wrong)
    search([START], hidden, [0], None, MOST, recall=True)
    assert (search.recalled, search.said_again) == (MOST - 1, 0)
    for _ in range(3):
        trust = search._recall.closest([START], torch.zeros(1, WIDTH))[1]
        _remember(search, hidden, wrong, trust)
        tried = search.recalled
        search([START], hidden, [0], None, MOST, recall=True)
        assert search.recalled - tried <= 4 and search.said_again == 0


def test_without_recall_nothing_is_tried_or_remembered():
    search = GreedySearch(_decoder(), END)
    first = search([START], _hidden(1), [0], None, MOST)
    assert not search._recall._prompts
    search([START], _hidden(1, 10), [0], None, MOST, recall=True)
    again = search([START], _hidden(1), [0], None, MOST)
    assert again == first and not search.recalled  # the scores too, to the last bit


def test_other_prompts_begin_other_captions_and_few_are_kept():
    search = GreedySearch(_decoder(), END)
    for prompt in range(20):
        search([START, prompt], _hidden(1), [0], None, 2, recall=True)
    assert search.recalled == 0
    assert list(search._recall._prompts) == [(START, prompt) for prompt in range(12, 20)]
    search([START, 12], _hidden(1), [0], None, 2, recall=True)
    assert search.recalled == 1 and list(search._recall._prompts)[-1] == (START, 12)


def _all_right(search, hidden, rows, mask=None):
    """Tell whether a search recalls something of images, and all of it is right."""
    recalled, again = search.recalled, search.said_again
    search([START], hidden, rows, mask, MOST, recall=True)
    return search.said_again - again == search.recalled - recalled > 0


def test_cameras_that_take_turns_recall_their_own_words():
    search = GreedySearch(_decoder(), NEVER)
    one, other = _hidden(1, 9), _hidden(1, 10)
    assert not _all_right(search, one, [0])  # there is nothing to recall
    assert not _all_right(search, other, [0]) and search.recalled  # the other's words are wrong
    for moment in range(4):  # what a camera sees is never twice the same
        change = 1e-4 * _hidden(1, moment)
        assert _all_right(search, one + change, [0]) and _all_right(search, other + change, [0])


@pytest.mark.parametrize('masked', [False, True], ids=['crops', 'masks'])
def test_regions_that_change_places_or_number_recall_their_own_words(masked):
    search, shown = GreedySearch(_decoder(2), NEVER), [0, 1, 2, 3]
    hidden = _hidden(1) if masked else _hidden(4)
    mask = _mask(shown) if masked else None

    def right(order):
        if masked:
            return _all_right(search, hidden, [0] * len(order), mask[order])
        return _all_right(search, hidden[order], list(range(len(order))))

    assert not right(shown)  # there is nothing to recall
    said = search._recall._prompts[START,].said
    assert len({tuple(words) for words in said}) == 4
    for order in [3, 1, 0, 2], [3, 0, 2], [1], [2, 1, 0, 3, 3]:
        assert right(order)


def test_the_newest_of_what_looked_the_same_is_recalled_and_few_are_kept():
    kept, seen = recall.Recall(), torch.tensor([[3.0, 4.0]])
    for word in range(300):
        kept.keep([START], seen, [[word, word]], 7)
    assert kept.closest([START], seen)[0].tolist() == [[299], [299]]
    features, said, trusts = kept._prompts[START,]
    assert len(features) == 256 and trusts == [7] * 256
    assert said == [[word, word] for word in range(299, 43, -1)]
    kept.keep([START], seen.repeat(300, 1), [[word] for word in range(300)], 7)
    assert len(kept._prompts[START,].features) == len(kept._prompts[START,].said) == 256


def test_each_row_finds_what_looked_most_alike_and_all_try_as_much_as_the_least_trusted():
    kept = recall.Recall()
    kept.keep([START], torch.tensor([[0.0, 0], [10, 0]]), [[5, 6, END], [7]], 9)
    kept.keep([START], torch.tensor([[0.0, 10]]), [[8, 9]], 4)
    words, trust = kept.closest([START], torch.tensor([[9.0, 0], [1, 0]]))
    assert (words.t().tolist(), trust) == ([[7, 7, 7], [5, 6, END]], 9)
    words, trust = kept.closest([START], torch.tensor([[1.0, 8], [1, 2]]))
    assert (words.t().tolist(), trust) == ([[8, 9, 9], [5, 6, END]], 4)


def test_close_frames_far_from_0_are_told_apart():
    """Squares of large numbers leave no digits for a small difference."""
    kept, one = recall.Recall(), torch.full([1, 64], 300.0)
    many = one + 0.01 * torch.arange(200)[:, None]
    kept.keep([START], many, [[word] for word in range(200)], 1)
    assert kept.closest([START], many)[0].tolist() == [list(range(200))]


def test_what_a_row_may_not_look_at_does_not_matter():
    hidden, mask = _hidden(2), _mask([0, 0, 1])
    found = recall.features_of(hidden, torch.tensor([0, 0, 1]), mask)
    wanted = [hidden[image][mask[row].bool()].mean(0) for row, image in enumerate([0, 0, 1])]
    torch.testing.assert_close(found, torch.stack(wanted))
    torch.testing.assert_close(recall.features_of(hidden, torch.tensor([1, 0, 1]), None),
                               hidden.mean(1)[[1, 0, 1]])


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_numbers_are_compared_in_float32(dtype):
    found = recall.features_of(_hidden(2).to(dtype), torch.tensor([0, 1]), None)
    torch.testing.assert_close(found, _hidden(2).mean(1), atol=0.01, rtol=0.01)


@pytest.mark.parametrize('number', [torch.nan, torch.inf])
def test_what_is_not_finite_is_like_nothing(number):
    search, hidden = GreedySearch(_decoder(), NEVER), _hidden(1)
    first = search([START], hidden, [0], None, MOST, recall=True)
    broken = search([START], hidden * number, [0], None, MOST, recall=True)
    assert len(broken.tokens[0]) == MOST
    assert _all_right(search, hidden, [0])
    assert search([START], hidden, [0], None, MOST, recall=True).tokens == first.tokens


def test_a_look_is_no_larger_than_memory_should_be(monkeypatch):
    monkeypatch.setattr(stepper, '_LOOK', 12)
    passes = _Passes(monkeypatch)
    search = GreedySearch(_decoder(), NEVER)
    first = search([START], _hidden(1), [0] * 3, None, MOST, recall=True)
    passes.steps.clear()
    assert search([START], _hidden(1), [0] * 3, None, MOST, recall=True).tokens == first.tokens
    assert passes.steps == [1 + 4, 1 + 4, 1 + 1]


def _decoder_at(level, less, dtype, hidden):
    """Return a decoder, its likeliest first word and another whose logit is less by so much.

    The likeliest's logit is near the level. What comes out of the last normalisation is 1 in one
    place, so that the weights there are added to the logits.
    """
    model = _decoder()
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    with torch.no_grad():
        model.transformer.ln_f.weight[0], model.transformer.ln_f.bias[0] = 0, 1
        model.lm_head.weight[:, 0] = 0
        (first,), = GreedySearch(model, NEVER)([START], hidden, [0], None, 1).tokens
        state = model.transformer(torch.tensor([[START]]), encoder_hidden_states=hidden)[0]
        model.lm_head.weight[:, 0] = level - 4 - model.lm_head(state).max()
        model.lm_head.weight[first, 0] += 4  # all others are far less likely
        other = VOCABULARY - 1
        model.lm_head.weight[other] = model.lm_head.weight[first]
        model = model.to(dtype)
        model.lm_head.weight[other, 0] -= less
    return model, first, other


@pytest.mark.parametrize('dtype, level, less, stays', [
    pytest.param(torch.float32, 6, 1e-4, False, id='float32'),
    pytest.param(torch.float32, 6, 0, False, id='float32, the second of two alike'),
    pytest.param(torch.bfloat16, 6, 2**-5, True, id='a step'),
    pytest.param(torch.bfloat16, 6, 2**-3, False, id='four steps'),
    pytest.param(torch.bfloat16, 15, 2**-4, False, id='a step, of more than 0.05'),
    pytest.param(torch.bfloat16, -96, 2**-1, False, id='a step, far from 0'),
    pytest.param(torch.bfloat16, -96, 0, True, id='alike, far from 0'),
    pytest.param(torch.float16, -96, 2**-4, False, id='a step of float16, far from 0'),
])
def test_the_last_word_stays_within_rounding_and_a_twentieth(dtype, level, less, stays):
    """Two words closer than the number type rounds would take turns from frame to frame."""
    hidden = _hidden(1)
    model, first, other = _decoder_at(level, less, dtype, hidden)
    hidden = hidden.to(dtype)
    plain = GreedySearch(model, NEVER)([START], hidden, [0], None, 1).tokens
    search = GreedySearch(model, NEVER)
    _remember(search, hidden, [other, other])
    found = search([START], hidden, [0], None, 2, recall=True).tokens[0][0]
    assert plain == [[first]] and first < other
    assert found == (other if stays else first)


@pytest.mark.usefixtures('layers')
@packs_bfloat16
@pytest.mark.parametrize('amx', [False, True])
@pytest.mark.parametrize('rows', LOOKS)
def test_the_same_again_in_bfloat16(rows, amx, monkeypatch):
    monkeypatch.setattr(stepper, 'has_amx', lambda: amx)
    model = _decoder(2).to(torch.bfloat16)
    pack_linears(model)
    hidden, mask = _hidden(1 + max(rows)).to(torch.bfloat16), _mask(rows)
    search = GreedySearch(model, END)
    first = search([START], hidden, rows, mask, MOST, recall=True)
    again = search([START], hidden, rows, mask, MOST, recall=True)
    assert again.scores == pytest.approx(first.scores, rel=0.1)
    assert sum(one == other for one, other in zip(first.tokens, again.tokens)) >= len(rows) - 1


@pytest.mark.usefixtures('layers')
@pytest.mark.parametrize('rows', LOOKS)
def test_the_same_again_in_int8(rows):
    model = _decoder(2)
    pack_linears(model, int8=True)
    hidden, mask = _hidden(1 + max(rows)), _mask(rows)
    search = GreedySearch(model, END)
    first = search([START], hidden, rows, mask, MOST, recall=True)
    again = search([START], hidden, rows, mask, MOST, recall=True)
    assert again.scores == pytest.approx(first.scores, rel=0.1)
    if len(rows) > 1:  # one token alone is rounded in a scale of another kind
        assert again.tokens == first.tokens and search.said_again == search.recalled


@pytest.mark.parametrize('kind', ['blip', 'tabletop'])
def test_a_captioner_recalls_what_it_is_asked_to(kind, checkpoint, rgb, regions):
    captioner = load_captioner(kind if kind == 'tabletop' else checkpoint(kind), device='cpu')
    wanted = captioner.caption(rgb, [None, *regions], CaptionOptions())
    assert 'recalled tokens right' not in captioner.facts()
    for _ in range(3):
        found = captioner.caption(rgb, [None, *regions], CaptionOptions(recall=True))
        assert [one.text for one in found] == [one.text for one in wanted]
    right, of, tried = captioner.facts()['recalled tokens right'].split()
    assert of == 'of' and int(right) == int(tried) > 0
