"""Networks that only `train.py` measures, in PyTorch."""

from __future__ import annotations

from torch import Tensor, nn


class LSTMLanguage(nn.Module):
    def __init__(self, vocab: int, width: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab, width)
        self.lstm = nn.LSTM(width, width, batch_first=True)
        self.head = nn.Linear(width, vocab)

    def forward(self, text: Tensor) -> Tensor:
        states, _ = self.lstm(self.embed(text))
        return self.head(states)
