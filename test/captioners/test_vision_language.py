# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Image-text models say what transformers says, on the real classes with random weights."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from test_loading import edit_json
from tiny_vision_language import END, MAKERS, START
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.utils import is_torchvision_available

from caption_ros.captioner import CaptionOptions
from caption_ros.captioners import load_captioner
from caption_ros.captioners.view import cropped
from caption_ros.errors import CaptionError, CheckpointError, OptionError
from caption_ros.region import region_from_box

QUESTION = 'What is in the bottle?'
CHATS = ('smolvlm', 'qwen2.5-vl', 'llava')
PLACES = {'llava': '<image>', 'smolvlm': '<image>',
          'qwen2.5-vl': '<|vision_start|><|image_pad|><|vision_end|>'}


def _options(**options):
    return CaptionOptions(**{'max_new_tokens': 6, **options})


@pytest.fixture
def folder(checkpoint, tmp_path):
    return lambda kind: shutil.copytree(checkpoint(kind), tmp_path / kind)


def _inputs_by_hand(kind, folder, captioner, picture, prompt):
    """Return what the documentation of a model tells to give to generate()."""
    image = Image.fromarray(picture)
    if kind in CHATS:  # transformers makes these processors with torchvision only
        asked = prompt or 'Describe this image in one short sentence.'
        text = f'User: {PLACES[kind]} {asked} <end> Assistant:'
        return captioner._processor(images=[[image]], text=[text], return_tensors='pt')
    processor = AutoProcessor.from_pretrained(folder)
    if kind == 'florence-2':
        return processor(images=image, text=prompt or '<CAPTION>', return_tensors='pt')
    if kind == 'blip-2' and prompt:
        return processor(images=image, text=prompt, return_tensors='pt')
    inputs = dict(processor(images=image, return_tensors='pt'))
    if prompt:
        words = processor.tokenizer(prompt, add_special_tokens=False)['input_ids']
        inputs['input_ids'] = torch.tensor([[START, *words]])
    return inputs


def _score_by_hand(kind, model, inputs, said):
    """Return the geometric mean of the probabilities of tokens, from one pass over them all."""
    inputs, row = dict(inputs), torch.tensor([said])
    if kind == 'florence-2':
        inputs['decoder_input_ids'] = torch.tensor([[END, *said]])
    else:
        start = [[4, 4, 4, START]] if kind == 'blip-2' else [[START]]
        ids = inputs.get('input_ids', torch.tensor(start))
        inputs['input_ids'] = torch.cat([ids, row], 1)
        inputs['attention_mask'] = torch.ones_like(inputs['input_ids'])
        if 'mm_token_type_ids' in inputs:
            inputs['mm_token_type_ids'] = torch.cat(
                [inputs['mm_token_type_ids'], torch.zeros_like(row)], 1)
    logits = model(**inputs).logits[0, -len(said) - 1:-1]
    return float(logits.log_softmax(-1)[torch.arange(len(said)), said].mean().exp())


@pytest.mark.parametrize('prompt', ['', QUESTION], ids=['no prompt', 'question'])
@pytest.mark.parametrize('num_beams', [1, 3])
@pytest.mark.parametrize('kind', MAKERS)
def test_tokens_and_scores_are_those_of_transformers(kind, num_beams, prompt, checkpoint,
                                                     captioner, rgb, regions):
    model = AutoModelForImageTextToText.from_pretrained(checkpoint(kind), dtype=torch.float32)
    model.eval()
    options = _options(num_beams=num_beams, prompt=prompt)
    for region in (None, regions[0]):
        picture = captioner(kind)._shown(rgb, region)
        inputs = _inputs_by_hand(kind, checkpoint(kind), captioner(kind), picture, prompt)
        with torch.inference_mode():
            ids = model.generate(**inputs, max_length=None, max_new_tokens=6, do_sample=False,
                                 num_beams=num_beams)[0].tolist()
            given = 1 if kind == 'florence-2' or (
                kind == 'git' and not prompt) else len(inputs.get('input_ids', [[0] * 4])[0])
            said = ids[given:]
            if END in said:
                said = said[:said.index(END) + 1]
            score = _score_by_hand(kind, model, inputs, said)
            decoded = captioner(kind)._look([(rgb, [region])], 'crop', options)
        assert said and decoded.tokens == [[token for token in said if token != END]]
        assert decoded.scores[0] == pytest.approx(score, abs=1e-4)
        caption, = captioner(kind).caption(rgb, [region], options)
        assert caption.text == captioner(kind)._tokenizer.decode(
            said, skip_special_tokens=True).strip()


@pytest.mark.parametrize('kind', MAKERS)
def test_the_prompt_changes_the_answer_and_does_not_stay(kind, captioner, rgb):
    before = captioner(kind).caption(rgb, [None], _options())
    asked = captioner(kind).caption(rgb, [None], _options(prompt=QUESTION))
    assert (asked[0].text, asked[0].score) != (before[0].text, before[0].score)
    assert captioner(kind).caption(rgb, [None], _options(prompt='  ')) == before


