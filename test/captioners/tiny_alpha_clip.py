# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Alpha-CLIP's vision tower in plain torch, and a tiny LLaVA-1.5 in its public layout."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, processors
from torch import nn
from torch.nn import functional
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    GenerationConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
)

SIZES = {'width': 64, 'patch': 8, 'grid': 4, 'blocks': 3, 'out': 20}
UNKNOWN, START, END, NEWLINE, SPACE = range(5)


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.heads = width // 64
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.ModuleDict({'in_proj': nn.Linear(width, 3 * width),
                                   'out_proj': nn.Linear(width, width)})
        self.mlp = nn.ModuleDict({'c_fc': nn.Linear(width, 4 * width),
                                  'c_proj': nn.Linear(4 * width, width)})

    def forward(self, x):
        batch, tokens, width = x.shape
        q, k, v = (part.view(batch, tokens, self.heads, 64).transpose(1, 2) for part in
                   self.attn['in_proj'](self.ln_1(x)).split(width, -1))
        weights = (q @ k.transpose(2, 3) / 8).softmax(-1)
        x = x + self.attn['out_proj']((weights @ v).transpose(1, 2).reshape(x.shape))
        h = self.mlp['c_fc'](self.ln_2(x))
        return x + self.mlp['c_proj'](h * torch.sigmoid(1.702 * h))


class Reference(nn.Module):
    """The network of the paper; its state dict is a checkpoint."""

    def __init__(self, width, patch, grid, blocks, out, seed=0):
        super().__init__()
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.positional_embedding = nn.Parameter(torch.empty(grid * grid + 1, width))
        self.proj = nn.Parameter(torch.empty(width, out))
        self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
        self.conv1_alpha = nn.Conv2d(1, width, patch, patch, bias=False)
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = nn.ModuleDict({'resblocks': nn.ModuleList(
            Block(width) for _ in range(blocks))})
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, weight in self.named_parameters():
                if weight.ndim == 1:
                    weight.normal_(float('ln_' in name and 'weight' in name), 0.3,
                                   generator=generator)
                else:
                    weight.normal_(0, weight[0].numel() ** -0.5, generator=generator)
        self.requires_grad_(False)

    def forward(self, pixels, alpha):
        """Return the states from before the first block on, the class token, its projection."""
        x = functional.conv2d(pixels, self.conv1.weight, stride=self.conv1.stride)
        x = x + functional.conv2d(alpha, self.conv1_alpha.weight, stride=self.conv1.stride)
        x = x.flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], 1)
        states = [self.ln_pre(x + self.positional_embedding)]
        for block in self.transformer['resblocks']:
            states.append(block(states[-1]))
        pooled = self.ln_post(states[-1][:, 0])
        return states, pooled, pooled @ self.proj


def alpha_clip_pth(path, seed=0, **sizes):
    reference = Reference(**{**SIZES, **sizes}, seed=seed)
    torch.save(reference.state_dict(), path)
    return reference


def _llama_tokenizer():
    """Make a tokenizer of single characters that treats spaces as Llama's does."""
    marks = [chr(c) for c in (*range(97, 123), *range(65, 91), *range(48, 58))] + list('.,?:-')
    words = ['<unk>', '<s>', '</s>', '<0x0A>', '▁', *marks]
    core = Tokenizer(models.BPE({w: i for i, w in enumerate(words)}, [], unk_token='<unk>',
                                byte_fallback=True))
    core.normalizer = normalizers.Sequence([normalizers.Prepend('▁'),
                                            normalizers.Replace(' ', '▁')])
    core.decoder = decoders.Sequence([decoders.Replace('▁', ' '), decoders.ByteFallback(),
                                      decoders.Fuse()])
    core.post_processor = processors.TemplateProcessing('<s> $A', special_tokens=[('<s>', START)])
    words = PreTrainedTokenizerFast(tokenizer_object=core, unk_token='<unk>', bos_token='<s>',
                                    eos_token='</s>')
    words.add_special_tokens({'additional_special_tokens': ['<image>']})
    return words


def llava(folder, seed=8, channels=3, **vision):
    """Write a LLaVA-1.5 whose tower has the sizes of alpha_clip_pth."""
    words = _llama_tokenizer()
    tower = CLIPVisionConfig(**{
        'hidden_size': 64, 'intermediate_size': 256, 'num_hidden_layers': 3,
        'num_attention_heads': 1, 'image_size': 32, 'patch_size': 8, 'num_channels': channels,
        'projection_dim': 20, **vision})
    text = LlamaConfig(vocab_size=len(words) + 3, hidden_size=32, intermediate_size=48,
                       num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
                       max_position_embeddings=256, bos_token_id=START, eos_token_id=END)
    config = LlavaConfig(vision_config=tower, text_config=text, image_seq_length=16,
                         image_token_index=words.convert_tokens_to_ids('<image>'))
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:  # the image must outweigh the question, which is longer
                scale = 2.0 if 'projector' in name else 0.3
                weight.normal_(0, scale / weight.shape[-1] ** 0.5 * 4, generator=generator)
    silent = [UNKNOWN, START, NEWLINE, SPACE, *range(len(words) - 1, text.vocab_size)]
    model.generation_config = GenerationConfig(
        bos_token_id=START, eos_token_id=END, pad_token_id=UNKNOWN, max_length=30,
        suppress_tokens=silent, begin_suppress_tokens=[END])
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    CLIPImageProcessor(size={'shortest_edge': tower.image_size}, crop_size={
        'height': tower.image_size, 'width': tower.image_size}).save_pretrained(folder)


def alpha_clip_llava(folder, seed=8):
    """Write what a user puts together: a LLaVA-1.5 folder and Alpha-CLIP's file in it."""
    llava(folder, seed)
    alpha_clip_pth(folder / 'clip_l14_tiny.pth', seed)


MAKERS = {'alpha-clip-llava': alpha_clip_llava}
