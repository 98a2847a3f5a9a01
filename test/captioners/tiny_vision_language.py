# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Tiny random image-text models of the real classes, in the layouts of their public checkpoints.

Processor files are written by hand where transformers makes the processor with torchvision only.
"""

from __future__ import annotations

import json

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertTokenizer,
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    BlipImageProcessor,
    CLIPImageProcessor,
    Florence2Config,
    Florence2ForConditionalGeneration,
    Florence2Processor,
    GitConfig,
    GitForCausalLM,
    GitProcessor,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMImageProcessor,
)

PAD, START, END, UNKNOWN = range(4)
SPOKEN = ('Describe this image in one short sentence. What is in the bottle? does describe? '
          'User: Assistant: a photo of').split()
VOCABULARY = 84
CHAT = ("{% for message in messages %}{{ message['role'] | capitalize }}: "
        "{% for part in message['content'] %}{% if part['type'] == 'image' %}IMAGE"
        "{% else %} {{ part['text'] }}{% endif %}{% endfor %} <end> {% endfor %}"
        "{% if add_generation_prompt %}Assistant:{% endif %}")


def _tokenizer(*special, **named):
    special = ['<pad>', '<start>', '<end>', '<unknown>', *special]
    words = [*special, *dict.fromkeys(SPOKEN)]
    words += [f'w{i}' for i in range(VOCABULARY - len(words))]
    core = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)},
                                      unk_token='<unknown>'))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token='<pad>', bos_token='<start>', eos_token='<end>',
        unk_token='<unknown>', extra_special_tokens={**named, **{
            f'extra_{i}': token for i, token in enumerate(special[4:])
            if token not in named.values()}})


def _write(folder, model_class, config, seed, specials):
    torch.manual_seed(seed)
    model = model_class(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.35, generator=generator)
            if 'position_embed' in name:
                weight.mul_(3)
    # Specials decode to nothing; a caption that opens with the end would be empty.
    model.generation_config.update(
        bos_token_id=START, eos_token_id=END, pad_token_id=PAD, max_length=9, num_beams=2,
        suppress_tokens=sorted({*range(specials)} - {END}), begin_suppress_tokens=[END])
    model.save_pretrained(folder)


def _settle(folder, processor_class, **settings):
    """Name the processor in the files, as public checkpoints do."""
    (folder / 'processor_config.json').write_text(
        json.dumps({'processor_class': processor_class, **settings}))


_TINY = {'num_hidden_layers': 2, 'num_attention_heads': 2, 'intermediate_size': 32}
_IDS = {'bos_token_id': START, 'eos_token_id': END, 'pad_token_id': PAD}
_VISION = {'hidden_size': 16, 'image_size': 32, 'patch_size': 8, **_TINY}


def smolvlm(folder, seed=21):
    """Write SmolVLM: an image is a whole view and tiles, so rows differ in length."""
    tokenizer = _tokenizer(
        '<image>', '<fake_token_around_image>', '<global-img>', '<video>',
        *(f'<row_{r}_col_{c}>' for r in range(1, 5) for c in range(1, 5)),
        image_token='<image>', fake_image_token='<fake_token_around_image>',
        global_image_token='<global-img>', video_token='<video>')
    tokenizer.save_pretrained(folder)
    text = {'model_type': 'llama', 'vocab_size': VOCABULARY, 'hidden_size': 16,
            'num_key_value_heads': 1, 'max_position_embeddings': 256, **_IDS, **_TINY}
    _write(folder, SmolVLMForConditionalGeneration, SmolVLMConfig(
        text_config=text, vision_config=_VISION, scale_factor=2, image_token_id=4), seed, 24)
    SmolVLMImageProcessor(size={'longest_edge': 128}, max_image_size={'longest_edge': 32}
                          ).save_pretrained(folder)
    _settle(folder, 'SmolVLMProcessor', image_seq_len=4)
    (folder / 'chat_template.jinja').write_text(CHAT.replace('IMAGE', '<image>'))


def qwen2_5_vl(folder, seed=22):
    """Write Qwen2.5-VL: an image has as many tokens as its size wants."""
    tokenizer = _tokenizer('<|image_pad|>', '<|video_pad|>', '<|vision_start|>', '<|vision_end|>')
    tokenizer.save_pretrained(folder)
    text = {'vocab_size': VOCABULARY, 'hidden_size': 16, 'num_key_value_heads': 1,
            'max_position_embeddings': 256, **_IDS, **_TINY,
            'rope_parameters': {'rope_type': 'default', 'rope_theta': 10000.0,
                                'mrope_section': [2, 1, 1]}}
    vision = {'hidden_size': 16, 'out_hidden_size': 16, 'depth': 2, 'num_heads': 2,
              'intermediate_size': 32, 'patch_size': 4, 'spatial_merge_size': 2,
              'window_size': 16, 'fullatt_block_indexes': [1]}
    _write(folder, Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLConfig(
        text_config=text, vision_config=vision, image_token_id=4, video_token_id=5,
        vision_start_token_id=6, vision_end_token_id=7), seed, 8)
    Qwen2VLImageProcessor(patch_size=4, merge_size=2, min_pixels=16 * 16, max_pixels=32 * 32
                          ).save_pretrained(folder)
    path = folder / 'preprocessor_config.json'
    path.write_text(json.dumps({**json.loads(path.read_text()),
                                'processor_class': 'Qwen2_5_VLProcessor'}))
    (folder / 'chat_template.json').write_text(json.dumps({'chat_template': CHAT.replace(
        'IMAGE', '<|vision_start|><|image_pad|><|vision_end|>')}))


def florence2(folder, seed=23):
    """Write Florence-2: an encoder-decoder that is told its task by a token."""
    tokenizer = _tokenizer('<image>', image_token='<image>')
    text = {'model_type': 'bart', 'vocab_size': VOCABULARY, 'd_model': 16, 'encoder_layers': 1,
            'decoder_layers': 2, 'encoder_attention_heads': 2, 'decoder_attention_heads': 2,
            'encoder_ffn_dim': 32, 'decoder_ffn_dim': 32, 'max_position_embeddings': 64,
            'decoder_start_token_id': END, 'forced_eos_token_id': END, **_IDS}
    vision = {'depths': [1, 1, 1, 1], 'embed_dim': [8, 8, 8, 16], 'num_heads': [1, 1, 2, 2],
              'num_groups': [1, 1, 2, 2], 'window_size': 4, 'projection_dim': 16}
    _write(folder, Florence2ForConditionalGeneration, Florence2Config(
        text_config=text, vision_config=vision, image_token_id=4, **_IDS), seed, 5)
    image_processor = CLIPImageProcessor(size={'height': 64, 'width': 64}, do_center_crop=False)
    image_processor.image_seq_length = 5  # 2 x 2 patches and their mean
    Florence2Processor(image_processor, tokenizer).save_pretrained(folder)


def blip_2(folder, seed=24):
    """Write BLIP-2 with OPT."""
    tokenizer = _tokenizer('<image>')
    text = {'model_type': 'opt', 'vocab_size': VOCABULARY, 'hidden_size': 16, 'ffn_dim': 32,
            'word_embed_proj_dim': 16, 'max_position_embeddings': 48, **_IDS,
            'num_hidden_layers': 2, 'num_attention_heads': 2}
    _write(folder, Blip2ForConditionalGeneration, Blip2Config(
        text_config=text, vision_config=_VISION, num_query_tokens=3, image_token_index=4,
        qformer_config={'hidden_size': 16, 'encoder_hidden_size': 16, 'vocab_size': 8, **_TINY},
    ), seed, 5)
    Blip2Processor(BlipImageProcessor(size={'height': 32, 'width': 32}), tokenizer,
                   num_query_tokens=3).save_pretrained(folder)


def git(folder, seed=25):
    """Write GIT: a BertTokenizer, which sets an end token behind every prompt."""
    words = ['[PAD]', '[CLS]', '[SEP]', '[UNK]', '[MASK]', '?', 'what', 'is', 'in', 'the',
             'bottle', 'a', 'photo', 'of']
    words += [f'w{i}' for i in range(VOCABULARY - len(words))]
    (folder / 'vocab.txt').write_text('\n'.join(words) + '\n')
    tokenizer = BertTokenizer(vocab=str(folder / 'vocab.txt'),
                              model_input_names=['input_ids', 'attention_mask'])
    _write(folder, GitForCausalLM, GitConfig(
        vision_config=_VISION, vocab_size=VOCABULARY, hidden_size=16, max_position_embeddings=64,
        **_IDS, **_TINY), seed, 5)
    GitProcessor(CLIPImageProcessor(size={'shortest_edge': 32}, crop_size=32), tokenizer
                 ).save_pretrained(folder)


def llava(folder, seed=26):
    """Write LLaVA-1.5 with its own vision tower of three channels."""
    tokenizer = _tokenizer('<image>', image_token='<image>')
    text = {'model_type': 'llama', 'vocab_size': VOCABULARY, 'hidden_size': 16,
            'num_key_value_heads': 1, 'max_position_embeddings': 256, **_IDS, **_TINY}
    _write(folder, LlavaForConditionalGeneration, LlavaConfig(
        text_config=text, vision_config={'model_type': 'clip_vision_model', **_VISION},
        image_token_index=4), seed, 5)
    LlavaProcessor(CLIPImageProcessor(size={'shortest_edge': 32}, crop_size=32), tokenizer,
                   patch_size=8, vision_feature_select_strategy='default',
                   num_additional_image_tokens=1, chat_template=CHAT.replace('IMAGE', '<image>')
                   ).save_pretrained(folder)


MAKERS = {'smolvlm': smolvlm, 'qwen2.5-vl': qwen2_5_vl, 'florence-2': florence2,
          'blip-2': blip_2, 'git': git,
          'llava': llava}