@pytest.mark.parametrize('kind', ['smolvlm', 'qwen2.5-vl'])
def test_a_batch_holds_rows_of_different_length(kind, captioner, rgb, regions):
    # Else "batch equals one by one" would not notice padding on the wrong side.
    crops = [cropped(rgb, region) for region in regions]
    mask = captioner(kind)._inputs([rgb, *crops], '')['attention_mask']
    assert mask[:, -1].all() and not mask.all()


def test_the_chat_template_may_lie_in_the_tokenizer(folder, captioner, rgb):
    path = folder('smolvlm')
    template = (path / 'chat_template.jinja').read_text()
    (path / 'chat_template.jinja').unlink()
    edit_json(path / 'tokenizer_config.json', chat_template=template)
    said, = load_captioner(path, device='cpu').caption(rgb, [None], _options())
    assert said == captioner('smolvlm').caption(rgb, [None], _options())[0]


def test_of_several_chat_templates_the_default_one_is_used(folder, captioner, rgb):
    path = folder('smolvlm')
    (path / 'additional_chat_templates').mkdir()
    (path / 'additional_chat_templates' / 'tool_use.jinja').write_text('no')
    said, = load_captioner(path, device='cpu').caption(rgb, [None], _options())
    assert said == captioner('smolvlm').caption(rgb, [None], _options())[0]


def test_a_template_that_writes_the_start_token_gets_no_second_one(folder, rgb):
    path = folder('smolvlm')
    template = (path / 'chat_template.jinja').read_text()
    (path / 'chat_template.jinja').write_text('<start>' + template)
    captioner = load_captioner(path, device='cpu')
    captioner._tokenizer.add_bos_token = True
    ids = captioner._inputs([rgb], '')['input_ids'][0].tolist()
    assert ids.count(START) == 1


def test_a_chat_model_without_its_template_takes_the_whole_prompt(folder, captioner, rgb):
    path = folder('smolvlm')
    (path / 'chat_template.jinja').unlink()
    bare = load_captioner(path, device='cpu')
    prompt = f'User: <image> {QUESTION} <end> Assistant:'
    said, = bare.caption(rgb, [None], _options(prompt=prompt))
    assert said == captioner('smolvlm').caption(rgb, [None], _options(prompt=QUESTION))[0]
    with pytest.raises(OptionError, match='cannot use prompt .*<image>'):
        bare.caption(rgb, [None], _options(prompt=QUESTION))


def test_an_image_in_the_prompt_is_refused(captioner, rgb):
    with pytest.raises(OptionError, match='must not hold <image>'):
        captioner('smolvlm').caption(rgb, [None], _options(prompt='a <image> b'))


def test_a_task_with_words_beside_it_is_refused(captioner, rgb):
    with pytest.raises(OptionError, match='cannot use prompt.*should be the only content'):
        captioner('florence-2').caption(rgb, [None], _options(prompt='<CAPTION> and more'))


@pytest.mark.parametrize('kind', ['smolvlm', 'blip-2', 'git'])
def test_a_prompt_that_leaves_no_room_is_refused(kind, captioner, rgb):
    with pytest.raises(OptionError, match='prompt is too long: with the image it takes'):
        captioner(kind).caption(rgb, [None], _options(prompt='a ' * 256))


@pytest.mark.parametrize('kind', ['blip-2', 'git', 'florence-2'])
def test_a_caption_ends_where_the_positions_end(kind, captioner, rgb):
    decoded = captioner(kind)._look([(rgb, [None])], 'crop', CaptionOptions(max_new_tokens=500))
    assert 0 < len(decoded.tokens[0]) < 64


@pytest.mark.parametrize('kind', MAKERS)
def test_a_truncated_file_is_named(kind, folder):
    path = folder(kind) / 'model.safetensors'
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(CheckpointError, match='model.safetensors cannot be loaded as .*damaged'):
        load_captioner(path.parent, device='cpu')


@pytest.mark.parametrize('kind', MAKERS)
@pytest.mark.parametrize('patterns, text', [
    (['tokenizer*', 'vocab*'], 'holds no tokenizer; wanted one of tokenizer.json'),
    (['*processor_config.json'], 'holds no image processor; wanted one of'),
    (['model*'], 'holds no weights; wanted one of model.safetensors'),
])
def test_a_missing_file_is_named(kind, patterns, text, folder):
    path = folder(kind)
    for pattern in patterns:
        for file in path.glob(pattern):
            file.unlink()
    with pytest.raises(CheckpointError, match=text):
        load_captioner(path, device='cpu')


