"""A tiny, randomly initialised Qwen2.5-VL: the true classes and file formats at 1.5 million parameters.

No weights can be assumed on a fresh machine, so the project makes its own model folder. It loads in transformers
and in vLLM like any Qwen2.5-VL checkpoint; only its size, its tokenizer (byte-level BPE trained on the given texts)
and its constants differ, each for a reason written beside it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor, Qwen2Tokenizer

END_OF_TEXT, START_OF_TURN, END_OF_TURN = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
VISION_START, VISION_END = "<|vision_start|>", "<|vision_end|>"
IMAGE_PAD, VIDEO_PAD = "<|image_pad|>", "<|video_pad|>"
SPECIAL_TOKENS = (
    END_OF_TEXT,
    START_OF_TURN,
    END_OF_TURN,
    VISION_START,
    VISION_END,
    "<|vision_pad|>",
    IMAGE_PAD,
    VIDEO_PAD,
)
VOCAB_SIZE = 1000  # an upper bound: few texts give fewer merges
INIT_STD = 0.07  # 0.02, the usual value, learns nothing at this width
MAX_POSITIONS = 2048

# Qwen's turn format without its default system prompt. Content parts keep their order, so text may come before video.
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] in ('image', 'image_url') %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] in ('video', 'video_url') %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_tiny_tokenizer(texts: Iterable[str], folder: str | Path) -> Qwen2Tokenizer:
    """Train a byte-level BPE tokenizer on `texts`, with Qwen's special tokens, and save it to `folder`.

    The pre-tokenizer and normalizer are Qwen2's own. Any text can be encoded: all 256 bytes are in the vocabulary.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import Qwen2Tokenizer

    qwen = Qwen2Tokenizer().backend_tokenizer
    bpe = Tokenizer(models.BPE())
    bpe.normalizer, bpe.pre_tokenizer = qwen.normalizer, qwen.pre_tokenizer
    trainer = trainers.BpeTrainer(  # type: ignore[call-arg]
        vocab_size=VOCAB_SIZE - len(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    tokenizer = _with_special_tokens(bpe)
    tokenizer.save_pretrained(folder)
    return tokenizer


def _with_special_tokens(bpe) -> Qwen2Tokenizer:
    import json

    from transformers import Qwen2Tokenizer

    trained = json.loads(bpe.to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        vocab=trained["vocab"],
        merges=[tuple(pair) for pair in trained["merges"]],  # type: ignore[arg-type]
        eos_token=END_OF_TURN,
        pad_token=END_OF_TEXT,
        unk_token=END_OF_TEXT,
        additional_special_tokens=list(SPECIAL_TOKENS[1:]),
        model_max_length=MAX_POSITIONS,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def tiny_config(tokenizer: Qwen2Tokenizer, *, tied: bool = False) -> Qwen2_5_VLConfig:
    """Shapes of the tiny model, with the special tokens' ids of `tokenizer`."""
    from transformers import Qwen2_5_VLConfig

    ids = tokenizer.get_vocab()
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,  # head_dim 32: vLLM's CPU attention takes no less
        "num_key_value_heads": 2,
        "max_position_embeddings": MAX_POSITIONS,
        "max_window_layers": 3,
        "initializer_range": INIT_STD,
        "rms_norm_eps": 1e-6,
        # Half of the frequencies turn with time, and fast: with the usual theta of 1e6 and split of 2:3:3 a tiny
        # model cannot tell when a frame was. After the same SFT, orders of actions told right: theta 20 and 4:6:6
        # with 4 positions a second 0.43, theta 100 and 8:4:4 0.57, and with 12 positions a second 0.78.
        "rope_parameters": {"rope_type": "default", "rope_theta": 100.0, "mrope_section": [8, 4, 4]},
        "bos_token_id": ids[END_OF_TEXT],
        "eos_token_id": ids[END_OF_TURN],
        "pad_token_id": ids[END_OF_TEXT],
        "tie_word_embeddings": tied,
    }
    vision = {
        "depth": 2,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_heads": 4,
        "out_hidden_size": 128,
        "patch_size": 14,
        "temporal_patch_size": 2,
        "spatial_merge_size": 2,
        "window_size": 112,
        "fullatt_block_indexes": [1],
        "tokens_per_second": 12,  # toy clips last seconds: four positions from one temporal patch to the next
        "initializer_range": INIT_STD,
    }
    return Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ids[IMAGE_PAD],
        video_token_id=ids[VIDEO_PAD],
        vision_start_token_id=ids[VISION_START],
        vision_end_token_id=ids[VISION_END],
        tie_word_embeddings=tied,
        architectures=["Qwen2_5_VLForConditionalGeneration"],
    )


def make_tiny_processor(tokenizer: Qwen2Tokenizer) -> Qwen2_5_VLProcessor:
    """Image and video processors for frames of 28x28 to 168x168 pixels.

    vLLM profiles its memory with the largest image the processor allows, so that bound is small on purpose.
    """
    from transformers import Qwen2_5_VLProcessor, Qwen2VLImageProcessor
    from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

    def bounds() -> dict[str, int]:  # a fresh dict each: the processors' constructors keep and edit what they are given
        return {"shortest_edge": 28 * 28, "longest_edge": 168 * 168}

    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=bounds()),
        video_processor=Qwen2VLVideoProcessor(size=bounds()),
        tokenizer=tokenizer,
        chat_template=CHAT_TEMPLATE,
    )


def random_model(config: Qwen2_5_VLConfig, seed: int, *, motion: bool = False) -> Qwen2_5_VLForConditionalGeneration:
    """The model of `config` in fp32 on the CPU, every matrix drawn from N(0, INIT_STD), biases 0, norms 1."""
    import torch
    from transformers import Qwen2_5_VLForConditionalGeneration

    from owlcap.models.macm import MotionQwen2_5_VLForConditionalGeneration

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = MotionQwen2_5_VLForConditionalGeneration if motion else Qwen2_5_VLForConditionalGeneration
        model = made(config).float()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.dim() >= 2:
                    parameter.normal_(std=INIT_STD)
                else:
                    parameter.fill_(0.0 if name.endswith("bias") else 1.0)
    return model


def make_tiny_model(
    folder: str | Path, texts: Iterable[str], seed: int, *, tied: bool = False, motion: bool = False
) -> Path:
    """Write a complete Hugging Face folder with a random tiny model, and return it.

    Args:
        folder: where to; made when absent.
        texts: what the tokenizer is trained on (captions and prompts).
        seed: of the weights. Same texts and seed give the same bytes.
        tied: whether lm_head shares the embedding matrix (Qwen2.5-VL-3B does, 7B does not).
        motion: with a motion merger of its own random weights.
    """
    from transformers import GenerationConfig

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tiny_tokenizer(texts, folder)
    config = tiny_config(tokenizer, tied=tied)
    random_model(config, seed, motion=motion).save_pretrained(folder)
    make_tiny_processor(tokenizer).save_pretrained(folder)
    GenerationConfig(
        bos_token_id=tokenizer.pad_token_id,
        eos_token_id=[tokenizer.eos_token_id, tokenizer.pad_token_id],
        pad_token_id=tokenizer.pad_token_id,
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
    ).save_pretrained(folder)
    return folder
