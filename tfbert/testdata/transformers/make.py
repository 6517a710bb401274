"""Makes the files beside it: a small BertForQuestionAnswering of random weights, as transformers saves it, and its logits.

Run with transformers 5.24.0 and torch 2.15.0: python make.py
"""
import json
import pathlib

import torch
from transformers import BertConfig, BertForQuestionAnswering

HERE = pathlib.Path(__file__).parent
VOCAB = """[PAD] [UNK] [CLS] [SEP] [MASK] who wrote it ? ada love ##lace the engine . by was written in 1843""".split()

torch.manual_seed(7)
config = BertConfig(vocab_size=len(VOCAB), hidden_size=16, num_hidden_layers=2, num_attention_heads=4,
                    intermediate_size=24, max_position_embeddings=32, initializer_range=0.5)
model = BertForQuestionAnswering(config).eval()
for parameter in model.parameters():  # also those that begin as 0 or 1
    torch.nn.init.normal_(parameter, parameter.mean().item(), 0.3)
model.save_pretrained(HERE)
(HERE / "vocab.txt").write_text("\n".join(VOCAB) + "\n")

windows, length = [], 12
for n in (12, 7, 9):
    ids = torch.randint(5, len(VOCAB), (n,))
    ids[0], ids[4], ids[-1] = 2, 3, 3
    windows.append({"input_ids": ids.tolist() + [0] * (length - n), "input_mask": [1] * n + [0] * (length - n),
                    "segment_ids": [0] * 5 + [1] * (n - 5) + [0] * (length - n)})
with torch.no_grad():
    out = model(input_ids=torch.tensor([w["input_ids"] for w in windows]),
                attention_mask=torch.tensor([w["input_mask"] for w in windows]),
                token_type_ids=torch.tensor([w["segment_ids"] for w in windows]))
for w, start, end in zip(windows, out.start_logits, out.end_logits):
    w["start_logits"], w["end_logits"] = start.tolist(), end.tolist()
(HERE / "windows.json").write_text(json.dumps(windows, indent=1) + "\n")