def test_a_missing_weight_is_named(folder):
    from safetensors.torch import load_file, save_file
    path = folder('git') / 'model.safetensors'
    weights = load_file(path)
    del weights['git.visual_projection.visual_projection.0.weight']
    save_file(weights, path, metadata={'format': 'pt'})
    with pytest.raises(CheckpointError, match='lacks weights for GitForCausalLM: git.visual_proj'):
        load_captioner(path.parent, device='cpu')


def test_a_model_that_is_no_image_text_model_is_named(folder):
    path = folder('git')
    edit_json(path / 'config.json', model_type='gpt2')
    with pytest.raises(CheckpointError, match="config.json holds model_type 'gpt2', wanted one of "
                                              'vision-encoder-decoder.*such as smolvlm'):
        load_captioner(path, device='cpu')


@pytest.mark.parametrize('kind', ['florence-2', 'smolvlm', 'blip-2', 'git'])
def test_a_processor_of_another_size_is_refused(kind, folder, rgb):
    path = folder(kind)
    file = next(name for name in ('preprocessor_config.json', 'processor_config.json')
                if (path / name).exists())
    held = json.loads((path / file).read_text())
    image = held.get('image_processor', held)
    image.update(size={'height': 96, 'width': 96}, do_center_crop=False)
    if kind == 'smolvlm':
        edit_json(path / 'processor_config.json', image_seq_len=3)
    else:
        (path / file).write_text(json.dumps(held))
    with pytest.raises(CheckpointError, match='preprocessor_config.json and config.json do not'):
        load_captioner(path, device='cpu').caption(rgb, [None], _options())


def test_a_processor_of_the_checkpoints_own_code_is_refused(folder):
    path = folder('qwen2.5-vl')
    edit_json(path / 'preprocessor_config.json', processor_class='OwnProcessor',
              auto_map={'AutoProcessor': 'own.OwnProcessor'})
    with pytest.raises(CheckpointError, match='preprocessor_config.json wants the processor '
                                              'OwnProcessor, which transformers .* never run'):
        load_captioner(path, device='cpu')


@pytest.mark.skipif(is_torchvision_available(), reason='torchvision is here')
def test_an_image_processor_that_needs_torchvision_says_so(folder):
    path = folder('qwen2.5-vl')
    edit_json(path / 'preprocessor_config.json', image_processor_type='Lfm2VlImageProcessor')
    with pytest.raises(CheckpointError, match=r'qwen2.5-vl holds a processor that cannot be '
                                              r'loaded: .*Missing optional dependencies: torchv'):
        load_captioner(path, device='cpu')


@pytest.mark.parametrize('prompt, error, text', [
    ('', CaptionError, 'cannot use an image without a prompt: text is needed, always'),
    (QUESTION, OptionError, 'cannot use prompt .*bottle.*: text is needed, always')])
def test_a_processor_that_fails_is_one_sentence(prompt, error, text, folder, rgb, monkeypatch):
    captioner = load_captioner(folder('git'), device='cpu')

    def refuse(*_, **__):
        raise TypeError('text is needed,\nalways')
    monkeypatch.setattr(type(captioner._processor), '__call__', refuse)
    with pytest.raises(error, match=text):
        captioner.caption(rgb, [None], _options(prompt=prompt))


@pytest.mark.parametrize('prompt, error, text', [
    ('', CaptionError, 'cannot use an image without a prompt: can only concatenate'),
    (QUESTION, OptionError, 'cannot use prompt .*bottle.*: can only concatenate')])
def test_a_chat_template_that_fails_is_one_sentence(prompt, error, text, folder, rgb):
    captioner = load_captioner(folder('smolvlm'), device='cpu')
    captioner._template = "{{ 'a' + messages[0]['content'] }}"  # of text alone, so none of ours
    with pytest.raises(error, match=text):
        captioner.caption(rgb, [None], _options(prompt=prompt))


@pytest.mark.parametrize('kind', MAKERS)
@pytest.mark.parametrize('box', [(560, 100, 640, 140), (600, 0, 640, 400), (0, 190, 640, 210)])
def test_all_of_a_region_is_seen(kind, box, captioner):
    # White on black; a processor that keeps the middle square would cut its ends off.
    rgb = np.zeros((400, 640, 3), np.uint8)
    x0, y0, x1, y1 = box
    rgb[y0:y1, x0:x1] = 255
    region = region_from_box(box, (400, 640))
    shown = captioner(kind)._shown(rgb, region)
    assert (shown.min(2) == 255).sum() == region.area_px
    assert shown.shape[0] == shown.shape[1] or kind not in ('git', 'llava')
    if max(x1 - x0, y1 - y0) < 300:  # there is room for context, which tells more than padding
        assert set(np.unique(shown)) == {0, 255}


def test_an_array_three_high_is_still_rows_and_columns(captioner):
    # Processors take the first axis of such an array for channels.
    thin = np.zeros((3, 40, 3), np.uint8)
    thin[..., 0] = 250
    inputs = captioner('git')._inputs([thin], '')['pixel_values']
    assert inputs[0, 0].min() > inputs[0, 1].max()
