"""The tiny model is a Qwen2.5-VL checkpoint like any other, only small."""

import numpy as np
import torch
from transformers import AutoProcessor, AutoTokenizer, Qwen2_5_VLForConditionalGeneration

from owlcap.models.tiny import SPECIAL_TOKENS, VIDEO_PAD, make_tiny_model


def test_it_loads_through_the_auto_classes_with_1_to_4_million_parameters(tiny_policy):
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(tiny_policy)
    assert 1e6 < sum(p.numel() for p in model.parameters()) < 4e6
    assert model.config.text_config.hidden_size // model.config.text_config.num_attention_heads >= 32
    assert type(AutoProcessor.from_pretrained(tiny_policy)).__name__ == "Qwen2_5_VLProcessor"


def test_special_tokens_are_single_ids_known_to_the_config(tiny_policy):
    tokenizer = AutoTokenizer.from_pretrained(tiny_policy)
    config = Qwen2_5_VLForConditionalGeneration.from_pretrained(tiny_policy).config
    ids = [tokenizer(token).input_ids for token in SPECIAL_TOKENS]
    assert all(len(i) == 1 for i in ids)
    assert tokenizer(VIDEO_PAD).input_ids == [config.video_token_id]
    assert tokenizer.eos_token_id == config.text_config.eos_token_id == tokenizer("<|im_end|>").input_ids[0]
    assert len(tokenizer) == config.text_config.vocab_size <= 1000


def test_any_text_survives_a_round_trip(tiny_policy):
    tokenizer = AutoTokenizer.from_pretrained(tiny_policy)
    text = "Une zèbre, 3 \u732b\u3001 and it's\nfine."
    assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_the_chat_template_keeps_text_before_video_and_adds_no_system_prompt(tiny_policy):
    processor = AutoProcessor.from_pretrained(tiny_policy)
    content = [{"type": "text", "text": "Describe."}, {"type": "video"}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    assert text == (
        "<|im_start|>user\nDescribe.<|vision_start|><|video_pad|><|vision_end|><|im_end|>\n<|im_start|>assistant\n"
    )


def test_the_processor_makes_one_token_of_28_by_28_pixels_and_2_frames(tiny_policy):
    processor = AutoProcessor.from_pretrained(tiny_policy)
    out = processor.video_processor(videos=[np.zeros((12, 56, 84, 3), np.uint8)], return_tensors="pt")
    assert out["video_grid_thw"].tolist() == [[6, 4, 6]]


def test_same_texts_and_seed_give_the_same_weights(tmp_path):
    texts = ["red blue green", "walk and wave"]
    a, b, c = (make_tiny_model(tmp_path / n, texts, seed=s) for n, s in (("a", 1), ("b", 1), ("c", 2)))
    same, other = ((f / "model.safetensors").read_bytes() == (a / "model.safetensors").read_bytes() for f in (b, c))
    assert same
    assert not other


def test_tied_models_share_one_matrix(tmp_path):
    folder = make_tiny_model(tmp_path, ["red blue"], seed=0, tied=True)
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder)
    assert model.lm_head.weight.data_ptr() == model.model.language_model.embed_tokens.weight.data_ptr()
    assert torch.isfinite(model.lm_head.weight).all()
